"""Time behind one small protocol, so that tests can move it.

The store holds wall-clock UTC; deadlines inside one process are monotonic, so that a jump of the wall clock does bounded
harm.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol, overload

__all__ = ["Clock", "SystemClock", "as_datetime", "as_timestamp"]


class Clock(Protocol):
    """What the runtime asks of time."""

    def now(self) -> float:
        """Return wall-clock seconds since the epoch (UTC)."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Return `time.time()`."""
        return time.time()

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)


_LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


@overload
def as_datetime(timestamp: float) -> datetime: ...
@overload
def as_datetime(timestamp: None) -> None: ...


def as_datetime(timestamp: float | None) -> datetime | None:
    """Return a timezone-aware UTC datetime for seconds since the epoch; what lies past the year 9999 is its end."""
    if timestamp is None:
        return None
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (ValueError, OverflowError, OSError):  # a delay that grew for a thousand tries
        return _LAST_MOMENT


def as_timestamp(moment: datetime | None) -> float | None:
    """Return seconds since the epoch for a datetime; a naive one is taken as UTC."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
