"""What the gateway learns of a component from its bytes, and that hostile bytes get nothing but one clear error."""

import contextlib
import mmap
import time
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import component as wasip2

from tests import components as guests
from ww.component_inspect import _INTERFACES, ComponentInfo, check_command, inspect_component, is_component
from ww.errors import BadModule

HEADER = b"\0asm\x0d\0\1\0"
RUN = {"wasi:cli/run@0.2.0": "instance"}
EVERYTHING = guests.command('(func (export "run") (result i32) (i32.const 0))', *guests.ALL)


def component(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(component {text})"))


def section(number: int, body: bytes) -> bytes:
    return HEADER + bytes([number, len(body)]) + body


@pytest.mark.parametrize(
    "data", [guests.NOOP, guests.ECHOES, guests.SAYS_ARGUMENTS, guests.MAKES_SOCKETS, guests.TWO_MEMORIES, EVERYTHING]
)
def test_commands_are_commands(data: bytes) -> None:
    info = inspect_component(data)
    check_command(info)
    assert info.exports == RUN


def test_imports_and_exports_are_read_with_their_kinds_as_wasmtime_reads_them() -> None:
    data = component("""
        (import "f" (func))
        (import "i" (instance $i (export "x" (func))))
        (import "m" (core module $m))
        (import "c" (component $c))
        (import "t" (type $t (sub resource)))
        (import "u" (type (eq $t)))
        (type $r (record (field "a" u8)))
        (export "my-r" (type $r))
        (export "my-i" (instance $i))
        (export "my-f" (func $i "x") (func))
        (export "my-m" (core module $m))
        (export "my-c" (component $c))
    """)
    info = inspect_component(data)
    assert info.imports == {
        "f": "function", "i": "instance", "m": "module", "c": "component", "t": "type", "u": "type",
    }  # fmt: skip
    assert info.exports == {
        "my-r": "type", "my-i": "instance", "my-f": "function", "my-m": "module", "my-c": "component",
    }  # fmt: skip
    engine = wasmtime.Engine()
    kind = wasip2.Component(engine, EVERYTHING).type
    assert list(inspect_component(EVERYTHING).imports) == list(kind.imports(engine))
    assert list(inspect_component(EVERYTHING).exports) == list(kind.exports(engine))


def test_what_is_inside_is_not_looked_at() -> None:
    inner = '(component (import "x" (func)) (export "y" (func 0)))'
    assert inspect_component(component(inner)) == ComponentInfo({}, {})


def test_the_interfaces_that_are_known_are_those_of_wasmtimes_linker() -> None:
    engine = wasmtime.Engine()
    linker = wasip2.Linker(engine)
    linker.add_wasip2()
    assert len(_INTERFACES) == 27
    imports = "".join(f'(import "{name}@0.2.0" (instance))' for name in sorted(_INTERFACES))
    data = component(imports)
    linker.instantiate(wasmtime.Store(engine), wasip2.Component(engine, data))
    check_command(ComponentInfo(inspect_component(data).imports, RUN))


@pytest.mark.parametrize(
    ("imports", "exports", "message"),
    [
        ({}, {}, "is no command: it exports nothing; expected wasi:cli/run@0.2"),
        ({}, {"add": "function", "b": "type"}, "it exports 'add', 'b'"),
        ({}, {"wasi:cli/run@0.3.0": "instance"}, "exports the instance 'wasi:cli/run@0.3.0'; known is version 0.2"),
        ({}, {"wasi:cli/run": "instance"}, "exports the instance 'wasi:cli/run'; known is version 0.2"),
        ({}, {"wasi:cli/run@0.2.0": "function"}, "exports the function 'wasi:cli/run@0.2.0'"),
        ({}, {"wasi:cli/run@0.2.0-rc-2023-11-10": "instance"}, "known is version 0.2"),
        ({"wasi:http/types@0.2.0": "instance"}, RUN, "imports the unknown instance 'wasi:http/types@0.2.0'"),
        ({"wasi:io/poll@0.3.0": "instance"}, RUN, "imports 'wasi:io/poll@0.3.0'; known is version 0.2"),
        ({"wasi:io/poll": "instance"}, RUN, "known is version 0.2"),
        ({"wasi:io/poll@0.2.1\n": "instance"}, RUN, r"'wasi:io/poll@0.2.1\\n'"),
        ({"wasi:io/poll@0.2.٣": "instance"}, RUN, "known is version 0.2"),
        ({"wasi:io/poll@0.2.0": "component"}, RUN, "imports the unknown component"),
        ({"host-log": "function"}, RUN, "imports the unknown function 'host-log'"),
        ({"x" * 999: "function"}, RUN, "'x{60}...'"),
    ],
)
def test_what_is_no_command_is_refused_with_the_reason(
    imports: dict[str, str], exports: dict[str, str], message: str
) -> None:
    with pytest.raises(BadModule, match=message) as caught:
        check_command(ComponentInfo(imports, exports))
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no component"),
        (b"\0asm\1\0\0\0", "is no component"),
        (b"\0asm\x0a\0\1\0", "is no component"),
        (HEADER + b"\x0a", "ends in the middle"),
        (HEADER + b"\x0d\0", "unknown kind 13"),
        (HEADER + b"\x01\x05abc", "says 5 bytes, 3 are left"),
        (section(10, b"\xff\xff\xff\xff\x0f"), "more than fit"),
        (section(10, b"\1\0\xff\xff\xff\xff\x0f"), "at most 1000"),
        (section(10, b"\1\0\1\xff\1\0"), "not UTF-8"),
        (section(10, b"\1\2\1a\1\0"), "unknown form"),
        (section(10, b"\1\0\1a\6\0"), "unknown kind"),
        (section(10, b"\1\0\1a\0\0"), "unknown kind"),
        (section(10, b"\1\0\1a\1\0\0"), "more than its entries"),
        (section(10, b"\2\0\1a\1\0\0\1a\1\0"), "'a' twice"),
        (section(11, b"\2\0\1a\1\0\0\0\1a\1\0\0"), "'a' twice"),
        (section(11, b"\1\0\1a\1\0\2"), "neither there nor left out"),
        (section(11, b"\1\0\1a\1\0\1\5\0"), "another kind"),
        (section(11, b"\1\0\1a\7\0\0"), "unknown kind"),
        (section(11, b"\1\0\1a\1\xff\xff\xff\xff\x7f\0"), "too large"),
        (section(11, b"\1\0\1a\1\x80\x80\x80\x80\x80\x80\0\0"), "too long"),
    ],
)
def test_damaged_components_are_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(BadModule, match=message):
        inspect_component(data)


