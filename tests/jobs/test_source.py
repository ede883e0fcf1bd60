"""What of a function travels, as the guest's own importer reads it: scripts, prompts, notebooks, closures, packages."""

import base64
import functools
import io
import json
import linecache
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import guest_process, pieces
from ww.errors import NotSendable
from ww.python.outcome import Ended, value_of
from ww.python.source import Code, collect


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_process.make(tmp_path_factory.mktemp("guest"))


def call(guest: Path, function: Any, *args: Any, **options: Any) -> Any:
    """Collect a function, and call it in the guest's Python."""
    code = collect([function], **options)
    request = code.write_call(args, {}, "it", trust=False)
    if code.missing:
        code = collect([function], extras=code.missing, **options)
        request = code.write_call(args, {}, "it", trust=False)
    return answered(guest, code, code.name_of(function), request)


def answered(guest: Path, code: Code, name: str, request: bytes) -> Any:
    answers = guest_process.answers(guest, name, code.content, [request])
    return value(answers[-1], code)


def value(answer: bytes, code: Code | None = None) -> Any:
    classes = code.find_class if code is not None else lambda module, name: None
    ended = Ended("ok" if answer[0] == 0 else "exit", "", answer[0], answer[1:])
    return value_of(ended, "it", classes, trust=False)


def names(code: Code) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(code.content)) as zipped:
        return zipped.namelist()


def about(code: Code) -> Any:
    with zipfile.ZipFile(io.BytesIO(code.content)) as zipped:
        return json.loads(zipped.read("ww.json"))


# Modules.


def test_a_local_module_travels_with_what_it_imports(
    guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "trip/__init__.py": "from . import near\n",
        "trip/near.py": "from .deep.er import seven\nimport numpy_that_is_not_there\n",
        "trip/deep/er.py": "import json\n\ndef seven():\n    return json.loads('7')\n",
        "trip/start.py": "from .near import seven\ndef go(n):\n    import trip_late\n    return trip_late.plus(n)\n",
        "trip_late.py": "from trip.near import seven\ndef plus(a):\n    return a + seven()\n",
        "trip/unused.py": "1 / 0\n",
        "trip/data.bin": "secret",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # It is there here, and nowhere else.
    monkeypatch.setitem(sys.modules, "numpy_that_is_not_there", type(sys)("numpy_that_is_not_there"))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        import trip.start  # type: ignore[import-not-found]

        code = collect([trip.start.go])
        assert [name for name in names(code) if name != "ww.json"] == [
            "trip/__init__.py", "trip/deep/er.py", "trip/near.py", "trip/start.py", "trip_late.py"
        ]  # fmt: skip
        assert call(guest, trip.start.go, 3) == 10
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("trip", "trip_late")]:
            del sys.modules[name]


def test_the_same_code_is_the_same_zip() -> None:
    assert collect([pieces.square]).content == collect([pieces.square]).content


def test_a_job_of_a_module_is_called_by_its_name(guest: Path) -> None:
    assert call(guest, pieces.square, 5) == 25
    assert call(guest, pieces.echo, pieces.Point(1)) == pieces.Point(1)


def test_functions_of_the_standard_library_need_nothing(guest: Path) -> None:
    assert names(collect([len])) == ["ww.json"]
    assert call(guest, len, [1, 2]) == 2
    assert call(guest, functools.partial(max, 3), 9) == 9
    assert call(guest, str.upper, "a") == "A"
    assert call(guest, "a-b".split, "-") == ["a", "b"]


def test_a_module_in_a_zip_travels(guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as zipped:
        zipped.writestr("zippedmod.py", "def half(n):\n    return n / 2\n")
    monkeypatch.syspath_prepend(tmp_path / "lib.zip")
    try:
        import zippedmod  # type: ignore[import-not-found]

        assert call(guest, zippedmod.half, 3) == 1.5
    finally:
        sys.modules.pop("zippedmod", None)


# Packages.


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def test_an_installed_package_travels_when_it_is_named(guest: Path, installed: Path) -> None:
    package = installed / "pureone"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import pkgutil\n\ndef double(n):\n    return 2 * n + int(pkgutil.get_data('pureone', 'more.txt'))\n"
    )
    (package / "more.txt").write_text("1")
    try:
        import pureone  # type: ignore[import-not-found]

        with pytest.raises(NotSendable, match=r"packages=\['pureone'\]"):
            collect([pureone.double])
        assert call(guest, pureone.double, 2, packages=["pureone"]) == 5

        assert "pureone/__init__.py" not in names(collect([pieces.closing_over(pureone)]))
        assert call(guest, pieces.closing_over(json)) == "json"
        assert call(guest, functools.partial(pureone.double, 3), packages=["pureone"]) == 7
    finally:
        sys.modules.pop("pureone", None)


