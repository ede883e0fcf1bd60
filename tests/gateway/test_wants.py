"""The order in which peers are given runs that want a vote: each of them once, whatever comes and goes meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from ww.gateway.wants import PolledRun, Wants

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 99)),
        st.tuples(st.just("discard"), st.integers(0, 99)),
        st.tuples(st.just("ask"), st.sampled_from("abc")),
        st.tuples(st.just("free"), st.integers(0, 99)),
    ),
    max_size=400,
)


@given(STEPS)
def test_a_peer_is_given_the_oldest_run_that_it_was_not_given(steps: list[tuple[str, int | str]]) -> None:
    wants, runs, order = Wants(), [PolledRun(n, 0.0, 0.0) for n in range(100)], list[PolledRun]()
    for what, which in steps:
        if what == "ask":
            peer = str(which)
            expected = next((run for run in order if peer not in run.asked), None)
            assert wants.next_for(peer) is expected
            if expected is not None:
                expected.asked.append(peer)
        else:
            run = runs[int(which)]
            if what == "free":
                run.asked.clear()  # who was asked may be again, of one that is put anew
            if run in order:
                order.remove(run)
                if what == "discard":
                    wants.discard(run)
            if what == "put" or (what == "free" and run.wants is not None):
                wants.put(run)
                order.append(run)
        assert len(wants) == len(order)
        assert wants.oldest() is (order[0] if order else None)


def test_what_is_gone_is_not_kept() -> None:
    wants = Wants()
    stays = PolledRun(0, 0.0, 0.0)
    wants.put(stays)
    for number in range(10_000):
        run = PolledRun(number, 0.0, 0.0)
        wants.put(run)
        assert wants.next_for("a") is stays
        wants.discard(run)
    assert len(wants._log) < 200
    stays.asked.append("a")
    assert wants.next_for("a") is None
