"""Hostile modules that are too large, too many or too odd to be kept as files: `generate.py OUT` writes OUT/NAME.wasm.

Holds an encoder of the WebAssembly binary format, as small as it can be, and a function for each module. The same call
gives the same bytes. Source: WebAssembly 2.0, 5 Binary Format.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START, _ELEMENT, _CODE, _DATA, _DATA_COUNT, _TAG = range(
    1, 14
)
_I32, _I64, _FUNCREF = b"\x7f", b"\x7e", b"\x70"
_WASI = "wasi_snapshot_preview1"
_ONE_MEMORY = b"\x00\x01"
_NOTHING = b"\x60\x00\x00"
_ENTRY = b"\x60\x02\x7f\x7f\x01\x7f"
_END = b"\x0b"


def number(value: int) -> bytes:
    """Encode an unsigned LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def signed(value: int) -> bytes:
    """Encode a signed LEB128."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value & 0x7F))


def name(text: str) -> bytes:
    return number(len(text.encode())) + text.encode()


def vector(items: Iterable[bytes]) -> bytes:
    listed = list(items)
    return number(len(listed)) + b"".join(listed)


def section(kind: int, contents: bytes) -> bytes:
    return bytes([kind]) + number(len(contents)) + contents


def module(sections: dict[int, Iterable[bytes]], custom: bytes = b"") -> bytes:
    """Put sections of a vector each, by number, in the order that they must have."""
    order = sorted(sections, key=lambda kind: {_DATA_COUNT: 9.5, _TAG: 5.5}.get(kind, kind))
    return b"\0asm\1\0\0\0" + b"".join(section(kind, vector(sections[kind])) for kind in order) + custom


def body(code: bytes, locals: bytes = b"\x00") -> bytes:
    contents = locals + code + _END
    return number(len(contents)) + contents


def run(code: bytes, locals: bytes = b"\x00", **more: Iterable[bytes]) -> bytes:
    """Make a module of one function, run(input, difficulty), beside a memory."""
    sections = {_TYPE: [_ENTRY], _FUNCTION: [b"\x00"], _MEMORY: [_ONE_MEMORY], _CODE: [body(code, locals)]}
    sections[_EXPORT] = [name("run") + b"\x00\x00", name("memory") + b"\x02\x00"]
    return module(sections | {int(kind[1:]): items for kind, items in more.items()})


def local_get(index: int) -> bytes:
    return b"\x20" + number(index)


def constant(value: int) -> bytes:
    return b"\x41" + signed(value)


# What is large.


def one_function() -> bytes:
    """A single function of a megabyte: the compiler works on functions one by one, and cannot be interrupted."""
    step = local_get(0) + constant(77) + b"\x6c" + local_get(1) + b"\x6a\x22\x00\x21\x01"  # 1 = 0 = 0 * 77 + 1
    return run(step * 90_000 + local_get(0))


def values_alive() -> bytes:
    """A function in which ten thousand values are alive at once: more work for registers than its size tells."""
    load = constant(0) + b"\x28\x02\x00"
    return run(load * 10_000 + b"\x6a" * 9_999)


def blocks() -> bytes:
    """Forty thousand blocks, each in the one before."""
    return run(b"\x02\x40" * 40_000 + local_get(0) + b"\x0d\x00" + _END * 40_000 + local_get(0))


def nested_loops() -> bytes:
    """Four thousand loops, each in the one before: compiling takes time by the square of their number."""
    return run(b"\x03\x40" * 4_000 + _END * 4_000 + local_get(0))


def expressions() -> bytes:
    """An expression a hundred thousand deep."""
    return run(local_get(0) * 100_000 + b"\x6a" * 99_999)


def br_table() -> bytes:
    """A jump table of as many places as wasmtime takes, to one block after another."""
    places = b"".join(number(place % 100) for place in range(65_520))
    jump = b"\x02\x40" * 100 + local_get(0) + b"\x0e" + number(65_520) + places + b"\x00"
    return run(jump + _END * 100 + local_get(0))


def locals_() -> bytes:
    """As many locals as one function may have."""
    return run(local_get(49_000), locals=b"\x01" + number(49_998) + _I32)


def too_many_locals() -> bytes:
    """Four thousand million locals, in seven bytes."""
    return run(local_get(0), locals=b"\x01" + number(0xFFFFFFFF) + _I64)


def functions() -> bytes:
    """Thirty thousand functions, all but one empty."""
    count = 30_000
    sections = {
        _TYPE: [_ENTRY, _NOTHING],
        _FUNCTION: [b"\x00", *[b"\x01"] * count],
        _MEMORY: [_ONE_MEMORY],
        _EXPORT: [name("run") + b"\x00\x00", name("memory") + b"\x02\x00"],
        _CODE: [body(local_get(0)), *[body(b"")] * count],
    }
    return module(sections)


def types() -> bytes:
    """A hundred thousand types, one like the other."""
    return run(local_get(0), s1=[_ENTRY, *[_NOTHING] * 100_000])


def parameters() -> bytes:
    """A function of a thousand parameters and a thousand results."""
    kind = b"\x60" + vector([_I64] * 1000) + vector([_I64] * 1000)
    many = body(b"".join(local_get(index) for index in range(1000)))
    return run(local_get(0), s1=[_ENTRY, kind], s3=[b"\x00", b"\x01"], s10=[body(local_get(0)), many])


def globals_() -> bytes:
    """Fifty thousand globals, each exported."""
    exports = (name(f"g{index}") + b"\x03" + number(index) for index in range(50_000))
    return run(
        local_get(0), s6=[_I64 + b"\x01\x42\x07" + _END] * 50_000, s7=[name("run") + b"\x00\x00", *exports]
    )  # fmt: skip


def exports(count: int = 50_000) -> bytes:
    """One function under fifty thousand names."""
    return run(local_get(0), s7=[name(f"run{'' if index == 0 else index}") + b"\x00\x00" for index in range(count)])


def imports() -> bytes:
    """The same import twenty thousand times."""
    wanted = [name(_WASI) + name("sched_yield") + b"\x00\x01"] * 20_000
    return run(local_get(0), s1=[_ENTRY, b"\x60\x00\x01\x7f"], s2=wanted, s7=[name("run") + b"\x00" + number(20_000)])


def data_segments() -> bytes:
    """A hundred thousand data segments, each over the one before."""
    return run(local_get(0), s11=[b"\x00" + constant(0) + _END + b"\x01x"] * 100_000)


def data_far() -> bytes:
    """A thousand bytes, each in a page of its own: the image of this memory is 64 MB."""
    pages = 1000
    placed = (b"\x00" + constant(page << 16) + _END + b"\x01x" for page in range(pages))
    return run(local_get(0), s5=[b"\x00" + number(pages)], s11=placed)


def elements() -> bytes:
    """Element segments of two million functions in all, over one table of a thousand."""
    segment = b"\x00" + constant(0) + _END + vector([b"\x00"] * 1000)
    return run(local_get(0), s4=[_FUNCREF + b"\x00" + number(1000)], s9=[segment] * 2000)


def tables() -> bytes:
    """A hundred tables."""
    return run(local_get(0), s4=[_FUNCREF + b"\x00\x00"] * 100)


def table_at_start() -> bytes:
    """A table of nine million elements to start with."""
    return run(local_get(0), s4=[_FUNCREF + b"\x00" + number(9_000_000)])


def memories() -> bytes:
    """Two memories."""
    return run(local_get(0), s5=[_ONE_MEMORY] * 2)


def custom() -> bytes:
    """Fifty megabytes of a custom section around nothing."""
    return run(local_get(0)) + section(0, name("bomb") + bytes(50 << 20))


def debug_names() -> bytes:
    """A name section that names what is not there, again and again."""
    entries = vector([number(0xFFFFFFFF) + name("x" * 1000)] * 1000)
    return run(local_get(0)) + section(0, name("name") + section(1, entries))


# What is not as it should be.


def _import(kind: bytes, wanted: str, of: str = _WASI, types: Iterable[bytes] = (_NOTHING,)) -> bytes:
    exports = [name("_start") + b"\x00\x01"] if kind[:1] == b"\x00" else [name("_start") + b"\x00\x00"]
    return module({
        _TYPE: [_NOTHING, *types],
        _IMPORT: [name(of) + name(wanted) + kind],
        _FUNCTION: [b"\x00"],
        _EXPORT: exports,
        _CODE: [body(b"")],
    })  # fmt: skip


def import_unknown() -> bytes:
    """Imports what WASI does not have: to become two."""
    return _import(b"\x00\x00", "proc_fork")


def import_thread() -> bytes:
    """Imports the starting of threads."""
    return _import(b"\x00\x01", "thread-spawn", "wasi", [b"\x60\x01\x7f\x01\x7f"])


def import_sockets() -> bytes:
    """Imports what another host lets its guests do."""
    return _import(b"\x00\x01", "sock_open", types=[b"\x60\x03\x7f\x7f\x7f\x01\x7f"])


def import_of_another() -> bytes:
    """Imports from a module that nobody knows."""
    return _import(b"\x00\x00", "system", "env")


def import_signature() -> bytes:
    """Imports what there is, with a signature that it does not have."""
    return _import(b"\x00\x01", "fd_write", types=[b"\x60\x01\x7e\x01\x7e"])


def import_memory() -> bytes:
    """Imports a memory."""
    return _import(b"\x02\x00\x01", "memory", "env")


def import_table() -> bytes:
    """Imports a table."""
    return _import(b"\x01\x70\x00\x01", "table", "env")


def import_global() -> bytes:
    """Imports a global."""
    return _import(b"\x03\x7f\x01", "global", "env")


def import_odd_name() -> bytes:
    """Imports what has line breaks, escape sequences and a path in its name."""
    return _import(b"\x00\x00", "\x1b[31mred\r\nTraceback\0\u202e/etc/passwd", "\x07\n")


def import_long_name() -> bytes:
    """Imports what has a name of nine thousand letters."""
    return _import(b"\x00\x00", "n" * 9000, "m" * 9000)


def start_is_no_function() -> bytes:
    """Exports a memory as _start."""
    return module({_MEMORY: [_ONE_MEMORY], _EXPORT: [name("_start") + b"\x02\x00"]})


def start_returns() -> bytes:
    """Exports as _start what returns a number."""
    return module({
        _TYPE: [b"\x60\x00\x01\x7f"], _FUNCTION: [b"\x00"], _EXPORT: [name("_start") + b"\x00\x00"],
        _CODE: [body(constant(7))],
    })  # fmt: skip


def initialize_is_no_function() -> bytes:
    """Exports a memory as _initialize, beside run."""
    return run(local_get(0), s7=[name("run") + b"\x00\x00", name("_initialize") + b"\x02\x00"])


def initialize_takes_arguments() -> bytes:
    """Exports as _initialize what takes two numbers."""
    return run(local_get(0), s7=[name("run") + b"\x00\x00", name("_initialize") + b"\x00\x00"])


def run_is_no_function() -> bytes:
    """Exports a memory as run."""
    return run(local_get(0), s7=[name("run") + b"\x02\x00"])


def start_takes_arguments() -> bytes:
    """Exports as _start what takes two numbers."""
    return module({
        _TYPE: [_ENTRY], _FUNCTION: [b"\x00"], _EXPORT: [name("_start") + b"\x00\x00"], _CODE: [body(local_get(0))]
    })  # fmt: skip


def no_start() -> bytes:
    """Exports nothing at all."""
    return module({})


def memory_is_no_memory() -> bytes:
    """Exports a function as memory, where host calls look for one."""
    wanted = name(_WASI) + name("fd_write") + b"\x00\x01"
    write = constant(1) + constant(0) + constant(1) + constant(0) + b"\x10\x00"
    return module({
        _TYPE: [_ENTRY, b"\x60\x04\x7f\x7f\x7f\x7f\x01\x7f"],
        _IMPORT: [wanted],
        _FUNCTION: [b"\x00"],
        _EXPORT: [name("run") + b"\x00\x01", name("memory") + b"\x00\x01"],
        _CODE: [body(write)],
    })  # fmt: skip


def odd_exports() -> bytes:
    """Exports one function under names that are trouble for who prints them, beside run."""
    odd = ["", "\n", "\x1b[31m", "__proto__", "../../etc/passwd", "%s%n", "\u202e", "n" * 9000]
    return run(local_get(0), s7=[name(text) + b"\x00\x00" for text in ["run", *odd]])


def atomics() -> bytes:
    """Waits for another thread, of which there is none."""
    wait = constant(0) + constant(0) + b"\x42\x7f\xfe\x01\x02\x00"
    return run(wait, s5=[b"\x03\x01\x01"])


def memory64() -> bytes:
    """A memory of 64-bit addresses."""
    return run(local_get(0), s5=[b"\x04\x01"])


def exceptions() -> bytes:
    """Throws."""
    return run(b"\x08\x00", s13=[b"\x00\x00"], s1=[_ENTRY, _NOTHING])


def not_valid() -> bytes:
    """Adds a number to nothing."""
    return run(b"\x6a")


def cut_off() -> bytes:
    """Ends in the middle of a function."""
    return functions()[:-10]


MODULES: dict[str, Callable[[], bytes]] = {
    make.__name__.rstrip("_"): make
    for make in (
        one_function, values_alive, blocks, nested_loops, expressions, br_table, locals_, too_many_locals, functions,
        types, parameters, globals_, exports, imports, data_segments, data_far, elements, tables, table_at_start,
        memories, custom, debug_names, import_unknown, import_thread, import_sockets, import_of_another,
        import_signature, import_memory, import_table, import_global, import_odd_name, import_long_name,
        start_is_no_function, start_takes_arguments, start_returns, initialize_is_no_function,
        initialize_takes_arguments, run_is_no_function, no_start, memory_is_no_memory, odd_exports, atomics, memory64,
        exceptions, not_valid, cut_off,
    )
}  # fmt: skip
"""How to make each, by name."""


def main() -> None:
    """Write all of them."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for made, make in MODULES.items():
        (out / f"{made}.wasm").write_bytes(make())


if __name__ == "__main__":
    main()
