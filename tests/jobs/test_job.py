"""What a job is, without a cluster: a plain function, its options, what is refused, what importing costs."""

import pickle
import subprocess
import sys
from typing import Any

import pytest

import ww
from tests.jobs import pieces
from ww.errors import UsageError
from ww.jobs.options import JobOptions


def test_a_job_is_still_its_function() -> None:
    assert pieces.square(3) == 9
    assert pieces.add(1, b=3) == 4
    assert pieces.square.__name__ == "square"
    assert pieces.Wrong.__doc__
    assert repr(pieces.square) == "<ww.job tests.jobs.pieces.square>"
    assert pieces.add.options.timeout_s == 5


def test_a_job_travels_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(pieces.square)) is pieces.square


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "memory: 0 is not what was expected: a whole number from 1"),
        ({"memory": "1G"}, "memory: '1G'"),
        ({"fuel": -1}, "fuel"),
        ({"timeout_s": 0}, "timeout_s: 0 is not"),
        ({"timeout_s": float("nan")}, "timeout_s: nan"),
        ({"timeout_s": True}, "timeout_s: True"),
        ({"retries": -1}, "retries"),
        ({"retries": None}, "retries"),
        ({"packages": "numpy"}, "packages: 'numpy'"),
        ({"grants": 3}, "grants: 3"),
        ({"trust": 1}, "trust: 1"),
        ({"cpus": 0}, "cpus: 0"),
        ({"quorum": 0}, "quorum: 0 is not"),
        ({"ram": 1}, "ram: no option of a job, which has memory, fuel"),
    ],
)
def test_an_option_that_is_none_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ww.job(**options)(len)
    assert str(caught.value).startswith(message)
    assert caught.value.field == next(iter(options))


def test_what_a_quorum_has_to_agree_on_is_deterministic() -> None:
    asked = {name: JobOptions(quorum=2).fields()[name] for name in ("quorum", "deterministic")}
    assert asked == {"quorum": 2, "deterministic": True}
    assert "deterministic" not in JobOptions(quorum=1).fields()
    assert "quorum" not in JobOptions().fields()


def test_what_cannot_be_a_job_is_refused() -> None:
    def generates() -> Any:
        yield 1

    for wrong in (generates, pieces.square, 3, staticmethod(len), property(len)):
        with pytest.raises(UsageError):
            ww.job(wrong)  # type: ignore[call-overload]


def test_a_job_is_no_method() -> None:
    class Thing:
        squared = pieces.square

    assert Thing.squared(3) == 9
    with pytest.raises(UsageError, match="a job is no method"):
        _ = Thing().squared


def test_importing_ww_imports_nothing_of_it() -> None:
    program = (
        "import sys, ww; print(sorted(n for n in sys.modules if n.startswith('ww.') or n in ('asyncio', 'httpx')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.strip() == "[]"


def test_names_of_ww_are_there_when_they_are_used() -> None:
    assert set(ww.__all__) <= set(dir(ww))
    for name in ww.__all__:
        assert getattr(ww, name) is not None
    with pytest.raises(AttributeError, match="module 'ww' has no attribute 'nothing'"):
        _ = ww.nothing
