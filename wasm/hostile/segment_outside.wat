;; A data segment that does not fit into the memory: it traps before anything of it runs.
(module
  (memory (export "memory") 1)
  (data (i32.const 65535) "two")
  (func (export "_start")))
