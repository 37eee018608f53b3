"""One execution of one instance: the durable core under every front end.

A front end walks its own code from the top and asks for each durable thing by a key: the step's name, its occurrence where the name was
used before (`name#2`), and the path of branches it stands in (`fulfill/shipping/ship`). The journal answers for what is acknowledged
(`replay.py`); the rest is done, noted, and answered, here; what has to wait may give the process back (`suspension.py`).

What ends an execution travels as a `BaseException`, so that a user's `except Exception` does not hold it up: `InterruptError`
when the instance suspends, `GiveBack` when its process is to end and the instance to go on in another.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from ..base.clock import Clock
from ..base.errors import InterruptError, NonDeterminismError, OpenTransaction, StepFailed, WaitTimeout
from ..base.probes import reach
from ..base.records import ErrorInfo
from ..base.values import Schema
from ..store.journal import Journal, StepRow
from ..store.ops import Progress, StepBegun, StepCompleted, StepRetrying
from ..store.ops import StepFailed as StepFailedOp
from .chunks import Chunks
from .failure import STOPPED, ProcessDied, cannot_get_better, contain, describe_error, recorded_error, recorded_failure
from .flow_tasks import FlowTasks
from .replay import VALUE_KINDS, Replay
from .retry import next_delay
from .step_call import GiveBack, Monitor, StepCall, Unwatched
from .suspension import Suspension
from .tries import outran, run_try, runs_on
from .writer import JournalWriter

__all__ = ["Execution"]

_TURN_SECONDS = 0.003
_PAUSED = "it is paused"


class Execution:
    """Run the steps of one instance, durably.

    Attributes:
        tasks: the tasks that the instance's code runs in.
        replay: where the code stands in the journal.
        suspension: its durable waits.
        chunks: its stream.
        draining: why this process is to end at the next step's boundary, None while it may go on.
        given_back: why it has been given back, None while the code goes on; what the code does after that counts for nothing.
        strands: how many groups of strands (`strands.py`) are on their way.
    """

    def __init__(
        self,
        journal: Journal,
        writer: JournalWriter,
        clock: Clock,
        *,
        max_payload: int,
        total_steps: int | None,
        suspend_after: float = 1.0,
        cancel_grace: float = 5.0,
        quiet: float = 0.02,
        killable: bool = False,
        monitor: Monitor | None = None,
        queued: Callable[[], None] = lambda: None,
        knows: Callable[[str], bool] = lambda _name: True,
        frontier: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Hold the parts.

        `killable` says that this process is the instance's own: what cannot be stopped otherwise may end it. `suspend_after` is the
        wait, in seconds, from which on the process is given back; `cancel_grace` how long a cancelled handler may take to stop;
        `quiet` how long nothing must go on before the instance suspends;
        `queued` is called when this instance has started another; `knows` tells whether a workflow is registered, as far as this
        process can tell; `frontier` is that of `Replay`.
        """
        self.journal = journal
        self.writer = writer
        self.clock = clock
        self.max_payload = max_payload
        self.total_steps = total_steps
        self.monitor: Monitor = monitor or Unwatched()
        self.queued = queued
        self.knows = knows
        self.cancel_grace = cancel_grace
        self.draining: str | None = None
        self.given_back: str | None = None
        self.strands = 0
        self.signals_taken: set[int] = set()
        self.tasks = FlowTasks()
        self.replay = Replay(journal, self.tasks, self.monitor.caught_up, frontier)
        writer.paused = self._pause
        self.suspension = Suspension(self.tasks, writer, clock, suspend_after, quiet)
        self.chunks = Chunks(writer, first=not journal.executions)
        self._killable = killable
        writer.newest = max((row.completed_at or 0.0 for row in journal.steps.values()), default=0.0)
        completed = [row for row in journal.steps.values() if row.status == "completed" and row.kind not in VALUE_KINDS]
        self._done = {self._counted(row.key) for row in completed}
        self._turned_at = 0.0
        self._pool: ThreadPoolExecutor | None = None

    @property
    def replaying(self) -> bool:
        """Tell whether steps that the journal holds as completed are still ahead of the code."""
        return bool(self.replay)

    @property
    def quiet(self) -> bool:
        """Tell whether this instance has nothing to do but to wait for its next commit."""
        return not self.suspension.running and not self.strands

    def _pause(self) -> None:
        self.draining = self.draining or _PAUSED

    def boundary(self) -> None:
        """Stop here where the process is to end: nothing is under way.

        Raises:
            GiveBack: it is.
        """
        if self.draining is not None:
            self.give_back(self.draining)

    def give_back(self, why: str) -> NoReturn:
        """End this execution for the instance to go on in another process.

        Raises:
            GiveBack: always.
        """
        self.given_back = self.given_back or why
        self.tasks.excuse()
        raise GiveBack(self.given_back)

    def left(self) -> NonDeterminismError | InterruptError | GiveBack | None:
        """Return what has ended this execution, None while it goes on.

        The code goes on without it where it took that for a result: by `asyncio.wait`, by `gather(..., return_exceptions=True)`.
        """
        if self.replay.mismatch is not None:
            return self.replay.mismatch
        if self.suspension.decided is not None:
            return InterruptError()
        return None if self.given_back is None else GiveBack(self.given_back)

    def waits_for_commit(self) -> bool:
        """Tell whether everything in this instance, its handlers included, waits for its next commit."""
        waiting = self.writer.waiting
        tries = {id(one) for one in waiting.values() if one is not None}
        return (
            bool(waiting)
            and len(tries) >= self.suspension.running
            and not self.tasks.busy({*waiting, self.writer.task})
        )

    def key(self, scope: str, name: str) -> str:
        """Hand out the journal key of the next use of `name` within `scope` (a path that ends with a slash, or empty)."""
        return self.replay.key(scope, name)

    def idempotency_key(self, key: str) -> str:
        """Return a key that is the same at every try of this step, and for no other step."""
        return f"{self.journal.id}:{key}"

    def recall(self, key: str, kind: str) -> StepRow | None:
        """Return what the journal holds under a key; the code has reached it now.

        Raises:
            NonDeterminismError: it is of another kind, or something before did not fit.
            InterruptError: the instance is suspending; nothing new begins.
            GiveBack: it goes on in another process.
        """
        if (left := self.left()) is not None:
            raise left
        return self.replay.recall(key, kind)

    # --- steps ---

    async def step(self, call: StepCall) -> Any:
        """Return a step's result: from the journal where it is acknowledged, else by running its handler.

        Raises:
            StepFailed: its tries are spent; the same on every replay.
            NonDeterminismError: the journal holds another kind of step under this key.
        """
        row = self.recall(call.key, call.kind)
        if row is not None:
            await self.replay.in_order(row)
        if row is not None and row.status == "completed":
            return self.recorded(row, call.output)
        if row is not None and row.status == "failed":
            raise recorded_failure(row)
        if row is None:
            await self.replay.arrive(call.key)
            row = self.journal.steps[call.key] = StepRow(call.key, call.name, call.kind, "new", input=call.input)
        else:
            await self.replay.resume()
            await self._take_up(call, row)
        while True:
            outcome = await self._try(call, row)
            if outcome is not _AGAIN:
                return outcome

    async def _take_up(self, call: StepCall, row: StepRow) -> None:
        """Take up a step that is open in the journal. One that was in flight when its process ended spends no retry by that."""
        if row.status == "retrying":
            if row.wake_at is not None:
                await self.suspension.park(row.wake_at)
        elif call.at_most_once:
            await self.fail(row, ProcessDied("its process ended while it ran, and it may run at most once"))
        elif row.failures and row.deadline_at is None and call.timeout is not None:
            # its process was ended because it outran its timeout (see `admission.py`): that was a try like any other
            facts = {**recorded_error(row).facts, "attempt": row.attempts}
            await self._after_failure(call, row, outran(call, facts))

    def recorded(self, row: StepRow, output: Schema) -> Any:
        """Return a completed step's result from the journal.

        Raises:
            NonDeterminismError: it does not fit its type any more.
        """
        return self.replay.decode(output, row.output or "null", f"the recorded output of step {row.key!r}", row.key)

    async def _try(self, call: StepCall, row: StepRow) -> Any:
        self.boundary()
        row.attempts += 1
        row.status = "running"
        self.chunks.again(call.key)
        deadline = None if call.timeout is None else self.clock.now() + call.timeout
        begun = StepBegun(call.key, call.name, call.kind, row.attempts, call.input, deadline, boundary=True)
        try:
            await self.begin(begun)
        except OpenTransaction as error:
            await self.fail(row, error)
        await self._let_others()
        reach("child.step.begun")
        try:
            with self.working(call.key, call.name, row.attempts, call.timeout):
                value = await run_try(call, row.attempts, self.journal, self.monitor, self.cancel_grace)
            text = call.output.encode(value, f"the output of step {call.key!r}", self.max_payload)
            result = call.output.decode(text, f"the output of step {call.key!r}")
        except Exception as error:  # noqa: BLE001  every failure of a handler is the step's
            return await self._failed_try(call, row, error)
        reach("child.step.returned")
        self.complete(row, text)
        return result

    async def begin(self, begun: StepBegun) -> None:
        """Let a step begin, once that is committed.

        Raises:
            GiveBack: the instance was paused before.
        """
        self.writer.add(begun)
        await self.writer.flush()
        if self.writer.has_refused(begun):
            self.give_back(_PAUSED)

    async def _let_others(self) -> None:
        """Give the loop a turn now and then, also where the user's code never does: a cancel and the heartbeat wait for one."""
        now = time.monotonic()
        if now - self._turned_at > _TURN_SECONDS:
            self._turned_at = now
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def working(self, key: str, name: str, attempt: int, timeout: float | None) -> Iterator[None]:
        """Note that a handler runs: while one does, the instance does not suspend, and its monitor knows the step."""
        self.monitor.step_begun(key, name, attempt, timeout)
        self.suspension.running += 1
        token = self.tasks.leave()
        try:
            yield
        finally:
            self.tasks.come_back(token)
            self.suspension.running -= 1
            self.monitor.step_ended(key)
            self.suspension.watch()

    def complete(self, row: StepRow, text: str, *, begin: bool = False, quiet: bool = False) -> None:
        """Note a step's end; `begin` for a step that had no row, `quiet` for one that no event tells of."""
        row.status, row.output = "completed", text
        self.journal.steps[row.key] = row
        if not quiet:
            self._done.add(self._counted(row.key))
        progress = None if quiet else self.progress(row.key)
        self.writer.add(StepCompleted(row.key, row.name, row.kind, text, progress, begin=begin, quiet=quiet))

    async def evaluate(self, key: str, name: str, kind: str, compute: Callable[[], Any], output: Schema) -> Any:
        """Return the result of something quick that has no effects (a condition, a transformation), computed once and journaled.

        Its beginning and its end are one operation, so it costs no commit of its own.

        Raises:
            StepFailed: it raised.
        """
        row = self.recall(key, kind)
        if row is not None and row.status == "completed":
            return self.recorded(row, output)
        if row is not None and row.status == "failed":
            raise recorded_failure(row)
        await self.replay.arrive(key)
        row = StepRow(key, name, kind, "new", attempts=1, failures=1)
        try:
            value = await contain(_computed(compute), GiveBack)
            text = output.encode(value, f"the output of step {key!r}", self.max_payload)
            result = output.decode(text, f"the output of step {key!r}")
        except Exception as error:  # noqa: BLE001  every failure of the user's function is the step's
            self.writer.add(StepBegun(key, name, kind, 1))
            await self.fail(row, error)
        self.complete(row, text, begin=True)
        return result

    def _counted(self, key: str) -> str:
        """Return what a step counts as: in a graph a visit is no new step."""
        return key if self.total_steps is None or "#" not in key else re.sub(r"#\d+", "", key)

    def progress(self, current: str | None = None) -> Progress:
        """Return how far the instance is."""
        done = len(self._done)
        percent = min(100.0, round(100 * done / self.total_steps, 1)) if self.total_steps else 0.0
        return Progress(percent, done, self.total_steps, current)

    async def _failed_try(self, call: StepCall, row: StepRow, error: Exception) -> Any:
        row.failures += 1
        return await self._after_failure(call, row, error)

    async def _after_failure(self, call: StepCall, row: StepRow, error: Exception) -> Any:
        delay = None if cannot_get_better(error) else next_delay(call.retry, row.failures, error)
        if delay is None:
            await self.fail(row, error)
        wake_at = self.clock.now() + (delay or 0)
        row.status, row.wake_at = "retrying", wake_at
        self.writer.add(
            StepRetrying(
                call.key,
                call.name,
                call.kind,
                row.attempts,
                row.failures,
                call.retry.max_attempts,
                describe_error(error, call.key),
                delay or 0.0,
                wake_at,
            )
        )
        await self._leave_if_stuck(error)
        await self.suspension.park(wake_at)
        return _AGAIN

    async def fail(self, row: StepRow, error: Exception) -> NoReturn:
        """Note that a step's tries are spent, and raise the failure that every replay will raise.

        Raises:
            StepFailed: always.
        """
        info = describe_error(error, row.key)
        row.status, row.error = "failed", info.model_dump_json()
        self.writer.add(StepFailedOp(row.key, row.name, row.kind, info, row.failures, row.attempts))
        traceback.clear_frames(error.__traceback__)  # what its code held open (a transaction) ends with it
        await self._leave_if_stuck(error)
        if isinstance(error, WaitTimeout):
            error.paddock_step = row.key
            raise error
        raise StepFailed(
            info.step or row.key, info.type, info.message, row.attempts, info.traceback, info.facts
        ) from error

    def stop(self, row: StepRow, why: str) -> None:
        """Note that an open step was ended because another one beside it had failed."""
        info = ErrorInfo(type=STOPPED, message=why, step=row.key)
        row.status, row.error = "failed", info.model_dump_json()
        self.writer.add(StepFailedOp(row.key, row.name, row.kind, info, row.failures))

    async def open(self, key: str, name: str, kind: str) -> StepRow:
        """Return the row of a step that holds others (a `parallel`), begun where it is new; its end is `complete` or `fail`.

        Raises:
            NonDeterminismError: it is new, and a recorded step was not reached.
        """
        row = self.recall(key, kind)
        if row is None:
            await self.replay.arrive_around(key)
            row = self.journal.steps[key] = StepRow(key, name, kind, "running", attempts=1)
            self.writer.add(StepBegun(key, name, kind, 1))
        return row

    async def _leave_if_stuck(self, error: Exception) -> None:
        """Give the process back when a timed-out handler still runs in it: only the process's end stops that one."""
        if self._killable and runs_on(error):
            await self.writer.flush()
            self.give_back(str(error))

    # --- the end ---

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads in which plain functions run, made at the first use."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="paddock-step")
        return self._pool

    def close(self) -> None:
        """Let go of the threads; what still runs in them runs on."""
        self.suspension.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


async def _computed(compute: Callable[[], Any]) -> Any:
    value = compute()
    return await value if inspect.isawaitable(value) else value


_AGAIN = object()
