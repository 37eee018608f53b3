"""One execution of one instance: the durable core under every front end.

A front end walks its own code from the top and asks for each durable thing by a key: the step's name, its occurrence where the name was
used before (`name#2`), and the path of branches it stands in (`fulfill/shipping/ship`). The journal answers for what is acknowledged;
the rest is done, noted, and answered. Keys are handed out when the code asks, not when it awaits, so the order in which side-by-side
work finishes cannot change them.

What ends an execution travels as a `BaseException`, so that a user's `except Exception` does not hold it up: `InterruptError`
when the instance suspends, `GiveBack` when its process is to end and the instance to go on in another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from ..base.clock import Clock
from ..base.errors import (
    InterruptError,
    NonDeterminismError,
    OutcomeError,
    PaddockError,
    StepFailed,
    StepTimeout,
    WaitTimeout,
)
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.values import Schema
from ..store.journal import Journal, StepRow
from ..store.ops import (
    Emitted,
    Progress,
    StepBegun,
    StepCompleted,
    StepRetrying,
)
from ..store.ops import (
    StepFailed as StepFailedOp,
)
from .failure import contain, error_name, error_text
from .retry import Retry, next_delay
from .writer import JournalWriter

__all__ = [
    "CURRENT_STEP",
    "STOPPED",
    "STRAND",
    "VALUE_KINDS",
    "Execution",
    "GiveBack",
    "Monitor",
    "StepCall",
    "describe_error",
    "recorded_failure",
]

_TRACEBACK_LIMIT = 16_000
_MESSAGE_LIMIT = 4000
_LOOK_SECONDS = 0.25
_STRAND_SECONDS = 10.0
_REPLAY_TURNS = 10
_CATCH_UP_TURNS = 40
_TURN_SECONDS = 0.003

#: Kinds of rows that hold a value which the code asked for by a plain call: no steps in a person's eyes.
VALUE_KINDS = frozenset({"now", "random", "uuid4", "rng", "patched", "update", "emit", "metadata"})

#: The keys that each strand around the running code has asked for, the outermost first.
STRAND: contextvars.ContextVar[tuple[set[str], ...]] = contextvars.ContextVar("paddock_strand", default=())

#: The error type of a step that was ended because another one beside it had failed.
STOPPED = "Stopped"

#: The step that the running code belongs to: (name, attempt). Log records take it from here.
CURRENT_STEP: contextvars.ContextVar[tuple[str, int] | None] = contextvars.ContextVar("paddock_step", default=None)


class GiveBack(BaseException):
    """End this process; the instance goes on in another.

    Attributes:
        reason: for the log.
        step_timed_out: a handler outran its step's timeout and cannot be stopped within the process.
    """

    def __init__(self, reason: str, *, step_timed_out: bool = False) -> None:
        """Say why."""
        super().__init__(reason)
        self.reason = reason
        self.step_timed_out = step_timed_out


class Monitor(Protocol):
    """Who watches this execution from outside (the heartbeat slot of a child; nobody when inline)."""

    def step_begun(self, key: str, name: str, attempt: int, timeout: float | None) -> None:
        """Note the step that runs and how many seconds it may take."""
        ...

    def step_ended(self, key: str) -> None:
        """Note that a step has ended."""
        ...

    def caught_up(self) -> None:
        """Note that the code is about to leave behind what the journal holds; up to here it has done nothing new."""
        ...


class _Unwatched:
    def step_begun(self, key: str, name: str, attempt: int, timeout: float | None) -> None:
        """Ignore it."""

    def step_ended(self, key: str) -> None:
        """Ignore it."""

    def caught_up(self) -> None:
        """Ignore it."""


@dataclass(slots=True)
class _Parked:
    """One wait: until when, and since when it has not looked (None for a wait that only time ends)."""

    wake_at: float | None
    looked_at: float | None


@dataclass(slots=True)
class StepCall:
    """One step as a front end asks for it. `run` gets the attempt's number; `input` is what the journal shows, as JSON text."""

    key: str
    name: str
    kind: str
    run: Callable[[int], Awaitable[Any]]
    output: Schema
    input: str | None = None
    retry: Retry = field(default_factory=lambda: Retry(max_attempts=1))
    timeout: float | None = None
    at_most_once: bool = False
    stoppable: bool = True


