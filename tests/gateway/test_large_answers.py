"""How much one answer may carry: while it is made, the gateway does nothing else."""

from pathlib import Path

import pytest

from tests.gateway.test_http import open_gateway

pytestmark = pytest.mark.anyio


async def test_one_answer_carries_a_few_mib_of_output_and_the_next_what_follows(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t", repeats=9)
        await gateway.end("t", *range(9), stdout=b"x" * (1 << 20))
        (task,) = await gateway.json("/tasks")
        assert [result["run"] for result in task["results"]] == [8, 7, 6, 5]
        runs, after = [], ""
        while page := await gateway.json(f"/tasks/t/runs?limit=1000{after}"):
            assert len(page) <= 4
            runs += [result["run"] for result in page]
            after = f"&after={runs[-1]}"
        assert runs == list(range(9))
