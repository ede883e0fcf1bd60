"""An asyncio client of a gateway in a thread of its own, for programs with any event loop or none.

Holds the thread. Must not know what is done with the client. Capabilities live in the thread of the native client
(client/native_sync.py); HTTP gets one here, so that its users import no capabilities.
"""

import asyncio
import concurrent.futures
import contextlib
import importlib
import os
import threading
import traceback
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from ww.client.aio import AsyncClient
from ww.client.target import aconnect, connect, is_http
from ww.errors import UsageError

T = TypeVar("T")
Work = Callable[[AsyncClient], Coroutine[Any, Any, T]]

_CLOSE_S: Final = 10.0


class Link(Protocol):
    """A client, and where it lives."""

    def begin(self, work: Work[T]) -> "concurrent.futures.Future[T]":
        """Have work done with the client in its thread. UsageError when it is closed, or of another process."""

    def close(self) -> None:
        """End what is under way, close the client and end the thread. Idempotent."""


def open_link(target: str, **settings: Any) -> Link:
    """Return a link to an address, with the settings of ww.client.connect."""
    if is_http(target):
        return _HttpLink(target, settings)
    client: Any = connect(target, **settings)
    assert isinstance(client, importlib.import_module("ww.client.native").NativeClient)
    link: Link = client
    return link


def let_go(error: BaseException) -> None:
    """Have an error that ended in the link's thread hold nothing of what was under way there.

    Its frames hold capabilities, and Python's garbage collector runs in any thread: where it finds one in another
    thread than its own, the program is aborted.
    """
    left, seen = [error], set()
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen.add(id(each))
            left += filter(None, (each.__context__, each.__cause__))
            traceback.clear_frames(each.__traceback__)
            each.__traceback__ = each.__context__ = each.__cause__ = None


class _HttpLink:
    def __init__(self, target: str, settings: dict[str, Any]) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        # Whatever is wrong with the settings is said here.
        self._client = aconnect(target, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop, self._client), name="ww-jobs", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._loop, self._thread, self._pid)

    def begin(self, work: Work[T]) -> "concurrent.futures.Future[T]":
        if os.getpid() != self._pid:
            raise UsageError("the client was made before this process was forked; expected one that is made in it")
        with self._lock:
            if self._is_closed:
                raise UsageError("the client is closed")
            return asyncio.run_coroutine_threadsafe(work(self._client), self._loop)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._finalizer()


def _run(loop: asyncio.AbstractEventLoop, client: AsyncClient) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        with contextlib.suppress(Exception):
            loop.run_until_complete(asyncio.wait_for(client.aclose(), _CLOSE_S))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int) -> None:
    if os.getpid() != pid or loop.is_closed():
        return
    with contextlib.suppress(RuntimeError):  # it was closed meanwhile
        loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join(2 * _CLOSE_S)
