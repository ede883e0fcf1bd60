"""The whole exception tree. Imports nothing.

    WwError
    ├── UsageError            misuse by the caller: what was given, what was expected
    │   ├── Conflict          the id is taken by something else
    │   ├── NotFound          nothing has that name
    │   ├── NotSendable       a function or value cannot travel to a sandbox
    │   └── NotGranted        a function is called that was not granted
    ├── PeerError             a peer or the way to it failed
    │   ├── PeerMismatch      another key answered than the one dialled
    │   ├── ProtocolMismatch  the peer speaks another protocol version or namespace
    │   ├── NotAdmitted       the peer's policy does not let us in
    │   ├── NotAllowed        the reference does not allow this call
    │   ├── Revoked           the reference was taken back
    │   ├── Disconnected      the connection is gone
    │   └── RemoteError       the peer's code failed; it kept the details
    ├── ClosedError           closed by us: the object is no longer usable
    │   ├── ChannelClosed     the channel was closed
    │   └── Draining          the node is stopping and takes nothing new
    ├── Overloaded            a limit is reached; try again later
    ├── StoreError            the disk or the database refuses; nothing was changed
    └── GuestError            the guest, or its bytes, are at fault
        ├── BadModule         the bytes are no module that ww can run
        ├── BadResult         what a guest returned is nothing that is read
        └── RunFailed         a run ended otherwise than by its function's return or exception
            ├── Trapped           the guest trapped, or its process crashed
            ├── DeadlineExceeded  it took longer, or more processor time, than it may
            ├── OutOfFuel         it took more instructions than it may
            ├── OutOfMemory       it needed more memory than it may
            └── RunLost           its workers were lost, one after the other

Every class has a stable `code`, which is what crosses the wire (rpc/errors.py) and what HTTP answers carry
(gateway/http.py). The message is one line, names what was wrong and what was expected, and holds no path
of this machine, no secret and no traceback.
"""

from typing import ClassVar


class WwError(Exception):
    """Base of everything ww raises on purpose."""

    code: ClassVar[str] = "error"


class UsageError(WwError):
    """The caller gave something that cannot be used; `field` names it where there is one."""

    code = "usage"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Conflict(UsageError):
    """The name is taken by something with other content."""

    code = "conflict"


class NotFound(UsageError):
    """Nothing here has that name."""

    code = "not_found"


class NotSendable(UsageError):
    """A function or a value cannot travel to a sandbox; the message names what, and why."""

    code = "not_sendable"


class NotGranted(UsageError):
    """A function is called from within a run that it was not granted to."""

    code = "not_granted"


class PeerError(WwError):
    """A peer, or the way to it, failed."""

    code = "peer"


class PeerMismatch(PeerError):
    """Another key answered than the one that was dialled."""

    code = "peer_mismatch"


class ProtocolMismatch(PeerError):
    """The peer speaks another protocol version or lives in another namespace."""

    code = "protocol_mismatch"


class NotAdmitted(PeerError):
    """The peer's admission policy does not let this node in."""

    code = "not_admitted"


class NotAllowed(PeerError):
    """The reference that was called does not allow this."""

    code = "not_allowed"


class Revoked(PeerError):
    """The reference that was called, or what it was obtained through, was taken back."""

    code = "revoked"


class Disconnected(PeerError):
    """The connection to the peer is gone; what was under way has an unknown end."""

    code = "disconnected"


class RemoteError(PeerError):
    """The peer's code failed in a way it does not explain to strangers."""

    code = "remote"


class ClosedError(WwError):
    """The object was closed on this side."""

    code = "closed"


class ChannelClosed(ClosedError):
    """The channel was closed; nothing is sent or received any more."""

    code = "channel_closed"


class Draining(ClosedError):
    """The node is stopping: what runs may finish, nothing new is taken."""

    code = "draining"


class Overloaded(WwError):
    """A limit is reached; `retry_after_s` is a hint in seconds."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreError(WwError):
    """The disk or the database refuses; nothing was changed."""

    code = "store"


class GuestError(WwError):
    """The guest, or its bytes, are at fault."""

    code = "guest"


class BadModule(GuestError):
    """The bytes are no WebAssembly module that ww can run."""

    code = "bad_module"


class BadResult(GuestError):
    """What a guest returned is nothing that is read: a guest is believed nothing."""

    code = "bad_result"


class RunFailed(GuestError):
    """A run ended otherwise than by its function's return or exception."""

    code = "run_failed"


class Trapped(RunFailed):
    """The guest trapped, or its process crashed."""

    code = "trapped"


class DeadlineExceeded(RunFailed, TimeoutError):
    """The run took longer, or more processor time, than it may."""

    code = "deadline_exceeded"


class OutOfFuel(RunFailed):
    """The run took more instructions than it may."""

    code = "out_of_fuel"


class OutOfMemory(RunFailed, MemoryError):
    """The run needed more memory than it may."""

    code = "out_of_memory"


class RunLost(RunFailed):
    """The workers that had the run were lost, one after the other, until there were no more attempts."""

    code = "run_lost"
