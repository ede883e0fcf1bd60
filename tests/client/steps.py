"""Operations without I/O: what they ask for, and what becomes of answers that a test makes up."""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ww.client.call import Answer, Call, Failure, Pause, Steps, Work
from ww.errors import PeerError

T = TypeVar("T")
REFUSED = Failure(PeerError("no gateway at http://x: connection refused"))


def answer(status: int, said: Any = None, **headers: str) -> Answer:
    """Make an answer with a JSON body."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, names, b"" if said is None else json.dumps(said).encode())


def problem(status: int, code: str, detail: str = "no", **headers: str) -> Answer:
    return answer(status, {"status": status, "code": code, "detail": detail}, **headers)


class Script:
    """Runs steps against answers, in order; what was asked and waited is noted."""

    def __init__(self, *answers: Answer | Failure | Callable[[Call], Answer | Failure]) -> None:
        self._answers: Iterable[Any] = iter(answers)
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.now = 0.0

    def run(self, steps: Steps[T]) -> T:
        came: Any = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Call):
                self.calls.append(step)
                came = next(iter(self._answers))
                came = came(step) if callable(came) else came
            elif isinstance(step, Pause):
                self.pauses.append(step.seconds)
                self.now += step.seconds
                came = None
            else:
                assert isinstance(step, Work)
                came = step.do()

    @property
    def asked(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.calls]
