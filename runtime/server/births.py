"""How many children may be at the beginning of their lives at the same time: one for each core, and one more.

A child that is born is work for a core, some ten milliseconds of it, and so is a short instance to its end. Of sixty-four that are there
together each gets a little at a time and finds the core's cache full of the others' memory; whoever holds the write lock meanwhile
waits for its turn at a core like all the others, and everybody for it. A few at a time they have all ended no later, the first much
sooner, and those that work already are held up less.

A child counts from the order until it has ended, or waits for something: it has committed nothing for a while after its first commit, or
sets a plugin up, both of which the table of beats tells. And for a moment at most, longer where it commits on and on: many that do so at once
are each slow for the others, so none has ended when the next comes, and they become more and more. The one more keeps the cores busy while a child
waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass

from ...watchdog.beats import BeatTable
from .children import Child

__all__ = ["Births"]

_MOMENT, _SPELL, _STILL, _LOOK = 0.1, 0.3, 0.01, 0.005


@dataclass(slots=True)
class _Born:
    """What was seen of a child, and since when: times of the loop, in seconds."""

    ordered: float
    progress: int
    since: float


class Births:
    """Let children be born a few at a time, in the order in which they come."""

    def __init__(
        self,
        table: BeatTable,
        most: int | None = None,
        *,
        moment: float = _MOMENT,
        spell: float = _SPELL,
        still: float = _STILL,
    ) -> None:
        """Hold the table.

        `most` is how many at a time, as many as there are cores and one more where it is None; `moment` for how many seconds one counts
        that commits nothing, `spell` for how many one that does, `still` for how many after its last commit.
        """
        self._table = table
        self._moment = moment
        self._spell = spell
        self._still = still
        self._most = most or 1 + (os.cpu_count() or 1)
        self._turn = asyncio.Lock()
        self._born: dict[Child, _Born] = {}
        self._ended = asyncio.Event()

    async def wait(self, child: Child) -> None:
        """Return when a child may be ordered; it counts from then on."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while self._under_way(loop.time()) >= self._most:
                self._ended.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await self._ended.wait()
            self._born[child] = _Born(loop.time(), 0, 0.0)
            child.exited.add_done_callback(lambda _exited: self._ended.set())

    def _under_way(self, now: float) -> int:
        for child, born in list(self._born.items()):
            if not self._is_busy(child, born, now):
                del self._born[child]
        return len(self._born)

    def _is_busy(self, child: Child, born: _Born, now: float) -> bool:
        if child.exited.done() or child.settled.is_set():
            return False
        progress = self._table.progress(child.slot)
        if progress != born.progress:
            born.progress, born.since = progress, now
        if progress:
            return now - born.since < self._still and now - born.ordered < self._spell
        return now - born.ordered < self._moment and not self._table.step(child.slot).startswith("plugin:")
