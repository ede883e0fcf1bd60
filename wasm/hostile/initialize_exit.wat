;; A reactor that exits with 0 where it initializes: it must not be called afterwards.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_initialize") (call $exit (i32.const 0)))
  (func (export "run") (param i32 i32) (result i32) unreachable))
