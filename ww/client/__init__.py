"""The Python client of a gateway.

    from ww.client import Client

    with Client("http://127.0.0.1:8080") as client:
        task = client.submit("hash.wasm", input=0, difficulty=3, repeats=3)
        client.wait(task.id)
        for result in client.results(task.id):
            print(result.run, result.result)

`AsyncClient` is the same for asyncio. Both are shells (sync.py, aio.py) around one core without I/O: operation.py says
what is asked, call.py when again, submission.py what a task is made of and batch.py what its runs, stream.py how events
are followed and results.py how results, answer.py what comes back. `connect` and `aconnect` (target.py) take a peer id
in place of a URL, too.
"""

from ww.client.aio import AsyncClient
from ww.client.answer import ENDED, Check, Event, Health, Readiness, Result, Task, Worker
from ww.client.batch import RunFields
from ww.client.call import Retry
from ww.client.submission import TaskFields
from ww.client.sync import Client
from ww.client.target import aconnect, connect

__all__ = [
    "ENDED",
    "AsyncClient",
    "Check",
    "Client",
    "Event",
    "Health",
    "Readiness",
    "Result",
    "Retry",
    "RunFields",
    "Task",
    "TaskFields",
    "Worker",
    "aconnect",
    "connect",
]
