"""What the gateway learns of a module from its bytes, and that hostile bytes get nothing but one clear error."""

import contextlib

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guests import function, guest, wat
from ww.errors import BadModule
from ww.wasm_inspect import FunctionType, Guest, Kind, guest_of, inspect

HEADER = b"\0asm\1\0\0\0"
WASI_EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))'


MEMORY = '(memory (export "memory") 1)'
START = f'{MEMORY} (func (export "_start"))'
PROCESS = '(func (export "ProcessStdio") (param i32))'


def read(module: bytes, wanted: str | None = None) -> Guest:
    return guest_of(inspect(module), wanted)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("hash", Kind.FUNCTION), ("spin", Kind.FUNCTION), ("noop", Kind.FUNCTION), ("echo", Kind.COMMAND)],
)
def test_the_guests_are_what_they_are(name: str, kind: Kind) -> None:
    found = read(guest(name))
    assert (found.kind, found.entry) == (kind, "run" if kind is Kind.FUNCTION else "")


def test_imports_and_exports_are_read_with_their_signatures() -> None:
    info = inspect(
        wat(f'{WASI_EXIT} (memory (export "m") 1) (func (export "f") (param i32 i64) (result f32) (f32.const 1))')
    )
    assert [(i.module, i.name, i.kind) for i in info.imports] == [("wasi_snapshot_preview1", "proc_exit", "function")]
    assert info.imports[0].signature == FunctionType(("i32",), ())
    assert info.exports["f"].signature == FunctionType(("i32", "i64"), ("f32",))
    assert (info.exports["m"].kind, info.exports["m"].signature) == ("memory", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (START, Guest(Kind.COMMAND)),
        (START + PROCESS, Guest(Kind.REACTOR)),
        (START + '(global (export "ProcessStdio") i32 (i32.const 1))', Guest(Kind.COMMAND)),
        (START + '(global (export "run") i32 (i32.const 1))', Guest(Kind.COMMAND)),
        ('(func (export "run") (param i32 f64))', Guest(Kind.FUNCTION, "run", ("i32", "f64"))),
        (
            START + PROCESS + '(func (export "run") (param i32 i64) (result f32) (f32.const 1))',
            Guest(Kind.FUNCTION, "run", ("i32", "i64"), "f32"),
        ),
    ],
)
def test_a_module_is_of_one_kind_by_what_it_exports(text: str, expected: Guest) -> None:
    assert read(wat(text)) == expected


def test_any_function_of_numbers_may_be_wanted_instead() -> None:
    module = wat(
        f"""{START} {PROCESS}
        (func (export "fib") (param i64) (result i64) (i64.const 1))
        (func (export "all") (param i32 i64 f32 f64 i32) (result f64) (f64.const 1))
        (func (export "none"))
        (func (export "two") (result i32 i32) (i32.const 1) (i32.const 2))
        (func (export "vector") (param v128))
        (func (export "reference") (param externref))"""
    )
    assert read(module) == Guest(Kind.REACTOR)
    assert read(module, "fib") == Guest(Kind.FUNCTION, "fib", ("i64",), "i64")
    assert read(module, "all") == Guest(Kind.FUNCTION, "all", ("i32", "i64", "f32", "f64", "i32"), "f64")
    assert read(module, "none") == Guest(Kind.FUNCTION, "none")
    assert read(module, "ProcessStdio") == Guest(Kind.FUNCTION, "ProcessStdio", ("i32",))
    for name, signature in (("two", "() -> (i32, i32)"), ("vector", "(v128) -> ()"), ("reference", "(externref)")):
        with pytest.raises(BadModule, match="of i32, i64, f32 or f64") as error:
            read(module, name)
        assert signature in str(error.value)
    for name in ("nope", "memory"):
        with pytest.raises(BadModule, match=f"exports no function '{name}'"):
            read(module, name)


