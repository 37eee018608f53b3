"""Suspension: every durable wait of an instance, and when it gives its process back.

A wait that is soon over stays in the process. The others are parked here, each with the time at which it ends. Once nothing in the
instance works any more (`flow_tasks.py`) it suspends: what ends the waits is an `InterruptError`, a `BaseException`, so that a user's
`except Exception` does not hold it up.
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass

from ..base.clock import Clock
from ..base.errors import InterruptError
from ..base.probes import reach
from ..base.records import Status
from .flow_tasks import FlowTasks
from .writer import JournalWriter

__all__ = ["Suspension"]

_LOOK_SECONDS = 0.25
_STILL_TURNS = 12


@dataclass(slots=True)
class _Parked:
    """One wait: until when, and since when it has not looked (None for a wait that only time ends)."""

    wake_at: float | None
    looked_at: float | None


class Suspension:
    """The waits of one execution.

    Attributes:
        decided: the status in which the instance suspends, and when it wakes; None while it goes on.
        running: how many handlers run.
    """

    def __init__(self, tasks: FlowTasks, writer: JournalWriter, clock: Clock, after: float, quiet: float) -> None:
        """Hold the parts.

        `after` is the wait, in seconds, from which on the process is given back; `quiet` how long nothing must go on before.
        """
        self._tasks = tasks
        self._writer = writer
        self._clock = clock
        self._after = after
        self._quiet = quiet
        self._pause = quiet
        self._parked: dict[asyncio.Future[None], _Parked] = {}
        self._check: asyncio.Handle | None = None
        self._doze: asyncio.Task[None] | None = None
        self._doze_until = 0.0
        self._brief = 0
        self.running = 0
        self.decided: tuple[Status, float | None] | None = None

    async def park(self, wake_at: float | None, *, look: bool = False) -> None:
        """Wait until `wake_at` (wall-clock seconds), within the process while that is soon, else by suspending the instance.

        With `look` it also returns when something may have come for the instance, and now and then: the caller looks and parks again.

        Raises:
            InterruptError: the instance suspends; its next execution comes back to this place.
        """
        if self.decided is not None:
            raise InterruptError  # nothing in this instance worked: whoever asks was woken by the suspension
        if wake_at is not None and wake_at - self._clock.now() <= self._after and not look:
            await self._wait_briefly(wake_at)
            return
        loop = asyncio.get_running_loop()
        ticket: asyncio.Future[None] = loop.create_future()
        self._parked[ticket] = _Parked(wake_at, loop.time() if look else None)
        self.watch()
        try:
            with self._tasks.waiting():
                await ticket
        finally:
            self._parked.pop(ticket, None)

    async def _wait_briefly(self, wake_at: float) -> None:
        self._brief += 1
        try:
            await self._writer.flush()
            reach("child.waiting")
            while (left := wake_at - self._clock.now()) > 0:
                await self._clock.sleep(left)
        finally:
            self._brief -= 1
            self.watch()

    def nudge(self) -> None:
        """Let every wait look again: something may have come for the instance."""
        for ticket, parked in self._parked.items():
            if parked.looked_at is not None and not ticket.done():
                ticket.set_result(None)

    def watch(self) -> None:
        """Suspend once nothing in this instance works; until then look again."""
        self._pause = self._quiet
        self._look_later()

    def close(self) -> None:
        """Look no more."""
        self._forget_check()
        if self._doze is not None:
            self._doze.cancel()

    def _forget_check(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _look_later(self) -> None:
        self._forget_check()
        if self._parked:
            self._check = asyncio.get_running_loop().call_later(self._pause, self._suspend_if_quiet)
            self._pause = min(max(self._pause * 2, 0.001), _LOOK_SECONDS)  # each look goes through all tasks

    def _suspend_if_quiet(self) -> None:
        self._check = None
        if not self._parked or self.decided is not None:
            return
        now = self._clock.now()
        self._wake_due(now)
        if self._works():
            self._look_later()
            return
        nearest = self._nearest()
        if nearest is not None and nearest - now <= self._after:
            self._sleep_until(nearest)
            self._look_later()
            return
        self._suspend_if_still(self._tasks.standing(), _STILL_TURNS)

    def _suspend_if_still(self, standing: object, left: int) -> None:
        """Suspend where every task stands where it stood `left` turns before: the end of one takes some until others go on by it."""
        self._check = None
        if left:
            self._check = asyncio.get_running_loop().call_soon(self._suspend_if_still, standing, left - 1)
        elif standing != self._tasks.standing() or self._works():
            self._look_later()
        else:
            timed = all(parked.looked_at is None for parked in self._parked.values())
            self.decided = (Status.SLEEPING if timed else Status.WAITING, self._nearest())
            self._tasks.excuse()
            for ticket in self._parked:
                ticket.set_exception(InterruptError())

    def _works(self) -> bool:
        """Tell whether anything in this instance works, or is about to."""
        woken = any(ticket.done() for ticket in self._parked)
        return self.running > 0 or self._brief > 0 or woken or self._tasks.busy()

    def _nearest(self) -> float | None:
        return min((parked.wake_at for parked in self._parked.values() if parked.wake_at is not None), default=None)

    def _sleep_until(self, wake_at: float) -> None:
        """Look again right when a wait ends that is too short to suspend for; the looks in between are rare."""
        if self._doze is not None and not self._doze.done():
            if wake_at == self._doze_until:
                return
            self._doze.cancel()
        self._doze_until = wake_at
        # in a context of its own: it is no task of the instance's code, which would count as work
        self._doze = asyncio.get_running_loop().create_task(
            self._sleep(wake_at), name="paddock-doze", context=contextvars.Context()
        )

    async def _sleep(self, wake_at: float) -> None:
        await self._clock.sleep(max(0.0, wake_at - self._clock.now()))
        self.watch()

    def _wake_due(self, now: float) -> None:
        moment = asyncio.get_running_loop().time()
        for ticket, parked in self._parked.items():
            due = parked.wake_at is not None and parked.wake_at <= now
            stale = parked.looked_at is not None and moment - parked.looked_at >= _LOOK_SECONDS
            if (due or stale) and not ticket.done():
                ticket.set_result(None)
