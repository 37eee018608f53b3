"""The dispatcher: gives free slots to queued instances, and wakes those that are due.

Level-triggered: it looks at the tables whenever something may have changed, and once a second anyway, so no lost wake-up loses work.
What it asks of the store within one turn of the loop is one transaction there (`worker.py` joins what waits), so an instance that is
stored while a slot is free is claimed by the same commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from ..base.clock import Clock
from ..base.errors import MachineError
from ..base.log import get_logger
from ..base.probes import reach
from ..store.admission import Claim, Wanted
from ..store.protocol import Store

__all__ = ["Dispatcher"]

_LOOK_AT_LEAST = 1.0
_CLAIM_TIMEOUT = 10.0
_MANY = 64
_log = get_logger("paddock.dispatcher")


class Dispatcher:
    """Claim and hand over.

    Args:
        store: where the queue is.
        clock: what time it is.
        wanted: asked before each claim what can run.
        launch: takes a claim over; must not wait.
        overdue: called with the ids whose workflow deadline has passed.
        before: called before each claim; returns when it wants to be called again, in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wanted: Callable[[], Wanted],
        launch: Callable[[Claim], None],
        overdue: Callable[[list[str]], Awaitable[None]],
        before: Callable[[], Awaitable[float | None]],
    ) -> None:
        """Hold the parts; `start` begins."""
        self._store = store
        self._clock = clock
        self._wanted = wanted
        self._launch = launch
        self._overdue = overdue
        self._before = before
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._claiming: set[asyncio.Task[list[Claim]]] = set()
        self.trouble: str | None = None
        self.idle = asyncio.Event()

    async def start(self) -> None:
        """Begin to dispatch."""
        self._task = asyncio.create_task(self._run(), name="paddock-dispatcher")

    async def stop(self) -> None:
        """Claim nothing more; a claim under way is handed over first."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=_CLAIM_TIMEOUT)

    def poke(self) -> None:
        """Look again: something was queued, or a slot is free."""
        self.idle.clear()
        self._wake.set()

    def admit(self) -> bool:
        """Claim with the transaction that was asked for in this turn of the loop; return False where nothing is claimed just now.

        Where the claim fails, the next round claims.
        """
        if self._task is None:
            return False
        self._begin_claim().add_done_callback(self._look_again)
        return True

    def _look_again(self, claiming: asyncio.Task[list[Claim]]) -> None:
        if claiming.cancelled() or claiming.exception() is not None:
            self.poke()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._round()
                self.trouble = None
            except MachineError as error:
                if self.trouble is None:
                    _log.error("nothing can be claimed now", error=str(error))
                self.trouble = str(error)
                pause = _LOOK_AT_LEAST
            except Exception as error:  # noqa: BLE001  a defect of ours; whoever waits in the queue must not wait for ever
                _log.exception("a round of the dispatcher failed; it goes on")
                self.trouble = f"{type(error).__name__}: {error}"
                pause = _LOOK_AT_LEAST
            if not self._wake.is_set():
                self.idle.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _round(self) -> float:
        """Dispatch what can be; return how long to wait at most."""
        now = self._clock.now()
        wanted, (late, deadline) = await asyncio.gather(self._before(), self._store.overdue(now))
        if late:
            await self._overdue(late)
        reach("server.claim.before")
        releasing = asyncio.ensure_future(self._store.release_due(now))  # first: what is due is claimed along
        (released, due), claims = await asyncio.gather(releasing, asyncio.shield(self._begin_claim()))
        if max(released, len(claims)) >= _MANY:
            return 0.0  # there may be more
        nearest = min((time for time in (due, deadline, wanted) if time is not None), default=now + _LOOK_AT_LEAST)
        return min(_LOOK_AT_LEAST, max(0.0, nearest - self._clock.now()))

    def _begin_claim(self) -> asyncio.Task[list[Claim]]:
        claiming = asyncio.create_task(self._claim(), name="paddock-claim")
        self._claiming.add(claiming)
        claiming.add_done_callback(self._claiming.discard)
        return claiming

    async def _claim(self) -> list[Claim]:
        """Claim and hand over in one piece: a claim that nobody took would hold its slot until the next start."""
        claims = await self._store.claim(self._wanted(), self._clock.now())
        reach("server.claim.after")
        for claim in claims:
            self._launch(claim)
        return claims