def test_every_function_of_wasi_is_known_as_wasmtime_knows_it() -> None:
    from ww.wasm_inspect import _WASI

    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    assert len(_WASI) == 46
    for name, letters in _WASI.items():
        parameters = " ".join("i32" if letter == "i" else "i64" for letter in letters)
        result = "" if name == "proc_exit" else "(result i32)"
        module = wat(f'(import "wasi_snapshot_preview1" "{name}" (func (param {parameters}) {result})) {START}')
        assert read(module) == Guest(Kind.COMMAND)
        linker.instantiate_pre(wasmtime.Module(engine, module))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (b"", "not WebAssembly"),
        (b"hello, this is text", "not WebAssembly"),
        (b"\0as", "not WebAssembly"),
        (b"\0asm", "cut off"),
        (b"\0asm\2\0\0\0", "version 1"),
        (b"\0asm\x0d\0\1\0", "is a component"),
        (HEADER, "exports no function 'run' and no _start"),
        (HEADER + b"\x0f\0", "unknown kind 15"),
        (HEADER + b"\1\x05\0", "says 5 bytes, 1 are left"),
        (HEADER + b"\1\xff\xff\xff\xff\xff\1", "too long"),
        (HEADER + b"\1\xff\xff\xff\xff\x7f", "too large"),
        (HEADER + b"\1\1\0\1\1\0", "twice or in the wrong place"),
        (HEADER + b"\3\1\0\1\1\0", "twice or in the wrong place"),
        (HEADER + b"\1\2\0\0", "more than its entries"),
        (HEADER + b"\1\5\xff\xff\xff\xff\x0f", "more than fit"),
        (HEADER + b"\1\2\1\x40", "not a function's"),
        (HEADER + b"\1\5\1\x60\1\x10\0", "unknown value type 0x10"),
        (HEADER + b"\3\2\1\0", "names type 0, there are 0"),
        (HEADER + b"\1\4\1\x60\0\0\3\2\1\0", "1 functions, but the code of 0"),
        (HEADER + b"\7\5\1\1\xff\0\0", "not UTF-8"),
        (HEADER + b"\7\5\1\1a\0\0", "names function 0, there are 0"),
        (HEADER + b"\x0c\1\1", "1 data segments announced, 0 there"),
        (wat('(func (export "run"))'), "has the signature () -> ()"),
        (wat('(func (export "run"))'), "expected two parameters (input, difficulty) and one result or none; entry=run"),
        (wat('(func (export "run") (param f64) (result i32) (i32.const 1))'), "(f64) -> (i32)"),
        (wat('(func (export "run") (param v128 i32))'), "(v128, i32) -> ()"),
        (wat('(global (export "run") i32 (i32.const 1))'), "exports no function 'run'"),
        (wat('(func (export "_start"))'), "exports _start but no memory"),
        (wat('(func (export "_start")) (global (export "memory") i32 (i32.const 1))'), "exports _start but no memory"),
        (wat(START + '(func (export "ProcessStdio"))'), "ProcessStdio has the signature () -> (); a reactor's takes"),
        (wat(PROCESS), "exports no function 'run' and no _start"),
        (wat('(func (export "_start") (param i32))'), "_start has the signature (i32) -> ()"),
        (wat('(import "env" "f" (func)) (func (export "_start"))'), "unknown function 'env'.'f'"),
        (wat('(import "env" "m" (memory 1)) (func (export "_start"))'), "unknown memory 'env'.'m'"),
        (wat('(import "wasi_snapshot_preview1" "fd_fly" (func)) (func (export "_start"))'), "'fd_fly'"),
        (wat('(import "wasi_snapshot_preview1" "fd_close" (func)) (func (export "_start"))'), "fd_close as () -> ()"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_with_the_reason(module: bytes, reason: str) -> None:
    with pytest.raises(BadModule) as error:
        read(module)
    assert reason in str(error.value)
    assert str(error.value).startswith("wasm: ")
    assert len(str(error.value)) <= 400
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (wat('(memory i64 1)'), "the memory section: holds a 64-bit memory of WebAssembly's memory64 proposal, which"),
        (wat('(table i64 1 funcref) (func (export "_start"))'), "holds a 64-bit table of WebAssembly's memory64"),
        (wat('(memory 1 2 shared) (func (export "_start"))'), "holds a shared memory of WebAssembly's threads"),
        (wat('(import "env" "memory" (memory 1 2 shared))'), "the import section: holds a shared memory"),
        (wat('(memory 1) (memory 1)'), "holds a second memory of WebAssembly's multi-memory"),
        (wat('(import "env" "memory" (memory 1)) (memory 1)'), "holds a second memory"),
        (wat('(memory 1 (pagesize 1))'), "holds a memory of WebAssembly's custom-page-sizes"),
        (wat('(tag (param i32))'), "the tag section: holds tags of WebAssembly's exceptions"),
        (wat('(import "env" "t" (tag (param i32)))'), "the import section: holds a tag of WebAssembly's exceptions"),
        (wat('(type (struct (field i32)))'), "the type section: holds a type of WebAssembly's garbage collection"),
        (wat('(rec (type (struct)) (type (func)))'), "holds a type of WebAssembly's garbage collection"),
        (wat('(func (param anyref))'), "holds a type of WebAssembly's garbage collection"),
        (wat('(func (param exnref))'), "holds a type of WebAssembly's exceptions"),
        (wat('(table 1 anyref)'), "the table section: holds a type of WebAssembly's garbage collection"),
        (HEADER + b"\4\4\1\x7f\0\1", "holds a table of something else than references"),
        (HEADER + b"\5\3\1\x10\1", "holds limits of an unknown form"),
        (HEADER + b"\7\5\1\1m\2\0", "the export section names memory 0, there are 0"),
    ],
)  # fmt: skip
def test_what_no_worker_runs_is_refused_in_its_own_name(module: bytes, reason: str) -> None:
    with pytest.raises(BadModule) as error:
        read(module)
    assert reason in str(error.value)
    assert str(error.value).startswith("wasm: ")


def test_a_hostile_name_is_shown_escaped_and_short() -> None:
    name = "\\0a" * 200
    with pytest.raises(BadModule) as error:
        read(wat(f'(import "{name}" "f" (func)) (func (export "_start"))'))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_module_cut_off_anywhere_is_refused() -> None:
    module = guest("hash")
    for length in range(len(module)):
        with pytest.raises(BadModule):
            read(module[:length])


@given(st.binary(max_size=200))
def test_no_bytes_get_another_error_out_of_it(data: bytes) -> None:
    for module in (data, HEADER + data):
        with contextlib.suppress(BadModule):
            read(module)


@settings(max_examples=300)
@given(st.data())
def test_no_change_to_a_module_gets_another_error_out_of_it(data: st.DataObject) -> None:
    module = bytearray(data.draw(st.sampled_from([guest("hash"), guest("echo"), function("(i32.const 1)")])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(module) - 1, 600)))
        module[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadModule):
        read(bytes(module))


def test_many_imports_and_exports_take_time_in_proportion() -> None:
    count = 50_000
    exports = b"".join(b"\x05%05d\0\0" % i for i in range(count))
    exports = _leb(count) + exports
    module = HEADER + b"\1\4\1\x60\0\0" + b"\3\2\1\0" + b"\7" + _leb(len(exports)) + exports + b"\x0a\4\1\2\0\x0b"
    assert len(inspect(module).exports) == count


def _leb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)
