;; Recurses without end in its start section.
(module
  (memory (export "memory") 1)
  (func $start (call $start))
  (start $start)
  (func (export "_start")))
