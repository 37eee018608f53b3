"""A clock that tests move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ..base.duration import DurationLike, parse_duration

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that runs with the machine's and can be moved forward; a sleep moves it and returns at once."""

    def __init__(self) -> None:
        """Begin at the present."""
        self._ahead = 0.0
        self.moved: Callable[[], None] = lambda: None

    def now(self) -> float:
        """Return wall-clock seconds since the epoch, as far ahead as it was moved."""
        return time.time() + self._ahead

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic() + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Move on by `seconds` and return."""
        self._ahead += max(0.0, seconds)
        await asyncio.sleep(0)

    def advance(self, duration: DurationLike) -> datetime:
        """Move on; whatever is due then wakes. Returns the new time (UTC)."""
        self._ahead += parse_duration(duration)
        self.moved()
        return datetime.fromtimestamp(self.now(), UTC)
