"""How many children are born at the same time: three for each core.

A birth is work for a core, some ten milliseconds of it. Of sixty-four that are born together each gets a little at a time, and whoever
holds the write lock meanwhile waits for its turn at a core like all the others, and everybody for it. Born a few at a time they are all
there no later, the first much sooner, and those that work already are held up less.

A child counts from the order until it has committed something or sets a plugin up, which the table of beats tells, and for a moment at
most: who takes longer than that waits for something. One for each core would leave cores idle while a child waits for the disk, and make
a tenth less of many short instances; more would help nobody.
"""

from __future__ import annotations

import asyncio
import os

from ...watchdog.beats import BeatTable
from .children import Child

__all__ = ["Births"]

_FOR_A_CORE = 3
_MOMENT = 0.1
_LOOK = 0.002


class Births:
    """Let children be born a few at a time, in the order in which they come."""

    def __init__(self, table: BeatTable, most: int | None = None, moment: float = _MOMENT) -> None:
        """Hold the table.

        `most` is how many at a time, three for each core where it is None; `moment` for how many seconds one counts at most.
        """
        self._table = table
        self._moment = moment
        self._most = most or _FOR_A_CORE * (os.cpu_count() or 1)
        self._turn = asyncio.Lock()
        self._born: dict[Child, float] = {}

    async def wait(self, child: Child) -> None:
        """Return when a child may be ordered; it counts from then on."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while len(self._under_way(loop.time())) >= self._most:  # noqa: ASYNC110  shared memory
                await asyncio.sleep(_LOOK)
            self._born[child] = loop.time()

    def _under_way(self, now: float) -> dict[Child, float]:
        self._born = {
            child: since for child, since in self._born.items() if now - since < self._moment and self._is_busy(child)
        }
        return self._born

    def _is_busy(self, child: Child) -> bool:
        if child.settled.is_set():
            return False
        view = self._table.read(child.slot)
        return not view.progress and not view.step.startswith("plugin:")
