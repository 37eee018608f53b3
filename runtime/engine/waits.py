"""Steps that wait: polls, sleeps, loops. Their counters and times are absolute and in the journal; a restart forgets none.

Every front end comes here, so a poll in a graph and a poll in a flow are the same poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ..base.errors import StepFailed, StepTimeout, WaitTimeout
from ..base.values import Schema
from ..store.journal import StepRow
from ..store.ops import StepBegun, StepCounted, StepWaiting
from .execution import Execution
from .failure import contain, recorded_failure
from .retry import grown
from .step_call import CURRENT_STEP, GiveBack

__all__ = ["LoopState", "PollCall", "PollExhausted", "abandon", "loop_back", "poll", "sleep"]


class PollExhausted(StepTimeout):
    """A poll's `max_attempts` checks all found nothing."""


@dataclass(frozen=True, slots=True)
class PollCall:
    """One poll. `check` returns (done, value); `interval` and `timeout` are seconds; `backoff` is a factor between waits."""

    key: str
    name: str
    check: Callable[[int], Awaitable[tuple[bool, Any]]]
    output: Schema
    interval: float
    timeout: float | None = None
    max_attempts: int | None = None
    backoff: float = 1.0


async def poll(execution: Execution, call: PollCall) -> Any:
    """Check now, then once an interval, until the check is done; return its value.

    Raises:
        StepFailed: the check raised, `timeout` passed, or `max_attempts` checks found nothing.
    """
    row = execution.recall(call.key, "poll")
    if row is not None:
        await execution.replay.in_order(row)
    if row is not None and row.status == "completed":
        return execution.recorded(row, call.output)
    if row is not None and row.status == "failed":
        raise recorded_failure(row)
    if row is None:
        await execution.replay.arrive(call.key)
        row = StepRow(call.key, call.name, "poll", "waiting", attempts=1, started_at=execution.clock.now())
        execution.journal.steps[call.key] = row
        execution.writer.add(StepBegun(call.key, call.name, "poll", 1))
    else:
        await execution.replay.resume()
    end = None if call.timeout is None else (row.started_at or execution.clock.now()) + call.timeout
    try:
        return await _poll(execution, call, row, end)
    except Exception as error:
        if isinstance(error, StepFailed):
            raise
        await execution.fail(row, error)


async def _check(execution: Execution, call: PollCall, attempt: int, end: float | None) -> tuple[bool, Any]:
    """Check once; a check that hangs ends with the poll's own timeout, the one that begins at its end after as long again."""
    left = None if end is None else end - execution.clock.now()
    bound = asyncio.timeout(left if left is None or left > 0 else call.timeout)
    try:
        async with bound:
            return await contain(call.check(attempt), GiveBack)  # type: ignore[no-any-return]
    except TimeoutError:
        if not bound.expired():
            raise
        raise StepTimeout(
            f"poll {call.key!r} found nothing within {call.timeout:g}s; its last check did not return"
        ) from None


async def _poll(execution: Execution, call: PollCall, row: StepRow, end: float | None) -> Any:
    while True:
        if row.wake_at is not None:
            await execution.suspension.park(row.wake_at)
        execution.boundary()
        await execution.writer.flush()
        token = CURRENT_STEP.set((call.name, row.poll_count + 1))
        try:
            with execution.working(call.key, call.name, row.poll_count + 1, None):
                done, value = await _check(execution, call, row.poll_count + 1, end)
        finally:
            CURRENT_STEP.reset(token)
        row.poll_count += 1
        now = execution.clock.now()
        wait = grown(call.interval, call.backoff, row.poll_count - 1)
        row.wake_at = None if done else now + wait
        if end is not None and row.wake_at is not None:
            row.wake_at = min(row.wake_at, end) if now < end else row.wake_at
        execution.writer.add(
            StepCounted(
                call.key, call.name, "poll", poll_count=row.poll_count, wake_at=row.wake_at, data={"done": done}
            )
        )
        if done:
            text = call.output.encode(value, f"the output of step {call.key!r}", execution.max_payload)
            result = call.output.decode(text, f"the output of step {call.key!r}")
            execution.complete(row, text)
            return result
        if end is not None and now >= end:
            raise StepTimeout(f"poll {call.key!r} found nothing within {call.timeout:g}s and {row.poll_count} checks")
        if call.max_attempts is not None and row.poll_count >= call.max_attempts:
            raise PollExhausted(f"poll {call.key!r} found nothing in {row.poll_count} checks")


