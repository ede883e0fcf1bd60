"""Invocations as other nodes send them, and as plain data.

Holds the translation from schema/worker.capnp to sandbox/invocation.py. Must not know who asks or who runs. What a peer
sends is counted before it is read.
"""

from typing import Any, Final

from ww.errors import UsageError
from ww.rpc.message import listed
from ww.sandbox.invocation import Invocation

_ARGUMENTS_MAX: Final = 1000
_TEXTS_MAX: Final = 65_536
_CONTEXT_BYTES_MAX: Final = 64


def read_invocation(invocation: Any) -> Invocation:
    """Read a worker.Invocation but for its limits. UsageError when it is none that a guest could be given."""
    try:
        return _read(invocation)
    except UnicodeDecodeError:
        raise UsageError("the texts of an invocation are UTF-8") from None


def _read(invocation: Any) -> Invocation:
    env = [(variable.key, variable.value) for variable in listed("env", invocation.env, _TEXTS_MAX)]
    args = listed("args", invocation.args, _TEXTS_MAX)
    artifacts = listed("artifacts", invocation.artifacts, _TEXTS_MAX)
    dirs = listed("dirs", invocation.dirs, _TEXTS_MAX)
    # They are ended by zeros on their way to the guest.
    texts = (*args, *artifacts, *dirs, *(text for pair in env for text in pair))
    if any("\0" in text for text in texts):
        raise UsageError("args, env, artifacts and dirs hold no zero characters")
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
        artifacts=artifacts,
        dirs=dirs,
        deterministic=invocation.deterministic,
        seed=invocation.seed,
        code=invocation.code,
        context=context,
    )
