"""What the gateway learns of a module from its bytes, and that hostile bytes get nothing but one clear error."""

import contextlib

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guests import function, guest, wat
from ww.errors import BadModule
from ww.wasm_inspect import FunctionType, entry_of, inspect

HEADER = b"\0asm\1\0\0\0"
WASI_EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))'


def entry(module: bytes, wanted: str | None = None) -> str:
    return entry_of(inspect(module), wanted)


@pytest.mark.parametrize(("name", "expected"), [("hash", "run"), ("spin", "run"), ("noop", "run"), ("echo", "")])
def test_the_guests_are_what_they_are(name: str, expected: str) -> None:
    assert entry(guest(name)) == expected


def test_imports_and_exports_are_read_with_their_signatures() -> None:
    info = inspect(
        wat(f'{WASI_EXIT} (memory (export "m") 1) (func (export "f") (param i32 i64) (result f32) (f32.const 1))')
    )
    assert [(i.module, i.name, i.kind) for i in info.imports] == [("wasi_snapshot_preview1", "proc_exit", "function")]
    assert info.imports[0].signature == FunctionType(("i32",), ())
    assert info.exports["f"].signature == FunctionType(("i32", "i64"), ("f32",))
    assert (info.exports["m"].kind, info.exports["m"].signature) == ("memory", None)


def test_a_wanted_function_is_taken_instead_of_run() -> None:
    module = wat('(func (export "fib") (param i64 i64) (result i64) (i64.const 1)) (func (export "_start"))')
    assert entry(module, "fib") == "fib"
    assert entry(module) == ""
    with pytest.raises(BadModule, match="exports no function 'nope'"):
        entry(module, "nope")


def test_every_function_of_wasi_is_known_as_wasmtime_knows_it() -> None:
    from ww.wasm_inspect import _WASI

    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    assert len(_WASI) == 46
    for name, letters in _WASI.items():
        parameters = " ".join("i32" if letter == "i" else "i64" for letter in letters)
        result = "" if name == "proc_exit" else "(result i32)"
        module = wat(
            f'(import "wasi_snapshot_preview1" "{name}" (func (param {parameters}) {result})) (func (export "_start"))'
        )
        assert entry(module) == ""
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
        (HEADER + b"\1\2\1\x5f", "not a function's"),
        (HEADER + b"\1\5\1\x60\1\x10\0", "unknown value type 0x10"),
        (HEADER + b"\3\2\1\0", "names type 0, there are 0"),
        (HEADER + b"\1\4\1\x60\0\0\3\2\1\0", "1 functions, but the code of 0"),
        (HEADER + b"\7\5\1\1\xff\0\0", "not UTF-8"),
        (HEADER + b"\7\5\1\1a\0\0", "names function 0, there are 0"),
        (HEADER + b"\x0c\1\1", "1 data segments announced, 0 there"),
        (wat('(func (export "run"))'), "has the signature () -> ()"),
        (wat('(func (export "run") (param f64 i32) (result i32) (i32.const 1))'), "(f64, i32) -> (i32)"),
        (wat('(global (export "run") i32 (i32.const 1))'), "exports no function 'run'"),
        (wat('(func (export "_start") (param i32))'), "_start has the signature (i32) -> ()"),
        (wat('(import "env" "f" (func)) (func (export "_start"))'), "unknown function 'env'.'f'"),
        (wat('(import "env" "m" (memory 1)) (func (export "_start"))'), "unknown memory 'env'.'m'"),
        (wat('(import "wasi_snapshot_preview1" "fd_fly" (func)) (func (export "_start"))'), "'fd_fly'"),
        (wat('(import "wasi_snapshot_preview1" "fd_close" (func)) (func (export "_start"))'), "fd_close as () -> ()"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_with_the_reason(module: bytes, reason: str) -> None:
    with pytest.raises(BadModule) as error:
        entry(module)
    assert reason in str(error.value)
    assert str(error.value).startswith("wasm: ")
    assert "\n" not in str(error.value)


def test_a_hostile_name_is_shown_escaped_and_short() -> None:
    name = "\\0a" * 200
    with pytest.raises(BadModule) as error:
        entry(wat(f'(import "{name}" "f" (func)) (func (export "_start"))'))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_module_cut_off_anywhere_is_refused() -> None:
    module = guest("hash")
    for length in range(len(module)):
        with pytest.raises(BadModule):
            entry(module[:length])


@given(st.binary(max_size=200))
def test_no_bytes_get_another_error_out_of_it(data: bytes) -> None:
    for module in (data, HEADER + data):
        with contextlib.suppress(BadModule):
            entry(module)


@settings(max_examples=300)
@given(st.data())
def test_no_change_to_a_module_gets_another_error_out_of_it(data: st.DataObject) -> None:
    module = bytearray(data.draw(st.sampled_from([guest("hash"), guest("echo"), function("(i32.const 1)")])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(module) - 1, 600)))
        module[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadModule):
        entry(bytes(module))


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
