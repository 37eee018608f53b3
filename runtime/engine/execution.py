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
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from ..base.clock import Clock
from ..base.errors import InterruptError, NonDeterminismError, PaddockError, StepFailed, StepTimeout
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.values import Schema
from ..store.journal import Journal, StepRow
from ..store.ops import (
    Progress,
    StepBegun,
    StepCompleted,
    StepRetrying,
)
from ..store.ops import (
    StepFailed as StepFailedOp,
)
from .retry import Retry, next_delay
from .writer import JournalWriter

__all__ = ["CURRENT_STEP", "Execution", "GiveBack", "Monitor", "StepCall", "describe_error", "recorded_failure"]

_TRACEBACK_LIMIT = 16_000
_QUIET_SECONDS = 0.02

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


class _Unwatched:
    def step_begun(self, key: str, name: str, attempt: int, timeout: float | None) -> None:
        """Ignore it."""

    def step_ended(self, key: str) -> None:
        """Ignore it."""


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
        killable: bool = False,
        monitor: Monitor | None = None,
    ) -> None:
        """Hold the parts.

        `killable` says that this process is the instance's own: what cannot be stopped otherwise may end it. `suspend_after` is the
        wait, in seconds, from which on the process is given back; `cancel_grace` how long a cancelled handler may take to stop.
        """
        self.journal = journal
        self.writer = writer
        self.clock = clock
        self.max_payload = max_payload
        self.total_steps = total_steps
        self.monitor: Monitor = monitor or _Unwatched()
        self.draining: str | None = None
        self.suspended: tuple[Status, float | None] | None = None
        self._suspend_after = suspend_after
        self._cancel_grace = cancel_grace
        self._killable = killable
        self._occurrences: dict[str, int] = {}
        self._reached: set[str] = set()
        self._done = {row.name for row in journal.steps.values() if row.status == "completed"}
        self._running = 0
        self._parked: dict[asyncio.Future[None], float | None] = {}
        self._check: asyncio.TimerHandle | None = None
        self._pool: ThreadPoolExecutor | None = None

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
        return any(row.status == "completed" and key not in self._reached for key, row in self.journal.steps.items())

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
            row = self.journal.steps[call.key] = StepRow(call.key, call.name, call.kind, "new", input=call.input)
        elif row.status == "retrying" and row.wake_at is not None:
            await self.park(row.wake_at)
        elif row.status == "running":
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
        if self.suspended is not None:
            raise InterruptError
        self._reached.add(key)
        row = self.journal.steps.get(key)
        if row is not None and row.kind != kind:
            raise NonDeterminismError(
                f"the code asks for a {kind} under the key {key!r}, but the journal holds a {row.kind} there; "
                "guard the change with ctx.patched(), or finish these instances with the code that began them"
            )
        return row

    async def _interrupted(self, call: StepCall, row: StepRow) -> None:
        """Take up a step that was in flight when its process ended: that spends no retry, but a kill for its timeout did."""
        if call.at_most_once:
            await self.fail(row, PaddockError("its process died while it ran, and it may run at most once"))
        if row.failures >= call.retry.max_attempts:
            await self.fail(row, StepTimeout(f"step {call.key!r} took longer than {call.timeout:g}s"))

    async def _try(self, call: StepCall, row: StepRow) -> Any:
        if self.draining is not None:
            raise GiveBack(self.draining)
        row.attempts += 1
        row.status = "running"
        deadline = None if call.timeout is None else self.clock.now() + call.timeout
        self.writer.add(StepBegun(call.key, call.name, call.kind, row.attempts, call.input, deadline))
        await self.writer.flush()
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

    def complete(self, row: StepRow, text: str, *, begin: bool = False, quiet: bool = False) -> None:
        """Note a step's end; `begin` for a step that had no row, `quiet` for one that no event tells of."""
        row.status, row.output = "completed", text
        self.journal.steps[row.key] = row
        self._reached.add(row.key)
        self._done.add(row.name)
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
        row = StepRow(key, name, kind, "new", attempts=1, failures=1)
        try:
            value = compute()
            if inspect.isawaitable(value):
                value = await value
            text = output.encode(value, f"the output of step {key!r}", self.max_payload)
            result = output.decode(text, f"the output of step {key!r}")
        except Exception as error:  # noqa: BLE001  every failure of the user's function is the step's
            self.writer.add(StepBegun(key, name, kind, 1))
            await self.fail(row, error)
        self.complete(row, text, begin=True)
        return result

    def progress(self, current: str | None = None) -> Progress:
        """Return how far the instance is."""
        done = len(self._done)
        percent = min(100.0, round(100 * done / self.total_steps, 1)) if self.total_steps else 0.0
        return Progress(percent, done, self.total_steps, current)

    async def _attempt(self, call: StepCall, attempt: int) -> Any:
        """Run one try in a task of its own, so that a timeout can leave it behind."""
        token = CURRENT_STEP.set((call.name, attempt))
        task = asyncio.ensure_future(call.run(attempt))
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
        )  # from here on the cancel's grace counts, not the deadline
        stopped = await self._stop(task) if call.stoppable else False
        raise _Overtime(call, stopped=stopped)

    async def _stop(self, task: asyncio.Future[Any]) -> bool:
        """Cancel a handler and give it `cancel_grace` to clean up; tell whether it ended."""
        task.cancel()
        await asyncio.wait({task}, timeout=self._cancel_grace)
        if task.done() and not task.cancelled():
            task.exception()  # seen: the timeout or the cancel is what counts
        return task.done()

    async def _failed_try(self, call: StepCall, row: StepRow, error: Exception) -> Any:
        row.failures += 1
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
        self.writer.add(StepFailedOp(row.key, row.name, row.kind, info, row.failures))
        await self._leave_if_stuck(error)
        raise StepFailed(row.key, info.type, info.message, row.attempts, info.traceback) from error

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

    # --- waiting ---

    async def park(self, wake_at: float | None) -> None:
        """Wait until `wake_at` (wall-clock seconds), within the process while that is soon, else by suspending the instance.

        Raises:
            InterruptError: the instance suspends; its next execution comes back to this place.
        """
        if wake_at is not None and wake_at - self.clock.now() <= self._suspend_after:
            await self.writer.flush()
            while (left := wake_at - self.clock.now()) > 0:
                await self.clock.sleep(left)
            return
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked[ticket] = wake_at
        self._watch_quiet()
        try:
            await ticket
        finally:
            self._parked.pop(ticket, None)

    def _watch_quiet(self) -> None:
        """Suspend once nothing in this instance can go on; until then look again."""
        if self._check is None and self._parked:
            self._check = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._suspend_if_quiet)

    def _suspend_if_quiet(self) -> None:
        self._check = None
        if not self._parked:
            return
        now = self.clock.now()
        for ticket, wake_at in list(self._parked.items()):
            if wake_at is not None and wake_at <= now and not ticket.done():
                ticket.set_result(None)
        if self._running or any(ticket.done() for ticket in self._parked):
            self._watch_quiet()
            return
        times = [wake_at for wake_at in self._parked.values() if wake_at is not None]
        status = Status.SLEEPING if len(times) == len(self._parked) else Status.WAITING
        self.suspended = (status, min(times, default=None))
        for ticket in self._parked:
            ticket.set_exception(InterruptError())

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


class _Overtime(StepTimeout):
    def __init__(self, call: StepCall, *, stopped: bool) -> None:
        super().__init__(f"step {call.key!r} took longer than {call.timeout:g}s")
        self.stopped = stopped


_AGAIN = object()


def recorded_failure(row: StepRow) -> StepFailed:
    """Return the failure that the journal holds: the same at every replay."""
    info = ErrorInfo.model_validate_json(row.error or '{"type": "Unknown", "message": ""}')
    return StepFailed(row.key, info.type, info.message, row.attempts, info.traceback)


def describe_error(error: BaseException, step: str | None = None) -> ErrorInfo:
    """Return the structured form of an exception; a `StepFailed` keeps the type and message of what its step raised."""
    if isinstance(error, StepFailed):
        return ErrorInfo(type=error.type, message=error.message, step=error.step, traceback=error.traceback)
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return describe_error(error.exceptions[0], step)
    text = "".join(traceback.format_exception(error))
    name = "StepTimeout" if isinstance(error, _Overtime) else type(error).__name__
    return ErrorInfo(type=name, message=str(error)[:4000], step=step, traceback=text[-_TRACEBACK_LIMIT:])
