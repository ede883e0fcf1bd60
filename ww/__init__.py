"""ww: a peer-to-peer capability cluster that runs WebAssembly nobody has to trust.

Read a task's life in this order: gateway/http.py, gateway/scheduler.py, gateway/pool.py, worker.py,
sandbox/pool.py, sandbox/executor.py. The picture of the layers is docs/architecture.md.
"""

__version__ = "0.1.0"
