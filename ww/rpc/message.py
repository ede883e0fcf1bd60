"""Reading messages that a stranger wrote.

Holds what is to be minded there beyond what pycapnp checks. Must not know what the messages mean.
"""

from typing import Any

from ww.errors import UsageError


def listed(what: str, things: Any, maximum: int) -> list[Any]:
    """Return a message's list, of at most maximum elements, as one of Python's; else UsageError, which names what.

    To be used for every list of structs. Elements may have no size on the wire: a message of a hundred bytes can say
    that it holds eight million, which as Python objects are a gigabyte and many seconds of the loop.
    """
    count = len(things)
    if count > maximum:
        raise UsageError(f"{what}: {count} are given, at most {maximum} are taken")
    return list(things)
