"""How long a slot may seem stuck: longer where that was wrong, the usual time when it was right or is long ago."""

from ww.gateway.patience import FIRST_S, Patience
from ww.identity import Identity

WORKER, OTHER = (Identity.generate().peer_id for _ in range(2))


def test_who_was_held_up_gets_more_time_up_to_a_bound() -> None:
    patience, seen = Patience(), []
    for _ in range(12):
        patience.judge(WORKER, 1.0, 0.001, 0.0)
        seen.append(patience.of(WORKER, 0.0))
    assert seen[0] > FIRST_S
    assert seen == sorted(seen)
    assert seen[-1] == seen[-2] < 5.0
    assert patience.of(OTHER, 0.0) == FIRST_S


def test_a_run_that_did_take_long_takes_from_it() -> None:
    patience = Patience()
    for _ in range(4):
        patience.judge(WORKER, 1.0, 0.001, 0.0)
    for _ in range(4):
        patience.judge(WORKER, 1.0, 0.9, 0.0)
    assert patience.of(WORKER, 0.0) == FIRST_S


def test_what_is_long_ago_is_forgiven() -> None:
    patience = Patience()
    for _ in range(12):
        patience.judge(WORKER, 1.0, 0.001, 0.0)
    before = patience.of(WORKER, 0.0)
    assert FIRST_S < patience.of(WORKER, 40.0) < before
    assert patience.of(WORKER, 1000.0) == FIRST_S


def test_only_so_many_are_remembered() -> None:
    patience = Patience()
    for _ in range(5000):
        patience.judge(Identity.generate().peer_id, 1.0, 0.0, 0.0)
    assert len(patience._known) <= 4096
