"""Invocations and outcomes as other nodes send and get them, and as plain data.

Holds the translation between schema/worker.capnp and sandbox/invocation.py. Must not know who asks or who runs. What a
peer sends is counted before it is read.
"""

from typing import Any, Final

from ww import schema
from ww.errors import UsageError
from ww.rpc.message import listed
from ww.sandbox.invocation import Invocation, Result, RunLimits

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


def outcome_of(result: Result, limits: RunLimits, *, queue_s: float = 0.0, compile_s: float = 0.0) -> Any:
    """Return a worker.Outcome that says a result, and what is known of the run beside it."""
    outcome = schema.worker.Outcome.new_message()
    if result.reason != "ok":
        outcome.reason = result.reason
    if result.detail:
        outcome.detail = result.detail
    if result.value is not None:
        outcome.hasResult, outcome.result, outcome.isFloat = True, result.value, result.is_float
    if result.exit_code is not None:
        outcome.hasExitCode, outcome.exitCode = True, result.exit_code
    if result.stdout:
        outcome.stdout, outcome.stdoutTruncated = result.stdout, result.stdout_truncated
    if result.stderr:
        outcome.stderr, outcome.stderrTruncated = result.stderr, result.stderr_truncated
    if result.fuel is not None:
        outcome.hasFuel, outcome.fuel = True, result.fuel
    if result.artifacts:
        outcome.artifacts = result.artifacts
    if result.files_bytes:
        outcome.filesBytes = result.files_bytes
    outcome.wallSeconds, outcome.cpuSeconds = result.wall_s, result.cpu_s
    outcome.instantiateSeconds, outcome.queueSeconds = result.instantiate_s, queue_s
    outcome.memoryBytes, outcome.memoryLimitBytes = result.memory_bytes, limits.memory_bytes
    if compile_s:
        outcome.compileSeconds = compile_s
    return outcome