class Execution:
    """Run the steps of one instance, durably."""

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
    ) -> None:
        """Hold the parts.

        `killable` says that this process is the instance's own: what cannot be stopped otherwise may end it. `suspend_after` is the
        wait, in seconds, from which on the process is given back; `cancel_grace` how long a cancelled handler may take to stop;
        `quiet` how long nothing must go on before the instance suspends;
        `queued` is called when this instance has started another.
        """
        self.journal = journal
        self.writer = writer
        self.clock = clock
        self.max_payload = max_payload
        self.total_steps = total_steps
        self.monitor: Monitor = monitor or _Unwatched()
        self.queued = queued
        self.draining: str | None = None
        self.suspended: tuple[Status, float | None] | None = None
        self._suspend_after = suspend_after
        self._quiet = quiet
        self.cancel_grace = cancel_grace
        self._killable = killable
        self._occurrences: dict[str, int] = {}
        self._ahead = dict(journal.steps)
        completed = [row for row in journal.steps.values() if row.status == "completed" and row.kind not in VALUE_KINDS]
        self._done = {self._counted(row.key) for row in completed}
        self._running = 0
        self._brief = 0
        self._turned_at = 0.0
        self.strands = 0
        self._strand_tasks: set[asyncio.Task[Any]] = set()
        self._waiting_tasks: set[asyncio.Task[Any] | None] = set()
        self._active_at = 0.0
        self.mismatch: NonDeterminismError | None = None
        self._caught_up = not journal.steps
        self._told: set[asyncio.Task[Any] | None] = set()
        self._parked: dict[asyncio.Future[None], _Parked] = {}
        self._check: asyncio.TimerHandle | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._streamed: dict[str, int] | None = None
        self._passed: dict[str, int] = {}
        self._stream_index = 0
        self._stream_lock = asyncio.Lock()
        self.signals_taken: set[int] = set()

    # --- identity ---

    def key(self, scope: str, name: str) -> str:
        """Hand out the journal key of the next use of `name` within `scope` (a path that ends with a slash, or empty)."""
        base = scope + name
        count = self._occurrences[base] = self._occurrences.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"

    def idempotency_key(self, key: str) -> str:
        """Return a key that is the same at every try of this step, and for no other step."""
        return f"{self.journal.id}:{key}"

    @property
    def replaying(self) -> bool:
        """Tell whether steps that the journal holds as completed are still ahead of the code."""
        return bool(self._ahead)

    async def arrive(self, key: str) -> None:
        """Let a step begin that the journal does not hold: all that it does hold must have been reached before.

        Strands that run side by side replay within a few turns of the loop; they get those turns.

        Raises:
            NonDeterminismError: a recorded step was not reached.
        """
        if self._ahead:
            await self.settle_replay()
            for row in self._ahead.values():
                if row.kind not in VALUE_KINDS and not _was_stopped(row):
                    self._mismatched(
                        f"the code asks for the new step {key!r}, but the journal holds {row.kind} {row.key!r}, which the code has not "
                        "reached; guard the change with ctx.patched(), or finish these instances with the code that began them"
                    )
            self._leave_behind(
                list(self._ahead)
            )  # values that nobody asks for any more, and steps that were stopped, hold nothing up
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Beside other strands, let the replay come to an end before anything begins: a recorded failure may stop this strand."""
        if self.strands and not self._caught_up:
            for _ in range(_CATCH_UP_TURNS):
                await asyncio.sleep(0)
            self._caught_up = True

    def _mismatched(self, message: str) -> NoReturn:
        """Raise what blocks the instance; the user's code cannot catch it for good."""
        self.mismatch = NonDeterminismError(message)
        raise self.mismatch

    async def settle_replay(self) -> None:
        """Give every strand the turns that it needs to replay what the journal holds."""
        quiet, left = 0, len(self._ahead)
        while self._ahead and quiet < _REPLAY_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._ahead) == left else 0
            left = len(self._ahead)

    def reach(self, key: str) -> None:
        """Note that the code has come to a key."""
        self._leave_behind([key])

    def _leave_behind(self, keys: list[str]) -> None:
        if self._ahead and self._ahead.keys() <= set(keys):
            self.monitor.caught_up()
        for key in keys:
            self._ahead.pop(key, None)

    # --- steps ---

    async def step(self, call: StepCall) -> Any:
        """Return a step's result: from the journal where it is acknowledged, else by running its handler.

        Raises:
            StepFailed: its tries are spent; the same on every replay.
            NonDeterminismError: the journal holds another kind of step under this key.
        """
        row = self.recall(call.key, call.kind)
        if row is not None and row.status == "completed":
            return call.output.decode(row.output or "null", f"the recorded output of step {call.key!r}")
        if row is not None and row.status == "failed":
            raise recorded_failure(row)
        if row is None:
            await self.arrive(call.key)
            row = self.journal.steps[call.key] = StepRow(call.key, call.name, call.kind, "new", input=call.input)
        elif row.status == "retrying" and row.wake_at is not None:
            await self._catch_up()
            await self.park(row.wake_at)
        elif row.status == "running":
            await self._catch_up()
            if row.failures and row.deadline_at is None and call.timeout is not None and not call.at_most_once:
                # its process was ended because it outran its timeout (see `admission.py`): that was a try like any other
                await self._after_failure(
                    call, row, StepTimeout(f"step {call.key!r} took longer than {call.timeout:g}s")
                )
            else:
                await self._interrupted(call, row)
        while True:
            outcome = await self._try(call, row)
            if outcome is not _AGAIN:
                return outcome

    def recall(self, key: str, kind: str) -> StepRow | None:
        """Return what the journal holds under a key; the code has reached it now.

        Raises:
            NonDeterminismError: it is of another kind.
            InterruptError: the instance is suspending; nothing new begins.
        """
        if self.mismatch is not None:
            raise self.mismatch
        if self.suspended is not None:
            self._refuse_to_go_on(self.clock.now())
        self.reach(key)
        for keys in STRAND.get():
            keys.add(key)
        row = self.journal.steps.get(key)
        if row is not None and row.kind != kind:
            self._mismatched(
                f"the code asks for a {kind} under the key {key!r}, but the journal holds a {row.kind} there; "
                "guard the change with ctx.patched(), or finish these instances with the code that began them"
            )
        if row is not None and row.status in ("completed", "failed"):
            # what is over is not entered again
            self._leave_behind([inner for inner in self._ahead if inner.startswith(f"{key}/")])
        return row

    async def _interrupted(self, call: StepCall, row: StepRow) -> None:
        """Take up a step that was in flight when its process ended: that spends no retry."""
        if call.at_most_once:
            await self.fail(row, PaddockError("its process died while it ran, and it may run at most once"))

    async def _try(self, call: StepCall, row: StepRow) -> Any:
        if self.draining is not None:
            raise GiveBack(self.draining)
        row.attempts += 1
        row.status = "running"
        self._passed.pop(call.key, None)
        deadline = None if call.timeout is None else self.clock.now() + call.timeout
        self.writer.add(StepBegun(call.key, call.name, call.kind, row.attempts, call.input, deadline))
        await self.writer.flush()
        await self._let_others()
        reach("child.step.begun")
        try:
            async with self.working(call.key, call.name, row.attempts, call.timeout):
                value = await self._attempt(call, row.attempts)
            text = call.output.encode(value, f"the output of step {call.key!r}", self.max_payload)
            result = call.output.decode(text, f"the output of step {call.key!r}")
        except Exception as error:  # noqa: BLE001  every failure of a handler is the step's
            return await self._failed_try(call, row, error)
        reach("child.step.returned")
        self.complete(row, text)
        return result

    @property
    def quiet(self) -> bool:
        """Tell whether this instance has nothing to do but to wait for its next commit."""
        return not self._running and not self.strands

    async def _let_others(self) -> None:
        """Give the loop a turn now and then, also where the user's code never does: a cancel and the heartbeat wait for one."""
        now = time.monotonic()
        if now - self._turned_at > _TURN_SECONDS:
            self._turned_at = now
            await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def working(self, key: str, name: str, attempt: int, timeout: float | None) -> AsyncIterator[None]:
        """Note that a handler runs: while one does, the instance does not suspend, and its monitor knows the step."""
        self.monitor.step_begun(key, name, attempt, timeout)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self.monitor.step_ended(key)
            self._watch_quiet()

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
            return output.decode(row.output or "null", f"the recorded output of step {key!r}")
        if row is not None and row.status == "failed":
            raise recorded_failure(row)
        await self.arrive(key)
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
        return key if self.total_steps is None else re.sub(r"#\d+", "", key)

    def progress(self, current: str | None = None) -> Progress:
        """Return how far the instance is."""
        done = len(self._done)
        percent = min(100.0, round(100 * done / self.total_steps, 1)) if self.total_steps else 0.0
        return Progress(percent, done, self.total_steps, current)

    async def _attempt(self, call: StepCall, attempt: int) -> Any:
        """Run one try; one with a timeout in a task of its own, so that it can be left behind."""
        token = CURRENT_STEP.set((call.name, attempt))
        try:
            if call.timeout is None:
                return await contain(call.run(attempt), GiveBack)
            task = asyncio.ensure_future(contain(call.run(attempt), GiveBack))
        finally:
            CURRENT_STEP.reset(token)
        try:
            await asyncio.wait({task}, timeout=call.timeout)
        except asyncio.CancelledError:
            await self._stop(task)
            raise
        if task.done():
            return task.result()
        self.monitor.step_begun(
            call.key, call.name, attempt, None
        )  # the cancel's grace counts from here, not the deadline
        stopped = await self._stop(task) if call.stoppable else False
        raise _Overtime(call, stopped=stopped)

    async def _stop(self, task: asyncio.Future[Any]) -> bool:
        """Cancel a handler and give it `cancel_grace` to clean up; tell whether it ended."""
        task.cancel()
        await asyncio.wait({task}, timeout=self.cancel_grace)
        if task.done() and not task.cancelled():
            task.exception()  # seen: the timeout or the cancel is what counts
        return task.done()

    async def _failed_try(self, call: StepCall, row: StepRow, error: Exception) -> Any:
        row.failures += 1
        return await self._after_failure(call, row, error)

    async def _after_failure(self, call: StepCall, row: StepRow, error: Exception) -> Any:
        delay = next_delay(call.retry, row.failures, error)
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
        await self.park(wake_at)
        return _AGAIN

    async def fail(self, row: StepRow, error: Exception) -> NoReturn:
        """Note that a step's tries are spent, and raise the failure that every replay will raise.

        Raises:
            StepFailed: always.
        """
        info = describe_error(error, row.key)
        row.status, row.error = "failed", info.model_dump_json()
        self.writer.add(StepFailedOp(row.key, row.name, row.kind, info, row.failures, row.attempts))
        await self._leave_if_stuck(error)
        if isinstance(error, WaitTimeout):
            error.paddock_step = row.key
            raise error
        raise StepFailed(info.step or row.key, info.type, info.message, row.attempts, info.traceback) from error

    def stop(self, row: StepRow, why: str) -> None:
        """Note that an open step was ended because another one beside it had failed."""
        info = ErrorInfo(type=STOPPED, message=why, step=row.key)
        row.status, row.error = "failed", info.model_dump_json()
        self.writer.add(StepFailedOp(row.key, row.name, row.kind, info, row.failures))

    def open(self, key: str, name: str, kind: str) -> StepRow:
        """Return the row of a step that holds others (a `parallel`), begun where it is new; its end is `complete` or `fail`."""
        row = self.recall(key, kind)
        if row is None:
            row = self.journal.steps[key] = StepRow(key, name, kind, "running", attempts=1)
            self.writer.add(StepBegun(key, name, kind, 1))
        return row

    async def _leave_if_stuck(self, error: Exception) -> None:
        """Give the process back when a timed-out handler still runs in it: only the process's end stops that one."""
        if isinstance(error, _Overtime) and not error.stopped and self._killable:
            await self.writer.flush()
            raise GiveBack(str(error))

    # --- streaming ---

    async def stream(self, key: str, value: Any) -> None:
        """Send one chunk of a step (or of the flow, with an empty key), unless this place has sent it in an earlier execution."""
        async with self._stream_lock:
            if self._streamed is None:
                self._streamed = await self.writer.store.streamed(self.writer.lease) if self.journal.executions else {}
                self._stream_index = sum(self._streamed.values())
            sent = self._passed.get(key, 0)
            self._passed[key] = sent + 1
            if sent < self._streamed.get(key, 0):
                return
            data = {"index": self._stream_index, "chunk": value, **({"step": key} if key else {})}
            self._stream_index += 1
            self._streamed[key] = sent + 1
            self.writer.add(Emitted("workflow.stream", data))
            await self.writer.flush()

    # --- waiting ---

    async def park(self, wake_at: float | None, *, look: bool = False) -> None:
        """Wait until `wake_at` (wall-clock seconds), within the process while that is soon, else by suspending the instance.

        With `look` it also returns when something may have come for the instance, and now and then: the caller looks and parks again.

        Raises:
            InterruptError: the instance suspends; its next execution comes back to this place.
        """
        if self.suspended is not None:
            self._refuse_to_go_on(wake_at)
        if wake_at is not None and wake_at - self.clock.now() <= self._suspend_after and not look:
            await self._wait_briefly(wake_at)
            return
        loop = asyncio.get_running_loop()
        ticket: asyncio.Future[None] = loop.create_future()
        self._parked[ticket] = _Parked(wake_at, loop.time() if look else None)
        self._watch_quiet()
        try:
            with self.waiting():
                await ticket
        except InterruptError:
            self.told()
            raise
        finally:
            self._parked.pop(ticket, None)

    @contextlib.contextmanager
    def waiting(self, strands: Collection[asyncio.Task[Any]] = ()) -> Iterator[None]:
        """Note that the running task only waits: for something durable, or for the strands that it has begun."""
        task = asyncio.current_task()
        self._waiting_tasks.add(task)
        self._strand_tasks.update(strands)
        try:
            yield
        finally:
            self._waiting_tasks.discard(task)
            self._strand_tasks.difference_update(strands)

    def told(self) -> None:
        """Note that the running task knows of the suspension: what it still asks for on its way out wakes nobody."""
        self._told.add(asyncio.current_task())

    def _refuse_to_go_on(self, wake_at: float | None) -> NoReturn:
        """Stop a strand that comes to a durable call while the instance suspends.

        It was busy without our knowledge (in an await of the user's own), so the instance must come back for it.
        """
        if asyncio.current_task() not in self._told and self.suspended is not None and wake_at is not None:
            status, nearest = self.suspended
            self.suspended = (status, wake_at if nearest is None else min(nearest, wake_at))
        raise InterruptError

    async def _wait_briefly(self, wake_at: float) -> None:
        self._brief += 1
        try:
            await self.writer.flush()
            reach("child.waiting")
            while (left := wake_at - self.clock.now()) > 0:
                await self.clock.sleep(left)
        finally:
            self._brief -= 1
            self._watch_quiet()

    def nudge(self) -> None:
        """Let every wait look again: something may have come for the instance."""
        for ticket, parked in self._parked.items():
            if parked.looked_at is not None and not ticket.done():
                ticket.set_result(None)

    def _watch_quiet(self) -> None:
        """Suspend once nothing in this instance can go on; until then look again."""
        self._active_at = asyncio.get_running_loop().time()
        self._look_later()

    def _look_later(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._parked:
            pause = _LOOK_SECONDS if self._running or self._brief else self._quiet
            self._check = asyncio.get_running_loop().call_later(pause, self._suspend_if_quiet)

    def _suspend_if_quiet(self) -> None:
        self._check = None
        if not self._parked or self.suspended is not None:
            return
        now, moment = self.clock.now(), asyncio.get_running_loop().time()
        for ticket, parked in self._parked.items():
            due = parked.wake_at is not None and parked.wake_at <= now
            stale = parked.looked_at is not None and moment - parked.looked_at >= _LOOK_SECONDS
            if (due or stale) and not ticket.done():
                ticket.set_result(None)
        times = [parked.wake_at for parked in self._parked.values() if parked.wake_at is not None]
        nearest = min(times, default=None)
        soon = nearest is not None and nearest - now <= self._suspend_after
        busy = self._running or self._brief or soon or any(ticket.done() for ticket in self._parked)
        if busy or (self._strand_computes() and moment - self._active_at < _STRAND_SECONDS):
            self._look_later()
            return
        timed = all(parked.looked_at is None for parked in self._parked.values())
        self.suspended = (Status.SLEEPING if timed else Status.WAITING, nearest)
        for ticket in self._parked:
            ticket.set_exception(InterruptError())

    def _strand_computes(self) -> bool:
        """Tell whether a strand neither waits nor has ended: it is in an await of the user's own."""
        return any(not task.done() and task not in self._waiting_tasks for task in self._strand_tasks)

    # --- the end ---

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads in which plain functions run, made at the first use."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="paddock-step")
        return self._pool

    def close(self) -> None:
        """Let go of the threads; what still runs in them runs on."""
        if self._check is not None:
            self._check.cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


async def _computed(compute: Callable[[], Any]) -> Any:
    value = compute()
    return await value if inspect.isawaitable(value) else value


class _Overtime(StepTimeout):
    def __init__(self, call: StepCall, *, stopped: bool) -> None:
        super().__init__(f"step {call.key!r} took longer than {call.timeout:g}s")
        self.stopped = stopped


_AGAIN = object()


def _was_stopped(row: StepRow) -> bool:
    """Tell whether a step was ended because another one beside it had failed."""
    return (
        row.status == "failed"
        and ErrorInfo.model_validate_json(row.error or '{"type": "", "message": ""}').type == STOPPED
    )


def recorded_failure(row: StepRow) -> OutcomeError:
    """Return the failure that the journal holds: the same at every replay."""
    info = ErrorInfo.model_validate_json(row.error or '{"type": "Unknown", "message": ""}')
    if info.type == WaitTimeout.__name__:
        error = WaitTimeout(info.message)
        error.paddock_step = row.key
        return error
    return StepFailed(info.step or row.key, info.type, info.message, row.attempts, info.traceback)


def describe_error(error: BaseException, step: str | None = None) -> ErrorInfo:
    """Return the structured form of an exception; a `StepFailed` keeps the type and message of what its step raised."""
    if isinstance(error, StepFailed):
        return ErrorInfo(type=error.type, message=error.message, step=error.step, traceback=error.traceback)
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return describe_error(error.exceptions[0], step)
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    message = error_text(error)[:_MESSAGE_LIMIT]
    return ErrorInfo(type=error_name(error), message=message, step=step, traceback=text[-_TRACEBACK_LIMIT:])
