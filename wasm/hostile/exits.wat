;; End by proc_exit, and by what only looks like it.
(module
  (type $entry (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "proc_raise" (func $raise (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "exit") (type $entry) (call $exit (local.get 0)) unreachable)
  ;; Called a second time, if the first did not end it.
  (func (export "exit_loop") (type $entry) (loop $again (call $exit (local.get 0)) (br $again)) unreachable)
  (func (export "raise") (type $entry) (call $raise (local.get 0))))
