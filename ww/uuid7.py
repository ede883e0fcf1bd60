"""Ids that sort by when they were made. Imports nothing of ww: clients and gateways both make them."""

import os
import time
import uuid
from typing import Final

_RECENT_MS: Final = 10_000


def uuid7() -> uuid.UUID:
    """Make a UUID that sorts by time of making. Source: RFC 9562, 5.7."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | (0x7 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return uuid.UUID(int=number)


def is_recent(text: str) -> bool:
    """Whether that is one that was made some seconds ago, by this machine's clock: nobody has it from elsewhere."""
    try:
        made = uuid.UUID(text)
    except ValueError:
        return False
    return made.version == 7 and abs(time.time_ns() // 1_000_000 - (made.int >> 80)) < _RECENT_MS
