"""`ww` in a sandbox. Becomes ww/__init__.py of the component."""

from ww.python.guest.shim import Job, RemoteException, RemoteTraceback, __getattr__, job

__all__ = ["Job", "RemoteException", "RemoteTraceback", "__getattr__", "job"]
