"""Invocations as other nodes send them, and as plain data.

Holds the translation from schema/worker.capnp to sandbox/invocation.py. Must not know who asks or who runs. What a peer
sends is counted before it is read.
"""

from typing import Any, Final

from ww.errors import UsageError
from ww.records import Input
from ww.rpc.message import listed
from ww.sandbox.invocation import Invocation

_ARGUMENTS_MAX: Final = 1000
_TEXTS_MAX: Final = 65_536
_CONTEXT_BYTES_MAX: Final = 64


def read_invocation(invocation: Any) -> Invocation:
    """Read a worker.Invocation but for its limits. UsageError when it is none that a guest could be given."""
    env = [(variable.key, variable.value) for variable in listed("env", invocation.env, _TEXTS_MAX)]
    args = listed("args", invocation.args, _TEXTS_MAX)
    # They are ended by zeros on their way to the guest.
    if any("\0" in text for text in args) or any("\0" in name or "\0" in value for name, value in env):
        raise UsageError("args and env hold no zero characters")
    context = invocation.context
    if len(context) > _CONTEXT_BYTES_MAX:
        raise UsageError(f"context: {len(context)} bytes, at most {_CONTEXT_BYTES_MAX} are taken")
    return Invocation(
        entry=invocation.entry,
        arguments=listed("arguments", invocation.arguments, _ARGUMENTS_MAX),
        args=args,
        env=env,
        stdin=invocation.stdin,
        files=invocation.files,
        artifacts=listed("artifacts", invocation.artifacts, _TEXTS_MAX),
        dirs=listed("dirs", invocation.dirs, _TEXTS_MAX),
        deterministic=invocation.deterministic,
        seed=invocation.seed,
        context=context,
    )


def invocation_of(task: Invocation, given: Input) -> Invocation:
    """Return a run's input: its task's, but for what is given instead. ValueError when no guest can be given it."""
    args = task.args if given.args is None else given.args
    env = task.env if given.env is None else given.env
    arguments = task.arguments
    if given.arguments is not None:
        arguments = given.arguments
        if len(arguments) != len(task.arguments):
            raise ValueError(f"{len(arguments)} arguments are given, the task has {len(task.arguments)}")
    return Invocation(
        task.entry,
        arguments,
        args,
        env,
        task.stdin if given.stdin is None else given.stdin,
        task.files if given.files is None else given.files,
        task.artifacts,
        task.dirs,
        task.deterministic,
        task.seed if given.seed is None else given.seed,
        task.context,
    )
