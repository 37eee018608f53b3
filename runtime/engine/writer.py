"""The journal's writer: what the engine notes within one turn of the loop becomes one commit.

A step's end and the next step's beginning fall into the same turn, so they are one transaction; branches that run side by side share
commits. Nothing that the outside can see (a handler's first line, the process's exit) happens before the commit that it stands on:
the engine awaits `flush` there, and only there.

A commit waits for the database's write lock as long as it takes. Where code of this very instance holds that lock and waits for the
commit, it would wait for ever: such a wait is ended with an `OpenTransaction`, so that the code can end its transaction. The commit
itself goes on.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from ..base.clock import Clock
from ..base.errors import OpenTransaction
from ..base.probes import reach
from ..store.journal import PauseWanted
from ..store.ops import Lease, Op, StepBegun
from ..store.protocol import JournalStore, WouldWait
from .step_call import CURRENT_STEP

__all__ = ["JournalWriter"]

_SOON = 0.25
_TICK = 1e-6
_HELD = (
    "the code of this instance holds a write transaction on Paddock's database while it waits for a durable call, which waits for that "
    "transaction: commit it before the call, make it within a step, or keep your tables in a file of their own"
)


class JournalWriter:
    """Write one instance's journal.

    Attributes:
        direct: asked before each commit whether this thread may wait for it, which saves two switches of threads.
        stuck: asked after `patience` seconds of a commit whether it waits for code that waits for it; None where nobody can tell.
        let_go: called where the instance's code is over and has left its transaction open.
        newest: the time of the last commit; the next one's is no earlier.
        task: the one that commits, while one does.
        paused: called once where the instance is to pause before a step that would begin.
        waiting: the tasks that wait for a commit, each with the try of a step that it belongs to.

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
        self.task: asyncio.Task[None] | None = None
        self._kicked = False
        self._timer: asyncio.TimerHandle | None = None
        self.direct: Callable[[], bool] = lambda: False
        self.stuck: Callable[[], bool] | None = None
        self.paused: Callable[[], None] = lambda: None
        #: Whether the loop's own thread is in a commit, where it may wait for others' writing.
        self.on_loop = False
        self._refused: list[Op] = []
        self.let_go: Callable[[], None] = lambda: None
        self.patience = 5.0
        self.newest = 0.0
        self.waiting: dict[asyncio.Task[object] | None, object] = {}
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
            OpenTransaction: the code that waits holds the write lock itself.
        """
        if self.broken is not None:
            raise self.broken
        if self._pending and self.task is None and self.direct():
            self._kick()
            if self.broken is not None:
                raise self.broken
        awaited = self._current
        if self._pending:
            awaited = self._next = self._next or asyncio.get_running_loop().create_future()
        if awaited is None:
            return
        task = asyncio.current_task()
        self.waiting[task] = CURRENT_STEP.get()
        try:
            await asyncio.shield(awaited)
        finally:
            self.waiting.pop(task, None)

    def _kick(self) -> None:
        self._kicked = False
        if self.task is not None or not self._pending or self.broken is not None:
            self._refuse()
            return
        if self._before is not None:
            self._before()
        batch, self._pending = self._pending, []
        self._current, self._next = self._next, None
        if not self.direct() or not self._commit_now(batch):
            self._current = self._current or asyncio.get_running_loop().create_future()
            self.task = asyncio.create_task(self._commit(batch), name="paddock-commit")

    def _commit_now(self, batch: list[Op]) -> bool:
        """Commit in this thread, for nothing in this process could use the loop meanwhile; False where that would have to wait."""
        self.on_loop = True
        try:
            event_id = self.store.commit_now(self.lease, batch, self._now(batch))
        except WouldWait:
            return False
        except PauseWanted:
            return False  # the other way knows what to do
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the commit
            self._break(error)
        else:
            self._settled(event_id)
        finally:
            self.on_loop = False
        self._current = None
        return True

    async def _commit(self, batch: list[Op]) -> None:
        if self.stuck is not None:
            self._look_later(self.patience)
        try:
            try:
                event_id = await self.store.commit(self.lease, batch, self._now(batch))
            except PauseWanted:
                event_id = await self.store.commit(self.lease, self._held_back(batch), self._now(batch))
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the commit
            self._break(error)
        else:
            self._settled(event_id)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.task = self._current = None
            if self._pending:
                self._kick()

    def _now(self, batch: list[Op]) -> float:
        """Return the time of a commit: later than the last one's, also where the clock was set back; a replay goes by these times.

        By a tick for each operation: what ends in one commit is told apart by ticks.
        """
        self.newest = max(self._clock.now(), self.newest + len(batch) * _TICK)
        return self.newest

    def _held_back(self, batch: list[Op]) -> list[Op]:
        """Return a batch without the steps that would begin: the pause comes before them."""
        self._refused = [op for op in batch if isinstance(op, StepBegun) and op.boundary]
        self.paused()
        return [op for op in batch if op not in self._refused]

    def has_refused(self, op: Op) -> bool:
        """Tell whether a step did not begin, because a pause came before it."""
        return any(one is op for one in self._refused)

    def _look_later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """End the waits for a commit that waits for those who wait."""
        if self.stuck is None or not self.stuck():
            self._look_later(self.patience)
            return
        gc.collect()  # up to Python 3.11 a connection that was dropped, its transaction open, lies in a cycle with its own cache
        if self.stuck():
            for future in (self._current, self._next):
                if future is not None:
                    _end(future, OpenTransaction(_HELD))
            self._current, self._next = asyncio.get_running_loop().create_future(), None
        self._look_later(_SOON)

    def _break(self, error: BaseException) -> None:
        self.broken = error
        if self._current is not None:
            _end(self._current, error)

    def _settled(self, event_id: int) -> None:
        reach("child.commit.after")
        if self._current is not None:
            self._current.set_result(None)
        self._committed(event_id)

    def _refuse(self) -> None:
        """Wake who waits for a commit that will not come."""
        if self.broken is not None and self._next is not None:
            _end(self._next, self.broken)
            self._next = None


def _end(future: asyncio.Future[None], error: BaseException) -> None:
    future.set_exception(error)
    future.exception()  # seen: nobody need be waiting
