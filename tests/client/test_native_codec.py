"""What a native client sends of a run, and how results look to it."""

import copy
import json
import pickle
from dataclasses import replace

import pytest

from ww.client.native_codec import ADD_BYTES_MAX, RunEncoder, cut, result_of, results_of
from ww.client.native_link import Target
from ww.errors import PeerError, UsageError
from ww.identity import Identity
from ww.records import Input, read_input, write_input
from ww.results import ResultRecord, write_result

RECORD = ResultRecord(
    run=3, position=9, state="failed", result=None, exit_code=3, stdout=b"\xff", stderr=b"", stdout_truncated=False,
    stderr_truncated=True, reason="exit", detail="", worker="12D3", attempts=2, queued_at=1.0, started_at=2.0,
    finished_at=3.5, wall_s=0.5, cpu_s=0.25, queue_s=0.0, compile_s=0.0, instantiate_s=0.0, memory_bytes=65536,
    memory_limit_bytes=0, fuel=None, files_bytes=0, has_artifacts=False, artifacts_bytes=0, name="n",
)  # fmt: skip


def test_encoders_say_which_run_is_wrong() -> None:
    encoder = RunEncoder({}, "command", ())
    encoder.record(b"")
    for run, name in (({"env": []}, "env"), ({"stdin": 1}, "stdin"), ({"args": "x"}, "args"), ({"seed": -1}, "seed")):
        encoder.count = 1
        with pytest.raises(UsageError) as caught:
            encoder.record(run)
        assert caught.value.field == f"tasks[1].{name}"
    with pytest.raises(UsageError, match=r"tasks\[\d+\]: expected bytes"):
        encoder.record(7)  # type: ignore[arg-type]


def test_plain_bytes_are_the_record_that_any_encoder_writes() -> None:
    encoder = RunEncoder({}, "command", ())
    assert encoder.record(b"abc") == write_input(Input(stdin=b"abc")) == encoder.record({"stdin": "abc"})


def test_numbers_are_left_to_the_gateway_where_it_knows_better() -> None:
    encoder = RunEncoder({"input": 1}, "function", ("i32", "f64"))
    assert read_input(encoder.record({"difficulty": 2})).args == ["1", "2"]
    named = RunEncoder({"entry": "f"}, "function", ("i64",))
    assert read_input(named.record({"args": ["7"]})).args == ["7"]


def test_long_records_are_cut_to_what_a_call_may_carry() -> None:
    data = bytes(2 * ADD_BYTES_MAX + 5)
    assert [len(piece) for piece in cut(data)] == [ADD_BYTES_MAX, ADD_BYTES_MAX, 5]


def test_a_result_is_one_of_http_s() -> None:
    result = result_of(RECORD, "a b")
    assert (result.run, result.exit_code, result.reason, result.position, result.name) == (3, 3, "exit", 9, "n")
    assert result.finished_at is not None
    assert result.finished_at.timestamp() == 3.5
    said = json.loads(json.dumps(result.json))
    assert (said["stdout"], said["stdout_base64"], said["wall_seconds"]) == ("", "/w==", 0.5)
    assert said["artifacts_url"] is None
    assert replace(result, run=4).run == 4
    assert copy.copy(result) == result == pickle.loads(pickle.dumps(result))


def test_what_is_no_result_is_no_gateway_s() -> None:
    with pytest.raises(PeerError, match="no gateway's"):
        results_of(write_result(RECORD)[:-1], "a")


@pytest.mark.parametrize("form", ["{0}", "/p2p/{0}", "/ip4/127.0.0.1/tcp/1/p2p/{0}"])
def test_targets(form: str) -> None:
    peer_id = Identity.generate().peer_id
    assert Target.parse(form.format(peer_id)).peer_id == peer_id
    dial = Target.parse(f"/p2p/{peer_id}/ticket/wwt1-ab-secret")
    assert (dial.peer_id, dial.ticket) == (peer_id, "wwt1-ab-secret")
    assert "secret" not in repr(dial)


@pytest.mark.parametrize(
    "text", ["", "somebody", "/ip4/127.0.0.1/tcp/1", "wwt1-ab-secret", "/p2p/x/ticket/wwt1-ab-secret", "\0"]
)
def test_what_is_no_target_is_said_without_secrets(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Target.parse(text)
    assert "secret" not in str(caught.value)
