"""What a submission of a Python function may say, of what its runs may have called too, and what is refused and why."""

import json
from typing import Any

import pytest

from ww.errors import UsageError
from ww.gateway.request import RequestLimits, read_fields
from ww.wasm_inspect import Guest, Kind

LIMITS = RequestLimits()


def spec(*fields: tuple[str, str], files: str = "f" * 64) -> Any:
    given = read_fields(fields, b"", True, LIMITS, files_size=100 if files else None)
    return given.spec("0" * 64, Guest(Kind.PYTHON), files)


def test_its_files_are_sources_and_no_file_system() -> None:
    read = spec(("args", "m:f"), ("env", "A=1"), ("fuel", "7"), ("retries", "2"), ("deterministic", "true"))
    assert (read.kind, read.args, read.files, read.files_bytes) == ("python", ("m:f",), "f" * 64, 0)
    assert not read.is_bulky, "its runs travel in groups"
    assert spec(("args", "pkg.m:f.<locals>.g")).args == ("pkg.m:f.<locals>.g",)
    assert spec(("args", "größe:zähle")).args == ("größe:zähle",)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([], "args: a Python component takes one, the function as module:qualname; 0 are given"),
        ([("args", "a:b"), ("args", "c:d")], "args: a Python component takes one.*; 2 are given"),
        ([("args", "f")], "args: a Python component takes one.*; 'f' is given"),
        ([("args", "1m:f")], "'1m:f' is given"),
        ([("args", "m:f()")], r"'m:f\(\)' is given"),
        ([("args", f"m:{'f' * 600}")], "is given"),
        ([("args", "m:f"), ("input", "1")], "input: a Python component is given what it works on in stdin"),
        ([("args", "m:f"), ("difficulty", "1")], "difficulty: a Python component is given what it works on in stdin"),
        ([("args", "m:f"), ("dirs", "a")], "dirs: a Python component has no file system; expected it without dirs"),
        ([("args", "m:f"), ("artifacts", "a")], "artifacts: a Python component has no file system"),
        ([("args", "m:f"), ("files_max", "5000")], "files_max: a Python component has no file system"),
    ],
)
def test_what_a_python_function_has_not_is_refused(fields: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        spec(*fields)


def test_without_sources_there_is_no_function() -> None:
    with pytest.raises(UsageError, match="files: missing; a Python component takes the zip"):
        spec(("args", "m:f"), files="")


def test_only_python_functions_call_others() -> None:
    given = read_fields([("grants", '[{"name": "m:f"}]')], b"", True, LIMITS)
    with pytest.raises(UsageError, match="grants: only Python components call others"):
        given.spec("0" * 64, Guest(Kind.COMMAND))


def test_a_grant_has_the_limits_and_defaults_of_a_task() -> None:
    text = json.dumps([{"name": "m:g", "duration": 2.5, "fuel": "9"}, {"name": "m:h", "grants": ["m:g", "m:g"]}])
    g, h = spec(("args", "m:f"), ("grants", text)).grants
    assert (g.name, g.duration_s, g.fuel, g.memory_bytes) == ("m:g", 2.5, 9, LIMITS.memory_default_bytes)
    assert (h.duration_s, h.fuel, h.retries, h.grants) == (LIMITS.duration_default_s, 0, 0, ("m:g",))


@pytest.mark.parametrize(
    ("grants", "says"),
    [
        ("nonsense", "grants: is no JSON that can be read"),
        ("{}", "grants: expected an array of objects"),
        ("[1]", "grants: expected an array of objects"),
        ("[{}]", r"grants\[0\].name: expected a function as module:qualname"),
        ('[{"name": "g"}]', r"grants\[0\].name: expected a function"),
        ('[{"name": "m:g"}, {"name": "m:g"}]', r"grants\[1\].name: 'm:g' is given more than once"),
        ('[{"name": "m:g", "duration": -1}]', r"grants\[0\].duration: '-1' is not a number of seconds"),
        ('[{"name": "m:g", "memory": true}]', r"grants\[0\].memory: expected a number"),
        ('[{"name": "m:g", "priority": 1}]', r"grants\[0\].priority: no such member; known are"),
        ('[{"name": "m:g", "grants": "m:g"}]', r"grants\[0\].grants: expected an array of names"),
        ('[{"name": "m:g", "grants": ["m:x"]}]', r"grants\[0\].grants: 'm:x' is none of those"),
        ('[{"name": "m:g", "indirect": 1}]', r"grants\[0\].indirect: expected true or false"),
        (json.dumps([{"name": f"m:g{n}"} for n in range(101)]), "grants: 101 are given, at most 100 are taken"),
    ],
)
def test_a_grant_that_says_nothing_sound_is_refused(grants: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        spec(("args", "m:f"), ("grants", grants))
