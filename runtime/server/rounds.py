"""Rounds: while children are at work the server looks by itself at how far they are, and they need not ring.

A ring wakes a core that sleeps, and a look for each commit keeps it from what else it could do: of ten steps half a millisecond each, the ring
takes 50 to 300 µs of the child's time, the look 200 of the server's. So a server that was rung for goes round for a while, and says in the table
of beats when it will look next. A child notes there what it has on the disk, and rings only where nobody has promised to look, or where it is
over: somebody waits for the outcome. (Interrupt mitigation, as of the Linux kernel's NAPI: after the first interrupt of a burst the device is
polled.) What comes alone is heard at once, then, and what comes in a burst a few milliseconds later, together.

Nothing is lost between the two: who was promised a look had noted before he read the promise. After the last round the promise is taken back
first, and then there is one look more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ...watchdog.beats import BeatTable
from .roster import Roster

__all__ = ["Rounds"]

_PACE = 0.004
_QUIET = 2


class Rounds:
    """Go round while there is something to hear.

    Args:
        table: where children note how far they are.
        roster: who is there.
        heard: called on the loop with the id of the newest event that is on the disk, where that is news, and after each ring.
    """

    def __init__(self, table: BeatTable, roster: Roster, heard: Callable[[int], None]) -> None:
        """Hold the parts; nobody goes round yet."""
        self._table = table
        self._roster = roster
        self._heard = heard
        self._newest = 0
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def rung(self, event_id: int) -> None:
        """Hear a child that rings, and go round for a while."""
        self._newest = max(event_id, self._look())
        self._heard(self._newest)
        self._left = _QUIET
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Go round no more."""
        self._table.promise_look(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_PACE, self._round)
        self._table.promise_look(time.monotonic_ns() + int(_PACE * 1e9))

    def _round(self) -> None:
        self._timer = None
        self._left -= 1
        if not self._left:
            self._table.promise_look(0)
        if (newest := self._look()) > self._newest:
            self._newest = newest
            self._heard(newest)
            self._left = _QUIET
        if self._left:
            self._wait()

    def _look(self) -> int:
        return max((self._table.on_disk(child.slot) for child in self._roster.children), default=0)
