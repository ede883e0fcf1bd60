;; Wants four thousand million table elements to start with.
(module (memory (export "memory") 1) (table 0xffffffff funcref) (func (export "_start")))
