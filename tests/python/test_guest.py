import asyncio
import builtins
import json
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.python.guests import Guest, zipped
from ww.python.failure import Failure, dumps_failure
from ww.python.guest import loop
from ww.python.request import Answer, AnswerKind, ended, read_calls, write_answers


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    # A space may be called as the program that runs the tests.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    before = builtins.__import__
    made = Guest(monkeypatch)
    yield made
    made.end()
    assert builtins.__import__ is before


def run(guest: Guest, source: str, *args: Any, name: str = "f") -> Any:
    assert guest.load(f"sent:{name}", zipped({"sent.py": source})) is None
    return guest.call(*args)


def test_a_function_of_a_module_is_called(guest: Guest) -> None:
    assert run(guest, "def f(a, b=1): return a + b", 2) == 3
    assert guest.call(2, b=5) == 7
    assert guest.call_several((1,), (2,)) == [2, 3]


def test_modules_import_each_other_and_packages_have_files(guest: Guest) -> None:
    files = {
        "sent.py": "from pack.inner import deep as d\nimport space.leaf as s\ndef f(): return d(), s.X, d.__module__",
        "pack/__init__.py": "from importlib.resources import files\nTEXT = files('pack') / 'data/a.txt'",
        "pack/inner/__init__.py": "from pkgutil import get_data\nfrom .. import TEXT\n"
        "def deep(): return TEXT.read_text(), get_data('pack', 'data/a.txt')",
        "pack/data/a.txt": "hello",
        "space/leaf.py": "X = 7",
    }
    assert guest.load("sent:f", zipped(files)) is None
    assert guest.call() == (("hello", b"hello"), 7, "pack.inner")


def test_what_a_function_raises_comes_back_with_its_own_frames_alone(guest: Guest, capsys: Any) -> None:
    source = "class Mine(ValueError): pass\ndef g(a):\n    raise Mine('no', a)\ndef f(a):\n    g(a)\n"
    failure = run(guest, source, 3)
    assert isinstance(failure, Failure)
    assert (failure.type_module, failure.type_name, failure.args) == ("sent", "Mine", ("no", 3))
    assert 'File "sent.py", line 3, in g\n    raise Mine(' in failure.traceback
    assert failure.traceback.count("File ") == 2
    assert capsys.readouterr().err == failure.traceback


def test_the_first_of_several_calls_that_raises_ends_them(guest: Guest) -> None:
    assert guest.load("sent:f", zipped({"sent.py": "def f(a): return 1 / a"})) is None
    failure = guest.call_several((1,), (0,), (2,))
    assert failure.type_name == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import sys\ndef f(): sys.exit(3)", "SystemExit: 3"),
        ("def f(): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(): return f()", "RecursionError: maximum recursion depth exceeded"),
        ("def f(): raise MemoryError", "MemoryError"),
        ("def f(): yield 1", "NotSendable: cannot send result: a generator: return a list or another value"),
        ("def f(): return [1, {'a': open}]", "NotSendable: cannot send result[1]['a']: "),
        ("def f(a): pass", "TypeError: f() missing 1 required positional argument: 'a'"),
        (
            "import json\ndef f(): return json.JSONDecoder()",
            "NotSendable: cannot send result: json.decoder.JSONDecoder",
        ),
        ("import fractions, ast\ndef f(): return ast.Load.__class__.__mro__", "NotSendable: cannot send result[0]"),
    ],
)
def test_every_end_is_an_answer(guest: Guest, source: str, expected: str) -> None:
    assert run(guest, source).line.removeprefix("ww.errors.").startswith(expected)


def test_code_that_cannot_be_loaded_says_why(guest: Guest) -> None:
    for source, expected in (
        ("def f(: pass", "SyntaxError"),
        ("raise RuntimeError('at import')", "RuntimeError: at import"),
        ("def g(): pass", "LookupError: the code that was sent has no function sent:f"),
        ("from sent2 import x", "ModuleNotFoundError"),
    ):
        failure = guest.load("sent:f", zipped({"sent.py": source, "sent2.py": "import nothing.there as x\nx.y()\nz"}))
        assert failure is None or failure.line.startswith((expected, "NameError"))
        assert failure is not None
    assert "ValueError" in str(guest.load("sent:f", zipped({}, version=9)))
    assert "BadZipFile" in str(guest.load("sent:f", b"no zip"))
    assert "LookupError" in str(guest.load("nothing", zipped({})))


MISSING = """
import absent as ab, absent_too.inner
from absent.deep import Thing, make
from absent import *
try:
    import absent
    HAS = True
except ImportError:
    HAS = False
try: from absent.x import y
except (ValueError, ModuleNotFoundError): y = None
KEPT = ab.zeros(3).T
class Sub(ab.nn.Module, Thing):
    field: "ab.ndarray | None" = None
    other: ab.ndarray[int] | None = None
    size = ab.get(1)
@ab.compile(fast=True)
def fast(x: ab.ndarray) -> Thing: return x
@make
def made(x): return x
def f(what): return repr(eval(what))
"""


