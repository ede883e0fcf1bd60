;; A reactor that is never done initializing.
(module
  (memory (export "memory") 1)
  (func (export "_initialize") (loop $again (br $again)))
  (func (export "run") (param i32 i32) (result i32) (local.get 0)))