def test_a_package_with_machine_code_is_refused_by_name(installed: Path) -> None:
    (installed / "mixed").mkdir()
    (installed / "mixed" / "__init__.py").write_text("")
    (installed / "mixed" / "_fast.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    with pytest.raises(NotSendable, match=r"mixed: it has a compiled part, _fast\.cpython"):
        collect([pieces.square], ["mixed"])
    with pytest.raises(NotSendable, match="no_such_package: nothing has that name"):
        collect([pieces.square], ["no_such_package"])


# Closures.


def test_closures_travel_with_their_values(guest: Path) -> None:
    assert call(guest, pieces.closure(3), 5) == 18
    assert call(guest, pieces.closure(4), 5) == 24
    assert call(guest, pieces.factorial(), 5) == 120
    both = functools.partial(map, pieces.factorial())
    assert "pickle" in json.dumps(about(collect([both])))


def test_lambdas_are_told_apart(guest: Path) -> None:
    first, second = pieces.lambdas()
    assert call(guest, first, 5) == 6
    assert call(guest, second, 5) == 10
    assert call(guest, pieces.NESTED, 5) == 4
    assert call(guest, pieces.DEFAULT, 5) == 105


def threading_lock() -> Any:
    import threading

    return threading.Lock()


def test_a_lambda_without_source_is_refused() -> None:
    with pytest.raises(NotSendable, match=r"cannot send the lambda: its source \(<nowhere>\) is not there"):
        collect([eval(compile("lambda: 1", "<nowhere>", "eval"), {})])


def test_what_a_closure_cannot_take_is_named(tmp_path: Path) -> None:
    with (tmp_path / "data.txt").open("w") as file:

        def uses() -> Any:
            return file

        with pytest.raises(NotSendable, match=r"cannot send file, which .*uses uses: an open file \(data.txt\)"):
            collect([uses])


# Scripts, prompts and notebooks.

SCRIPT = """
    from __future__ import annotations

    import math
    import sys
    import os.path as path
    from collections import namedtuple
    from dataclasses import dataclass
    from enum import Enum
    import ww

    LIMIT = [1]
    Pair = namedtuple("Pair", "a b")

    class Kind(Enum):
        ONE = 1

    @dataclass
    class Point:
        x: int
        def moved(self) -> Point:
            return Point(self.x + helper(self.x))

    def helper(n: int) -> int:
        return n + LIMIT[-1]

    @ww.job(timeout_s=LIMIT[0])
    def work(n: int) -> object:
        return [Point(n).moved(), Pair(path.join("a", "b"), math.floor(2.5)), Kind.ONE, __name__]

    def collected():
        from ww.python.source import collect
        code = collect([work])
        request = code.write_call((3,), {}, "work", trust=False)
        sys.stdout.buffer.write(len(request).to_bytes(4, "little") + request + code.content)

    LIMIT.append(5)
    # Nothing guards it: a sandbox does not execute it.
    collected()
"""


def run_script(words: list[str], **options: Any) -> tuple[bytes, bytes]:
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, timeout=50, check=False, cwd=Path(__file__).parents[2], **options
    )
    assert done.returncode == 0, done.stderr.decode()
    length = int.from_bytes(done.stdout[:4], "little")
    return done.stdout[4 : 4 + length], done.stdout[4 + length :]