def test_missing_modules_fail_when_they_are_used_and_not_before(guest: Guest) -> None:
    assert run(guest, MISSING, "HAS, y, isinstance(3, ab.ndarray), Sub.__name__, fast.__name__") == repr(
        (False, None, False, "Sub", "fast")
    )
    uses = ("ab.zeros(1)", "Sub()", "fast(1)", "made(2)", "KEPT + 1", "1 + KEPT", "len(KEPT)", "bool(KEPT)", "Thing()")
    for use in (
        *uses,
        "[*KEPT]",
        "KEPT < 2",
        "f'{KEPT:d}'",
        "3 in KEPT",
        "absent_too.inner.x()",
        "__import__('pickle').dumps(ab)",
    ):
        failure = guest.call(use)
        assert isinstance(failure, Failure), use
        assert failure.line.startswith("ImportError: absent"), failure.line
        assert " is not in the sandbox: " in failure.line
        assert "packages=['absent" in failure.line


def test_an_import_within_a_function_says_that_the_sandbox_lacks_it(guest: Guest) -> None:
    failure = run(guest, "def f():\n    import absent.inner")
    assert failure.line == (
        "ModuleNotFoundError: No module named 'absent': absent.inner needs absent, which is not there;"
        " a pure-Python package is sent with packages=['absent']"
    )


def test_an_import_that_fails_in_what_was_sent_is_no_placeholder(guest: Guest) -> None:
    failure = guest.load("sent:f", zipped({"sent.py": "import other.gone\ndef f(): pass", "other/__init__.py": ""}))
    assert failure is not None
    assert failure.line == "ModuleNotFoundError: No module named 'other.gone'"


def test_a_coroutine_function_is_run(guest: Guest) -> None:
    source = """
import asyncio
async def f(n):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.001 * i, i)) for i in range(n)]
    return [task.result() for task in tasks]
"""
    assert run(guest, source, 3) == [0, 1, 2]


def test_the_loop_of_the_sandbox_needs_no_sockets() -> None:
    async def work() -> Any:
        first = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, first.set_result, 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        return await first, await asyncio.to_thread(lambda: 7)

    with asyncio.Runner(loop_factory=loop.SandboxLoop) as runner:
        assert runner.run(work()) == (5, 7)


def test_a_loop_in_which_nothing_can_happen_says_so() -> None:
    made = loop.SandboxLoop()
    task = made.create_task(asyncio.Event().wait())
    try:
        with pytest.raises(RuntimeError, match="all tasks wait for something that cannot happen"):
            made.run_until_complete(task)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            made.run_until_complete(task)
        made.close()


JOBS = """
import asyncio
import ww.python.guest.shim as ww
@ww.job(memory=5, timeout_s=3)
def square(a): return a * a
@ww.job
def secret(a): return a
def f(a): return eval(a)
async def both():
    return await asyncio.gather(square.remote_async(2), square.remote_async(3))
async def g(): return await both()
"""


def granted(guest: Guest, *answers: list[Answer]) -> None:
    guest.host.answers = [write_answers(each) for each in answers]
    assert guest.load("sent:f", zipped({"sent.py": JOBS}), "sent:square") is None


def value(text: str) -> Answer:
    return Answer(AnswerKind.VALUE, text.encode())


def test_jobs_can_be_called_in_place(guest: Guest) -> None:
    granted(guest)
    assert guest.call("square(3), square.local(4), square.local_async(5).result(), square.__name__") == (
        9,
        16,
        25,
        "square",
    )
    assert guest.host.started == []


def test_a_granted_job_is_called_elsewhere(guest: Guest) -> None:
    granted(guest, [value("9")], [value("16")], [value("1"), value("4")])
    assert guest.call("square.remote(3)") == 9
    assert guest.call("square.remote_async(a=4).result()") == 16
    assert guest.call("square.remote_fanout([1, 2])") == [1, 4]
    assert [name for name, _ in guest.host.started] == ["sent:square"] * 3
    asked = [read_calls(request).calls for _, requests in guest.host.started for request in requests]
    assert asked == [[((3,), {})], [((), {"a": 4})], [((1,), {})], [((2,), {})]]


def test_many_calls_are_divided_among_tickets(guest: Guest) -> None:
    granted(guest, [value("1")] * 10_000, [value("2")] * 5)
    assert guest.call("sum(square.remote_fanout(range(10_005)))") == 10_010
    assert [len(requests) for _, requests in guest.host.started] == [10_000, 5]


def test_a_job_that_is_not_granted_is_not_called(guest: Guest) -> None:
    granted(guest)
    for call in ("secret.remote(1)", "secret.remote_async(1)", "secret.remote_fanout([1])"):
        assert guest.call(call).line == (
            "ww.errors.NotGranted: secret is not granted to this job; expected grants=[secret] where it is defined"
        )
    assert guest.host.started == []


