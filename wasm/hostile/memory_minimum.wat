;; Wants 4 GiB to start with.
(module (memory (export "memory") 65536) (func (export "_start")))
