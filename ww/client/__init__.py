"""The Python client of a gateway's HTTP interface.

    from ww.client import Client

    with Client("http://127.0.0.1:8080") as client:
        task = client.submit("hash.wasm", input=0, difficulty=3, repeats=3)
        client.wait(task.id)
        for result in client.results(task.id):
            print(result.run, result.result)

`AsyncClient` is the same for asyncio. Both are shells (sync.py, aio.py) around one core without I/O: operation.py says
what is asked, call.py when again, submission.py what a task is made of, stream.py how events are followed, answer.py
what comes back.
"""

from ww.client.aio import AsyncClient
from ww.client.answer import ENDED, Check, Event, Health, Readiness, Result, Task, Worker
from ww.client.call import Retry
from ww.client.submission import TaskFields
from ww.client.sync import Client

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
    "Task",
    "TaskFields",
    "Worker",
]
