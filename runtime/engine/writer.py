"""The journal's writer: what the engine notes within one turn of the loop becomes one commit.

A step's end and the next step's beginning fall into the same turn, so they are one transaction; branches that run side by side share
commits. Nothing that the outside can see (a handler's first line, the process's exit) happens before the commit that it stands on:
the engine awaits `flush` there, and only there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..base.clock import Clock
from ..base.probes import reach
from ..store.ops import Lease, Op
from ..store.protocol import JournalStore

__all__ = ["JournalWriter"]


class JournalWriter:
    """Write one instance's journal.

    Attributes:
        direct: asked before each commit whether this thread may wait for it, which saves two switches of threads.

    Args:
        store: where to.
        lease: under which right.
        clock: stamps each commit.
        committed: called on the loop with the newest event's id after each commit.
        before: called right before each commit is cut; it may add operations (what the process has printed).
    """

    def __init__(
        self,
        store: JournalStore,
        lease: Lease,
        clock: Clock,
        committed: Callable[[int], None],
        before: Callable[[], None] | None = None,
    ) -> None:
        """Hold the parts; nothing is written yet."""
        self.store = store
        self.lease = lease
        self._clock = clock
        self._committed = committed
        self._before = before
        self._pending: list[Op] = []
        self._later: list[Op] = []
        self._next: asyncio.Future[None] | None = None
        self._current: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._kicked = False
        self.direct: Callable[[], bool] = lambda: False
        self.broken: BaseException | None = None

    def add(self, op: Op) -> None:
        """Note an operation; it is committed with what else this turn of the loop notes."""
        if self._later:
            self._pending += self._later
            self._later = []
        self._pending.append(op)
        if not self._kicked:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._kick)

    def add_later(self, op: Op) -> None:
        """Note an operation that is committed with the next one that `add` notes, and with none if there is no such.

        For what code between durable calls tells: if that code is to run again, it was never told; if not, it is told once.
        """
        self._later.append(op)

    async def flush(self) -> None:
        """Return once everything noted so far is committed.

        Raises:
            LeaseLost: this executor was replaced, or its instance has ended.
            DatabaseUnavailable: the fate of the last commit is unknown; the process must end and read again.
        """
        if self.broken is not None:
            raise self.broken
        if self._pending and self._task is None and self.direct():
            self._kick()
            if self.broken is not None:
                raise self.broken
            return
        if self._pending:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next)
        elif self._current is not None:
            await asyncio.shield(self._current)

    def _kick(self) -> None:
        self._kicked = False
        if self._task is not None or not self._pending or self.broken is not None:
            self._refuse()
            return
        if self._before is not None:
            self._before()
        batch, self._pending = self._pending, []
        self._current = self._next or asyncio.get_running_loop().create_future()
        self._next = None
        if self.direct():
            self._commit_now(batch, self._current)
        else:
            self._task = asyncio.create_task(self._commit(batch, self._current), name="paddock-commit")

    def _commit_now(self, batch: list[Op], done: asyncio.Future[None]) -> None:
        """Commit in this thread: nothing in this process could use the loop meanwhile."""
        try:
            event_id = self.store.commit_now(self.lease, batch, self._clock.now())
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the commit
            self._break(done, error)
        else:
            self._settled(done, event_id)
        finally:
            self._current = None

    async def _commit(self, batch: list[Op], done: asyncio.Future[None]) -> None:
        try:
            event_id = await self.store.commit(self.lease, batch, self._clock.now())
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the commit
            self._break(done, error)
        else:
            self._settled(done, event_id)
        finally:
            self._task = self._current = None
            if self._pending:
                self._kick()

    def _break(self, done: asyncio.Future[None], error: BaseException) -> None:
        self.broken = error
        done.set_exception(error)
        done.exception()  # seen: nobody need be waiting

    def _settled(self, done: asyncio.Future[None], event_id: int) -> None:
        reach("child.commit.after")
        done.set_result(None)
        self._committed(event_id)

    def _refuse(self) -> None:
        """Wake who waits for a commit that will not come."""
        if self.broken is not None and self._next is not None:
            self._next.set_exception(self.broken)
            self._next.exception()
            self._next = None
