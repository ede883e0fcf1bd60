"""Which calls an operation takes, and which it does without."""

import hashlib
from typing import Any

import pytest

from tests.client.steps import REFUSED, Script, answer, problem
from ww.client.call import Answer, Call, Contact, Retry
from ww.client.operation import Operations, Pages
from ww.client.submission import TaskFields
from ww.errors import Conflict, NotAllowed, NotFound, PeerError, UsageError

SMALL = b"\0asm small"
LARGE = b"\0asm" + bytes(100_000)
DIGEST = f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
TASK = {"id": "t", "status": "queued"}
GONE = problem(404, "not_found")
HEAD = f"HEAD /modules/{DIGEST}"


def operations(script: Script) -> Operations:
    return Operations(Contact(Retry(chance=lambda: 1.0)), lambda: script.now)


def names(call: Call) -> list[str]:
    return [name for name, _ in call.parts]


def submit(wasm: bytes | str, *answers: Any, **fields: Any) -> Script:
    script = Script(*answers)
    given: TaskFields = {"id": "t", **fields}  # type: ignore[typeddict-item]
    assert script.run(operations(script).submit(wasm, given)).id == "t"
    return script


def test_a_small_module_is_sent_at_once() -> None:
    script = submit(SMALL, answer(201, TASK), input=3)
    assert script.asked == ["POST /tasks"]
    assert names(script.calls[0]) == ["id", "input", "wasm"]


def test_a_large_module_is_sent_when_it_is_not_there() -> None:
    script = submit(LARGE, GONE, answer(201, TASK))
    assert script.asked == [HEAD, "POST /tasks"]
    assert names(script.calls[1]) == ["id", "wasm"]


def test_a_large_module_that_is_there_is_not_sent() -> None:
    script = submit(LARGE, Answer(200, {}), answer(200, TASK))
    assert script.asked == [HEAD, "POST /tasks"]
    assert names(script.calls[1]) == ["id", "module"]


def test_a_module_that_was_removed_in_between_is_sent() -> None:
    script = submit(LARGE, Answer(200, {}), GONE, answer(201, TASK))
    assert script.asked == [HEAD, "POST /tasks", "POST /tasks"]
    assert names(script.calls[2]) == ["id", "wasm"]


@pytest.mark.parametrize("status", [403, 405])
def test_who_may_not_ask_sends_it(status: int) -> None:
    assert names(submit(LARGE, Answer(status, {}), answer(201, TASK)).calls[1]) == ["id", "wasm"]


def test_a_module_by_its_digest_is_never_asked_for() -> None:
    assert submit(DIGEST, answer(201, TASK)).asked == ["POST /tasks"]
    with pytest.raises(NotFound):
        submit(DIGEST, GONE)
    with pytest.raises(NotAllowed):
        submit(LARGE, Answer(401, {}))


def test_a_lost_answer_is_asked_for_with_the_same_form() -> None:
    script = submit(SMALL, REFUSED, answer(200, TASK))
    assert script.calls[0] == script.calls[1]
    script = Script(REFUSED, answer(200, TASK))
    script.run(operations(script).submit(SMALL, {}))
    assert script.calls[0].parts == script.calls[1].parts, "the id that was made too"


def test_a_conflict_is_not_tried_again() -> None:
    with pytest.raises(Conflict):
        submit(SMALL, problem(409, "conflict"))


def test_waiting_asks_until_the_end() -> None:
    script = Script(answer(200, TASK), REFUSED, answer(200, TASK | {"status": "succeeded"}))
    assert script.run(operations(script).wait("t", None)).has_ended
    assert [call.query for call in script.calls] == [{"wait": "30"}] * 3
    assert script.calls[0].extra_s == 30


def test_waiting_is_bounded() -> None:
    script = Script()

    def late(call: Call) -> Answer:
        script.now += float(call.query.get("wait", 0))
        return answer(200, TASK)

    script = Script(late, late, late)
    assert not script.run(operations(script).wait("t", 32.5)).has_ended
    assert [call.query for call in script.calls] == [{"wait": "30"}, {"wait": "2"}, {}]
    assert script.now == pytest.approx(32.5)
    script = Script(answer(200, TASK))
    script.run(operations(script).wait("t", 0))
    assert [call.query for call in script.calls] == [{}]


@pytest.mark.parametrize(("limit", "sizes"), [(None, [100, 100, 100]), (150, [100, 50]), (100, [100]), (7, [7])])
def test_pages_of_results_end_with_an_empty_one_or_at_the_limit(limit: int | None, sizes: list[int]) -> None:
    def page(call: Call) -> Answer:
        first = int(call.query.get("after", "-1")) + 1
        runs = range(first, min(150, first + int(call.query["limit"])))
        return answer(200, [{"run": run, "state": "succeeded"} for run in runs])

    script = Script(*[page] * len(sizes))
    pages: Pages[Any] = operations(script).results("t", None, limit)
    found = []
    while not pages.is_over:
        found += [result.run for result in script.run(pages.page())]
    assert found == list(range(150 if limit is None else limit))
    assert [call.query["limit"] for call in script.calls] == [str(size) for size in sizes]


def test_pages_of_results_may_be_cut_short_by_the_gateway() -> None:
    cut = [[{"run": run, "state": "succeeded"} for run in runs] for runs in ((0, 1), (2,), ())]
    script = Script(*[answer(200, page) for page in cut])
    pages: Pages[Any] = operations(script).results("t", None, None)
    found = []
    while not pages.is_over:
        found += [result.run for result in script.run(pages.page())]
    assert found == [0, 1, 2]


def test_pages_of_tasks() -> None:
    script = Script(answer(200, [TASK]))
    pages = operations(script).tasks("queued", None, "u")
    assert [task.id for task in script.run(pages.page())] == ["t"]
    assert pages.is_over
    assert script.calls[0].query == {"status": "queued", "limit": "100", "after": "u"}
    with pytest.raises(UsageError, match="'done' is not one of scheduled"):
        operations(script).tasks("done", None, None)
    assert operations(script).tasks(None, 0, None).is_over


def test_uploading_only_what_is_not_there() -> None:
    script = Script(Answer(200, {}))
    assert script.run(operations(script).upload(LARGE)) == DIGEST
    script = Script(GONE, answer(201, {"module": DIGEST}))
    assert script.run(operations(script).upload(LARGE)) == DIGEST
    assert script.asked == [HEAD, "POST /modules"]
    assert (script.calls[1].content, script.calls[1].headers) == (LARGE, {"Content-Type": "application/wasm"})
    script = Script(GONE, answer(201, {"module": "sha256:0"}))
    with pytest.raises(PeerError, match="another module"):
        script.run(operations(script).upload(LARGE))
    script = Script(GONE)
    with pytest.raises(NotFound):
        script.run(operations(script).upload(DIGEST))


def test_a_gateway_that_is_not_ready_answers_too() -> None:
    script = Script(answer(503, {"status": "not ready", "checks": [{"name": "disk", "ok": False}]}))
    ready = script.run(operations(script).ready())
    assert (ready.is_ready, [check.name for check in ready.checks]) == (False, ["disk"])


def test_ids_cannot_lead_elsewhere() -> None:
    script = Script(answer(200, TASK))
    script.run(operations(script).task("a/../b?x#y z"))
    assert script.calls[0].path == "/tasks/a%2F..%2Fb%3Fx%23y%20z"
    for id in ("", ".", ".."):
        with pytest.raises(UsageError):
            script.run(operations(script).task(id))
    with pytest.raises(UsageError):
        script.run(operations(script).result("t", -1))