@pytest.mark.parametrize("data", [guests.ECHOES, EVERYTHING])
def test_a_component_cut_off_anywhere_is_refused_or_is_no_command(data: bytes) -> None:
    for length in range(len(data)):
        try:
            check_command(inspect_component(data[:length]))
        except BadModule:
            continue
        assert data[length] == 0, "all that is missing is the names for debuggers"


def test_a_mapped_file_is_read_as_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "component.wasm"
    path.write_bytes(EVERYTHING)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert is_component(data)
        assert inspect_component(data) == inspect_component(EVERYTHING)


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    for candidate in (data, HEADER + data, section(10, data[:100]), section(11, data[:100])):
        with contextlib.suppress(BadModule):
            check_command(inspect_component(candidate))


@settings(max_examples=300)
@given(st.data())
def test_any_change_gets_an_answer(data: st.DataObject) -> None:
    whole = bytearray(EVERYTHING)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadModule):
        check_command(inspect_component(bytes(whole)))


def test_many_sections_and_names_take_little_time() -> None:
    empty = HEADER + b"\x0a\1\0" * 1_000_000
    names = b"".join(b"\0\4%04d\1\0" % i for i in range(9_999))
    full = HEADER + b"\x0a" + leb(len(names) + 2) + leb(9_999) + names
    for data in (empty, full, HEADER + b"\1" + leb(50_000_000) + bytes(50_000_000)):
        start = time.process_time()
        inspect_component(data)
        assert time.process_time() - start < 5


def leb(value: int) -> bytes:
    made = b""
    while True:
        made += bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
        value >>= 7
        if not value:
            return made
