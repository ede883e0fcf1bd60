"""Hostile modules over HTTP with a real worker of one slot: whatever they are, the slot is there for the next."""

from pathlib import Path

import pytest

from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import wait_until
from tests.guests import guest
from tests.sandbox.hostile import module_of

BOUND_S = 5.0
ENDS = {
    "not_valid": "compile",
    "tables": "memory",
    "initialize_is_no_function": "compile",
    "initialize_takes_arguments": "compile",
    "odd_exports": None,
    "segment_outside": "trap",
    "start_loop": "deadline",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_hostile_module_gives_the_slot_back(tmp_path: Path, name: str) -> None:
    with clean_cluster_in(tmp_path) as cluster:
        gateway = cluster.gateway()
        worker = cluster.worker(gateway)
        gateway.post(module_of(name), id="hostile", duration="0.3")
        (result,) = gateway.ended("hostile")["results"]
        assert (result["reason"], result["attempts"]) == (ENDS[name], 1)
        wait_until(lambda: gateway.workers()[0]["free"] == 1, "the slot is free", BOUND_S)
        gateway.post(guest("noop"), id="next", input=3)
        assert gateway.ended("next", BOUND_S)["results"][0]["result"] == "3"
        assert "Traceback" not in gateway.log + worker.log
