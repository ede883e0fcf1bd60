"""A sandbox process that wants a module's artefact again and again. Run in place of ww.sandbox.executor."""

from typing import Any

from ww.sandbox import executor


def want(*_: Any) -> Any:
    raise executor.Wanted


if __name__ == "__main__":
    executor.Executor._program = want  # type: ignore[method-assign]
    executor.main()
