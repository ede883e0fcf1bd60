"""The loop that capabilities live on: nothing of it is let go of elsewhere."""

import asyncio
import gc
import threading

from ww.rpc.loop import run

BOUND_S = 10.0


class InACycle:
    """Says in which thread it is let go of."""

    def __init__(self, gone: "list[int]") -> None:
        self._gone = gone
        self.itself = self

    def __del__(self) -> None:
        self._gone.append(threading.get_ident())


def make_many() -> list[list[int]]:
    """Make what has the collector look."""
    return [[number] for number in range(100_000)]


def test_cycles_are_let_go_of_in_the_loop_s_thread_alone() -> None:
    gone: list[int] = []

    async def main() -> None:
        for _ in range(3):
            InACycle(gone)
            made = await asyncio.to_thread(make_many)
            assert not gc.isenabled()
            async with asyncio.timeout(BOUND_S):
                while not gone:  # noqa: ASYNC110 nobody tells
                    await asyncio.sleep(0.01)
            assert set(gone) == {threading.get_ident()}
            gone.clear()
            del made

    was_enabled = gc.isenabled()
    run(main)
    assert gc.isenabled() == was_enabled


def test_a_thread_of_another_program_leaves_its_collector_alone() -> None:
    async def main() -> bool:
        return gc.isenabled()

    assert gc.isenabled()
    assert run(main, is_program=False)
