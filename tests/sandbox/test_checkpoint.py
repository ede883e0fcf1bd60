"""Memory that goes back to what it was, byte for byte, however it was changed."""

import ctypes
import mmap
import os
import random
from collections.abc import Iterator

import pytest

from ww.sandbox import linux
from ww.sandbox.checkpoint import Checkpoint, Pages, open_pagemap

PAGE = mmap.PAGESIZE
SIZE = 24 << 20


class Memory:
    """Private memory, as a guest's is: zeros, but for some pages of different kinds."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        chance = random.Random(1)
        for page in range(0, 600):
            self.map[page * PAGE : page * PAGE + 100] = chance.randbytes(100)
        self.map[5000 * PAGE] = 1  # alone, far from all others
        self.map[SIZE - 8 : SIZE] = b"the end."
        self.whole = bytes(self.map)


@pytest.fixture(params=["scan", "pagemap", "no pagemap"])
def pages(request: pytest.FixtureRequest) -> Iterator[Pages]:
    fd = -1 if request.param == "no pagemap" else open_pagemap()
    known = Pages(fd)
    if request.param == "scan" and not known.can_scan:
        pytest.skip("the kernel is older than 6.7")
    known.can_scan = request.param == "scan"
    yield known
    if fd >= 0:
        os.close(fd)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("writes", [0, 1, 30, 900, 4000])
def test_memory_is_what_it_was(pages: Pages, writes: int) -> None:
    memory, chance = Memory(), random.Random(writes)
    checkpoint = Checkpoint(memory.base, SIZE, pages)
    checkpoint.apply(memory.base)
    assert memory.map[:] == memory.whole
    for _ in range(4):
        for _ in range(writes):
            # At ends of pages too, and in pages that were nothing but zeros.
            at = chance.choice((0, PAGE - 1, chance.randrange(PAGE))) + PAGE * chance.randrange(SIZE // PAGE)
            memory.map[at] = 255
        checkpoint.go_back(memory.base)
        assert memory.map[:] == memory.whole
    checkpoint.close()


def test_a_state_can_be_had_in_another_memory_which_was_another_state(pages: Pages) -> None:
    first, second = Memory(), Memory()
    checkpoint = Checkpoint(first.base, SIZE, pages)
    second.map[7 * PAGE : 3000 * PAGE] = b"x" * (2993 * PAGE)
    other = Checkpoint(second.base, SIZE, pages)
    other.apply(second.base)
    checkpoint.apply(second.base)
    assert second.map[:] == first.whole
    other.apply(second.base)
    assert second.map[7 * PAGE : 3000 * PAGE] == b"x" * (2993 * PAGE)
    second.map[10 * PAGE] = 0
    other.go_back(second.base)
    assert second.map[10 * PAGE] == ord("x")


def test_what_is_copied_back_in_one_go_goes_where_the_memory_is_now(pages: Pages) -> None:
    first, second = Memory(), Memory()
    checkpoint = Checkpoint(first.base, SIZE, pages)

    def run_in(memory: Memory) -> None:
        memory.map[5 * PAGE] = 255
        checkpoint.go_back(memory.base)
        assert memory.map[:] == memory.whole

    checkpoint.apply(first.base)
    for _ in range(4):
        run_in(first)
    checkpoint.apply(second.base)
    first.map[5 * PAGE] = 7  # somebody else's now
    for _ in range(4):
        run_in(second)
    assert first.map[5 * PAGE] == 7
    checkpoint.close()


def test_zeros_take_no_memory_and_nothing_is_left_when_it_is_closed(pages: Pages) -> None:
    before, memory = descriptors(), Memory()
    checkpoint = Checkpoint(memory.base, SIZE, pages)
    assert checkpoint.file_bytes < SIZE // 4
    checkpoint.apply(memory.base)
    checkpoint.close()
    checkpoint.close()
    assert memory.map[:] == memory.whole, "what is mapped stays"
    assert descriptors() == before


def test_the_pagemap_does_not_say_where_pages_are() -> None:
    fd = open_pagemap()
    if fd < 0:
        pytest.skip("there is no pagemap")
    memory = Memory()
    entry = int.from_bytes(os.pread(fd, 8, memory.base // PAGE * 8), "little")
    os.close(fd)
    assert entry >> 63, "it is there"
    assert entry & (1 << 55) - 1 == 0, "and where is nobody's business"


def test_capabilities_are_there_again_after_the_pagemap_was_opened() -> None:
    before = linux.effective_capabilities()
    fd = open_pagemap()
    assert linux.effective_capabilities() == before
    if fd >= 0:
        os.close(fd)
