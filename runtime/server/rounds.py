"""Rounds: while children are at work the server looks by itself at how far they are, and they need not ring.

A ring wakes a core that sleeps, and a look for each commit keeps it from what else it could do: of ten steps half a millisecond each, the ring
takes 50 to 300 µs of the child's time, the look 200 of the server's. So a server that was rung for goes round for a while, and says in the table
of beats that it does. A child notes there what it has on the disk, and rings only where nobody has promised to look, or where it is
over: somebody waits for the outcome. (Interrupt mitigation, as of the Linux kernel's NAPI: after the first interrupt of a burst the device is
polled.) What comes alone is heard at once, then, and what comes in a burst a few milliseconds later, together.

Nothing is lost between the two: who was promised looks had noted before he read the promise, and after it is taken back there is one look more, a
round later, when every core has long seen what the others wrote.

More children than cores are a crowd: to be woken for one costs the others the core that they work on, so the last word of a child waits for the
next round too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ...watchdog.beats import BeatTable
from .roster import Roster

__all__ = ["Rounds"]

_PACE = 0.003
_QUIET = 2
_PROMISE = 0.1  # renewed with each round; a server that stands still for longer is rung for
_CORES = os.cpu_count() or 1


class Rounds:
    """Go round while there is something to hear.

    Args:
        table: where children note how far they are.
        roster: who is there.
        heard: called on the loop with the id of the newest event that is on the disk, where that is news, and after each ring.
    """

    def __init__(self, table: BeatTable, roster: Roster, heard: Callable[[int], None]) -> None:
        """Take back what a server before may have promised; nobody goes round yet."""
        self._table = table
        self._roster = roster
        self._heard = heard
        self._newest = 0
        self._quiet = 0
        self._timer: asyncio.TimerHandle | None = None
        table.promise_looks(0)

    def rung(self, event_id: int) -> None:
        """Hear a child that rings, and go round for a while."""
        self._newest = max(event_id, self._look())
        self._heard(self._newest)
        self._quiet = 0
        self._go_on()

    def stop(self) -> None:
        """Go round no more."""
        self._table.promise_looks(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        crowded = len(self._roster) > _CORES
        self._table.promise_looks(_PROMISE if self._quiet < _QUIET else 0, crowded=crowded)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PACE, self._round)

    def _round(self) -> None:
        self._timer = None
        if (newest := self._look()) > self._newest:
            self._newest, self._quiet = newest, 0
            self._heard(newest)
        else:
            self._quiet += 1
        if self._quiet <= _QUIET:
            self._go_on()

    def _look(self) -> int:
        return max((self._table.on_disk(child.slot) for child in self._roster), default=0)