async def sleep(execution: Execution, key: str, name: str, seconds: float) -> None:
    """Wait, durably: the time of waking is fixed when the wait begins.

    Raises:
        InterruptError: the wait is long and the instance gives its process back.
    """
    row = execution.recall(key, "sleep")
    if row is not None:
        await execution.replay.in_order(row)
    if row is not None and row.status == "completed":
        return
    if row is not None and row.status == "failed":
        raise recorded_failure(row)
    if row is None:
        await execution.replay.arrive(key)
        row = StepRow(key, name, "sleep", "waiting", attempts=1, wake_at=execution.clock.now() + seconds)
        execution.journal.steps[key] = row
        execution.writer.add(StepWaiting(key, name, "sleep", row.wake_at))
    else:
        await execution.replay.resume()
    await execution.suspension.park(row.wake_at)
    execution.complete(row, "null")


@dataclass(slots=True)
class LoopState:
    """Where one loop stands in this walk: its row's key and how many jumps the code has replayed."""

    key: str
    visits: int = 0


async def loop_back(
    execution: Execution,
    state: LoopState,
    name: str,
    condition: Callable[[], Awaitable[bool]],
    *,
    interval: float,
    max_iterations: int | None,
    timeout: float | None,
) -> bool:
    """Tell whether the loop jumps back once more. One row holds the count; a replay jumps as often without asking.

    Raises:
        StepFailed: the condition raised, or `max_iterations` jumps or `timeout` seconds were not enough.
    """
    row = execution.recall(state.key, "loop")
    state.visits += 1
    if row is not None and row.status == "failed":
        raise recorded_failure(row)
    if row is not None and state.visits <= row.loop_count:
        if state.visits == row.loop_count and row.wake_at is not None and row.status != "completed":
            await execution.replay.resume()
            await execution.suspension.park(row.wake_at)
        return True
    if row is not None and row.status == "completed":
        return False
    if row is None:
        await execution.replay.arrive(state.key)
        row = StepRow(state.key, name, "loop", "waiting", attempts=1, started_at=execution.clock.now())
        execution.journal.steps[state.key] = row
        execution.writer.add(StepBegun(state.key, name, "loop", 1))
    else:
        await execution.replay.resume()
    try:
        again = await contain(condition(), GiveBack)
        if again:
            _check_bounds(execution, row, max_iterations, timeout)
    except Exception as error:  # noqa: BLE001  every failure of the condition is the step's
        await execution.fail(row, error)
    if not again:
        execution.complete(row, "null")
        return False
    data = {"max_iterations": max_iterations} if max_iterations is not None else {}
    await _jump(execution, row, interval, data)
    return True


async def _jump(execution: Execution, row: StepRow, interval: float, data: dict[str, Any]) -> None:
    """Count one more jump, and wait for it."""
    row.loop_count += 1
    row.wake_at = execution.clock.now() + interval if interval else None
    execution.writer.add(
        StepCounted(row.key, row.name, "loop", loop_count=row.loop_count, wake_at=row.wake_at, data=data)
    )
    if row.wake_at is not None:
        await execution.suspension.park(row.wake_at)


def _check_bounds(execution: Execution, row: StepRow, max_iterations: int | None, timeout: float | None) -> None:
    """Refuse one more jump where the loop has had its number or its time; raises WaitTimeout."""
    now = execution.clock.now()
    if max_iterations is not None and row.loop_count >= max_iterations:
        raise WaitTimeout(
            f"loop {row.key!r} jumped back {row.loop_count} times, its max_iterations, and its condition still holds"
        )
    if timeout is not None and now >= (row.started_at or now) + timeout:
        raise WaitTimeout(f"loop {row.key!r} ran longer than {timeout:g}s and its condition still holds")


def abandon(execution: Execution, prefix: str, why: str) -> None:
    """Note that the open steps under a branch were stopped because another branch failed."""
    for row in execution.journal.steps.values():
        if row.key.startswith(prefix) and row.status in ("running", "retrying", "waiting"):
            execution.stop(row, why)
