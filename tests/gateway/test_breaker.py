"""A worker's breaker: when it opens, when it lets one run through, what closes it."""

from ww.gateway.breaker import Breaker, BreakerConfig

CONFIG = BreakerConfig(failures_max=3, open_s=10.0, open_max_s=35.0)


def opened() -> Breaker:
    breaker = Breaker(CONFIG)
    assert [breaker.failed(module, 0.0) for module in "abc"] == [False, False, True]
    return breaker


def test_it_opens_after_failures_of_distinct_modules() -> None:
    assert opened().state(0.0) == "open"


def test_one_module_that_fails_everywhere_opens_nothing() -> None:
    breaker = Breaker(CONFIG)
    assert not any(breaker.failed("poison", float(n)) for n in range(100))
    assert breaker.state(100.0) == "closed"


def test_a_success_forgets_what_went_before() -> None:
    breaker = Breaker(CONFIG)
    for _ in range(5):
        breaker.failed("a", 0.0)
        breaker.failed("b", 0.0)
        breaker.succeeded(0.0)
    assert breaker.state(0.0) == "closed"


def test_after_a_while_it_is_tried_and_closed_when_that_goes_well() -> None:
    breaker = opened()
    assert (breaker.state(9.9), breaker.state(10.0)) == ("open", "half-open")
    breaker.succeeded(10.0)
    assert breaker.state(10.0) == "closed"


def test_each_failed_trial_doubles_the_wait_up_to_a_limit() -> None:
    breaker, now = opened(), 10.0
    for open_s in (20.0, 35.0, 35.0):
        assert breaker.failed("a", now)
        assert (breaker.state(now + open_s - 0.1), breaker.state(now + open_s)) == ("open", "half-open")
        now += open_s


def test_what_began_before_it_opened_changes_nothing() -> None:
    breaker = opened()
    assert not breaker.failed("d", 1.0)
    breaker.succeeded(1.0)
    assert (breaker.state(9.9), breaker.state(10.0)) == ("open", "half-open")