@pytest.mark.parametrize("how", ["file", "command", "redirected", "module"])
def test_a_script_sends_what_its_job_uses(guest: Path, tmp_path: Path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    if how == "file":
        request, code = run_script([str(script)])
    elif how == "command":
        request, code = run_script(["-c", textwrap.dedent(SCRIPT)])
    elif how == "module":
        request, code = run_script(["-m", "script"], env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"})
    else:
        with script.open("rb") as file:
            request, code = run_script(["-"], stdin=file)
    answers = guest_process.answers(guest, "__main__:work", code, [request])
    assert [answer[0] for answer in answers] == [0, 0], answers[-1]
    assert b"__main__" in answers[-1]
    found = json.loads(answers[-1][1:])
    assert found[3] == "__main__"
    assert "11" in json.dumps(found[0])


WAYS = """
    import contextlib, enum, functools, sys
    from collections import namedtuple
    import ww
    __version__ = "1.2"
    PAGE = "\x0c"
    \x0c
    if True: Colour = enum.Enum("Colour", "RED")
    here = 1; Shade = enum.Enum("Shade", "DARK"); sys.argv.append("again")
    Counter = namedtuple("Counter", "a b")

    def plus(function):
        def plused(n): return function(n) + 1
        plused.__qualname__ = function.__qualname__
        return plused

    def added(n): return n
    added = plus(added)

    def cached(n): return n
    cached = functools.lru_cache(cached)

    @contextlib.contextmanager
    def closing(n): yield n + 1

    def plain(n): return n
    granted = ww.job(trust=True)(plain)

    def again(n): return n
    again = ww.job(timeout_s=5)(again)

    def work(n):
        from . import late
        import later
        with closing(n) as more:
            return [
                __version__, PAGE, Colour.RED.name, Shade.DARK.name, Counter(1, 2)._asdict(), added(n), cached(n),
                cached.cache_info().misses, late.N, later.N, more, repr(granted), granted._options, repr(again),
            ]
"""


def test_a_script_may_be_written_in_any_way(guest: Path, tmp_path: Path) -> None:
    (tmp_path / "ways").mkdir()
    (tmp_path / "ways" / "__init__.py").write_text("")
    (tmp_path / "ways" / "late.py").write_text("N = 3")
    (tmp_path / "later.py").write_text("N = 4")
    chain = "\n".join(f"def f{n}(a): return f{n + 1}(a)" for n in range(1000)) + "\ndef f1000(a): return a\n"
    main = """
        if __name__ == "__main__":
            import base64
            from ww.python.source import collect
            collect([deep])
            made = collect([work, granted, again])
            request = made.write_call((2,), {}, "it", trust=False)
            print(made.name_of(granted), made.name_of(again))
            print(base64.b64encode(request).decode(), base64.b64encode(made.content).decode())
    """
    text = "\n".join([textwrap.dedent(WAYS), chain, "def deep(): return f0", textwrap.dedent(main)])
    (tmp_path / "ways" / "script.py").write_text(text)
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-m", "ways.script"], capture_output=True, timeout=50, check=False, env={"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr.decode()
    named, sent = done.stdout.decode().splitlines()
    assert named == "__main__:plain __main__:again"
    request, code = map(base64.b64decode, sent.split())
    answer = guest_process.answers(guest, "__main__:work", code, [request])[-1]
    assert value(answer) == [
        "1.2", "\x0c", "RED", "DARK", {"a": 1, "b": 2}, 3, 2, 1, 3, 4, 3,
        # Each by the name that it is granted by.
        "<job __main__:plain>", {"trust": True}, "<job __main__:again>",
    ]  # fmt: skip


def test_a_program_that_came_through_a_pipe_is_refused_by_name() -> None:
    text = textwrap.dedent(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-"], input=text.encode(), capture_output=True, timeout=50, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("ww.errors.NotSendable: cannot send work: its source")


class Notebook:
    """Cells as IPython executes them: one namespace, an entry of linecache for each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.main = type(sys)("__main__")
        monkeypatch.setitem(sys.modules, "__main__", self.main)
        self._patch = monkeypatch
        self.count = 0

    def run(self, text: str) -> None:
        self.count += 1
        text = textwrap.dedent(text)
        file = f"<ipython-input-{self.count}-abc>"
        self._patch.setitem(linecache.cache, file, (len(text), None, text.splitlines(keepends=True), file))
        exec(compile(text, file, "exec"), vars(self.main))

    def __getitem__(self, name: str) -> Any:
        return vars(self.main)[name]


def test_a_notebook_sends_what_its_cells_define_now(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    notebook.run("def work(n):\n    return helper(n) + len(table), Thing(n)")
    notebook.run("""
        from dataclasses import dataclass
        table = {1: 2}
        @dataclass
        class Thing:
            n: int
        def helper(n): return n
    """)
    code = collect([notebook["work"]])
    assert call(guest, notebook["work"], 3) == (4, notebook["Thing"](3))
    assert code.is_current()
    notebook.run("def helper(n): return 100")
    assert not code.is_current()
    assert call(guest, notebook["work"], 3)[0] == 101
    code = collect([notebook["work"]])
    notebook.run("table[2] = 3")
    assert not code.is_current()
    assert call(guest, notebook["work"], 3)[0] == 102
    notebook.run("table = open('/dev/null')")
    with pytest.raises(NotSendable, match=r"cannot send table, which is used: an open file \(null\)"):
        collect([notebook["work"]])
    notebook["table"].close()


def test_arguments_bring_what_they_need(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    notebook.run("""
        class Number:
            def __init__(self, n): self.n = n
            def half(self): return self.n / factor
        factor = 4
        def work(number): return number.half()
        def apply(function, number): return function(number)
    """)
    assert call(guest, notebook["work"], notebook["Number"](10)) == 2.5
    assert call(guest, notebook["apply"], notebook["work"], notebook["Number"](10)) == 2.5
    assert call(guest, pieces.echo.__wrapped__, pieces.Point(3)) == pieces.Point(3)


# Arguments.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: threading_lock(), "argument 2 of it: a lock"),
        (lambda: [0, {"a": threading_lock()}], r"argument 2 of it: \[1\]\['a'\] of it is a lock"),
        (lambda: (n for n in ()), "argument 2 of it: a generator"),
        (lambda: lambda: 1, "argument 2 of it: a lambda"),
        (lambda: sys, "argument 2 of it: the module sys"),
        (lambda: pieces.Point(threading_lock()), "argument 2 of it: x of it is a lock"),
        (lambda: sys.stdout, "argument 2 of it: "),
        (lambda: memoryview(b""), "argument 2 of it: a memoryview"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(make: Callable[[], Any], message: str) -> None:
    code = collect([pieces.square])
    with pytest.raises(NotSendable, match=f"^cannot send {message}"):
        code.write_call((1, make()), {}, "it", trust=False)


def test_buffers_travel_out_of_band(guest: Path) -> None:
    import pickle

    data = pickle.PickleBuffer(bytearray(b"x" * 100_000))
    assert call(guest, len, data) == 100_000
