;; Write for ever, in every way there is to write much.
(module
  (type $entry (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 32)
  ;; An iovec at $at.
  (func $vector (param $at i32) (param $from i32) (param $size i32)
    (i32.store (local.get $at) (local.get $from)) (i32.store offset=4 (local.get $at) (local.get $size)))
  (func $flood (param $fd i32) (param $size i32)
    (call $vector (i32.const 0) (i32.const 64) (local.get $size))
    (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "stdout") (type $entry) (loop $again (call $flood (i32.const 1) (i32.const 65536)) (br $again)) unreachable)
  (func (export "stderr") (type $entry) (loop $again (call $flood (i32.const 2) (i32.const 65536)) (br $again)) unreachable)
  (func (export "both") (type $entry)
    (loop $again
      (call $flood (i32.const 1) (i32.const 4096)) (call $flood (i32.const 2) (i32.const 5000)) (br $again))
    unreachable)
  (func (export "bytes") (type $entry)
    (loop $again (call $flood (i32.const 1) (i32.const 1)) (call $flood (i32.const 2) (i32.const 1)) (br $again))
    unreachable)
  (func (export "nothings") (type $entry)
    (loop $again (call $flood (i32.const 1) (i32.const 0)) (br $again)) unreachable)
  ;; 1,024 times the same megabyte in one call.
  (func (export "vectors") (type $entry) (local $i i32)
    (loop $next
      (call $vector (i32.mul (local.get $i) (i32.const 8)) (i32.const 0x10000) (i32.const 0x100000))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1024))))
    (loop $again
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 0x1ffff8))) (br $again))
    unreachable)
  ;; Much, and then the end.
  (func (export "ends") (type $entry) (local $i i32)
    (loop $next
      (call $flood (i32.const 1) (i32.const 65536)) (call $flood (i32.const 2) (i32.const 65536))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 640))))
    (local.get 0)))
