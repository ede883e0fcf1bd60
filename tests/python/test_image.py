import struct

import pytest

from ww.errors import BadModule
from ww.python.guest.lasting import BEGIN, END, Lasting
from ww.python.image import make_lasting
from ww.wasm_binary import Reader

IMMORTAL = 5 << 28


def leb(number: int) -> bytes:
    done = bytearray()
    while number > 0x7F:
        done.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*done, number])


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def component(segments: dict[int, bytes]) -> bytes:
    """Return a component whose only core module puts these bytes at these addresses."""
    data = b"".join(b"\0\x41" + leb(at) + b"\x0b" + leb(len(content)) + content for at, content in segments.items())
    module = b"\0asm\1\0\0\0" + section(11, leb(len(segments)) + data)
    return b"\0asm\x0d\0\1\0" + section(1, module)


def listing(*addresses: int) -> bytes:
    return BEGIN + b"%d:" % len(addresses) + struct.pack(f"<{len(addresses)}I", *addresses) + END


def test_listed_objects_become_immortal_and_nothing_else_changes() -> None:
    words = struct.pack("<4I", 3, 0xAAAA, 7, 9)
    before = component({1000: words, 5000: BEGIN + b" is a constant" + listing(1000, 1008)})
    after = make_lasting(before)
    at = before.index(words)
    assert struct.unpack_from("<4I", after, at) == (IMMORTAL, 0xAAAA, IMMORTAL, 9)
    assert after[:at] + words + after[at + len(words) :] == before


@pytest.mark.parametrize("count", [0, IMMORTAL, 0x40000000, 0xFFFFFFFF])
def test_what_is_no_count_is_left(count: int) -> None:
    before = component({1000: struct.pack("<I", count), 5000: listing(1000)})
    assert make_lasting(before) == before


def test_what_is_in_no_data_is_left() -> None:
    before = component({1000: b"\1\0\0\0", 5000: listing(10, 998, 1002, 1004, 4000, 900_000)})
    assert make_lasting(before) == before


@pytest.mark.parametrize("text", [b"", BEGIN, BEGIN + b"2:" + bytes(4) + END, BEGIN + b"1:" + bytes(4)])
def test_a_component_without_a_whole_list_is_refused(text: bytes) -> None:
    with pytest.raises(BadModule, match="no list of the objects that stay"):
        make_lasting(component({1000: text}))


def test_all_that_can_be_reached_is_listed_but_frames() -> None:
    here = object()
    holder = [[here]]
    lasting = Lasting()
    assert any(each is here for each in lasting.objects)
    code = test_what_is_in_no_data_is_left.__code__
    assert any(each is code.co_consts for each in lasting.objects)
    assert len({id(each) for each in lasting.objects}) == len(lasting.objects)
    reader = Reader(lasting.addresses, len(BEGIN), len(lasting.addresses), "the list")
    assert reader.take(len(str(len(lasting.objects)))) == str(len(lasting.objects)).encode()
    del holder
