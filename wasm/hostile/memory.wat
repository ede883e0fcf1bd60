;; Take all the memory there is, and use it.
(module
  (type $entry (func (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Grows page by page until it is refused; returns how many pages there are.
  (func $grow (export "grow") (type $entry)
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (memory.size))
  ;; Writes into every page of it, and beyond.
  (func (export "touch") (type $entry) (local $at i32)
    (drop (call $grow (i32.const 0) (i32.const 0)))
    (loop $next
      (i32.store (local.get $at) (i32.const 1))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br $next))
    unreachable)
  ;; Writes all of it at once, for ever.
  (func (export "fill") (type $entry)
    (drop (call $grow (i32.const 0) (i32.const 0)))
    (loop $again
      (memory.fill (i32.const 0) (i32.const 0xaa) (i32.mul (memory.size) (i32.const 65536)))
      (br $again))
    unreachable)
  (func (export "copy") (type $entry) (local $half i32)
    (drop (call $grow (i32.const 0) (i32.const 0)))
    (local.set $half (i32.mul (memory.size) (i32.const 32768)))
    (loop $again
      (memory.copy (i32.const 0) (local.get $half) (local.get $half))
      (memory.copy (local.get $half) (i32.const 0) (local.get $half))
      (br $again))
    unreachable)
  (func (export "grow_at_once") (type $entry) (memory.grow (i32.const 65535)))
  (func (export "grow_too_far") (type $entry) (memory.grow (i32.const -1))))