def test_nested_calls_end_as_calls_of_a_client_do(guest: Guest) -> None:
    raised = Answer(AnswerKind.RAISED, dumps_failure(KeyError("x"), "Traceback of it\n").encode())
    granted(
        guest,
        [raised],
        [ended("deadline")],
        [ended("memory", "more")],
        [ended("lost")],
        [value("{")],
        [ended("cancelled")],
    )
    first = guest.call("square.remote(1)")
    assert first.line == "KeyError: 'x'"
    assert "Traceback of it" in first.traceback
    names = [guest.call("square.remote(1)").type_name for _ in range(5)]
    assert names == ["DeadlineExceeded", "OutOfMemory", "RunLost", "BadResult", "CancelledError"]


def test_nested_futures_can_be_awaited_and_begin_before_any_is_waited_for(guest: Guest) -> None:
    guest.host.answers = [write_answers([value("4")]), write_answers([value("9")])]
    assert guest.load("sent:g", zipped({"sent.py": JOBS}), "sent:square") is None
    before = asyncio.get_event_loop_policy()
    try:
        loop.install()
        assert guest.call() == [4, 9]
    finally:
        asyncio.set_event_loop_policy(before)
    assert len(guest.host.started) == 2


def test_arguments_that_cannot_travel_are_refused_before_any_call(guest: Guest) -> None:
    granted(guest)
    assert "NotSendable: cannot send the arguments of square" in guest.call("square.remote(lambda: 1)").line
    assert guest.host.started == []


def test_the_rest_of_ww_refuses(guest: Guest) -> None:
    from ww.python.guest import shim

    for name in ("Executor", "connect", "progress"):
        with pytest.raises(Exception, match=rf"ww\.{name} is not there in a sandbox; expected"):
            getattr(shim, name)()
    assert issubclass(shim.RunFailed, Exception)
    with pytest.raises(AttributeError, match="ww has no nonsense"):
        _ = shim.nonsense


def test_spaces_and_functions_without_a_name_are_put_together(guest: Guest) -> None:
    key, inner, partial = "__main__:outer.<locals>.inner", "__main__:fact", "functools:partial"
    files = {
        ".ww/0.py": "def outer(x):\n    return x * limit + root(4)\n",
        ".ww/1.pickle": pickle.dumps(10),
        ".ww/2.py": "def inner(x, y=0):\n    raise ValueError(n, x, y)\n",
        ".ww/3.pickle": pickle.dumps(7),
        ".ww/4.pickle": pickle.dumps(((5,), None)),
        ".ww/5.py": "def fact(n): return n * fact(n - 1) if n else 1\n",
        ".ww/6.pickle": pickle.dumps(__import__("functools").partial(divmod, 7)),
    }
    main = [
        {"import": "np", "module": "absent"}, {"import": "", "module": "json"},
        {"from": "root", "module": "math", "qualname": "sqrt"},
        {"value": "limit", "pickle": ".ww/1.pickle"},
        {"source": ".ww/0.py", "file": "count.py", "line": 12},
        {"function": "fact", "key": inner}, {"job": "facts", "key": inner, "options": {}},
    ]  # fmt: skip
    functions = {
        key: {"space": "__main__", "source": ".ww/2.py", "file": "count.py", "line": 30, "name": "inner", "self": [],
              "qualname": "outer.<locals>.inner", "cells": {}, "defaults": ".ww/4.pickle"},
        inner: {"space": "__main__", "source": ".ww/5.py", "file": "count.py", "line": 40, "name": "fact", "self": [],
                "qualname": "fact", "cells": {}, "defaults": ""},
        partial: {"pickle": ".ww/6.pickle"},
    }  # fmt: skip
    code = zipped(files, spaces={"__main__": main}, functions=functions)
    assert guest.load("__main__:outer", code) is None
    assert guest.call(2) == 22.0
    assert guest.load(key, code) is None
    failure = guest.call(1)
    assert "NameError" in failure.line  # n is no cell here, nor a global
    assert 'File "count.py", line 31, in inner\n    raise ValueError(n, x, y)' in failure.traceback
    assert guest.load(inner, code) is None
    assert guest.call(5) == 120
    assert guest.load(partial, code) is None
    assert guest.call(2) == (3, 1)


def test_closures_have_their_cells_and_themselves(guest: Guest) -> None:
    key = "sent:outer.<locals>.inner"
    text = "def outer(n, inner):\n    def inner(x): return inner(x - 1) + n if x else 0\n    return inner\n"
    said = {
        "module": "sent", "source": ".ww/0.py", "file": "sent.py", "line": 1, "name": "inner",
        "qualname": "outer.<locals>.inner", "cells": {"n": ".ww/1.pickle"}, "self": ["inner"], "defaults": "",
    }  # fmt: skip
    files = {"sent.py": "", ".ww/0.py": text, ".ww/1.pickle": pickle.dumps(3)}
    assert guest.load(key, zipped(files, functions={key: said})) is None
    assert guest.call(4) == 12


def test_a_step_that_is_none_is_refused(guest: Guest) -> None:
    failure = guest.load("__main__:f", zipped({}, spaces={"__main__": [{"nonsense": 1}]}))
    assert failure is not None
    assert failure.line == "ValueError: the code has a step that is none"
    assert json.dumps(failure.text)
