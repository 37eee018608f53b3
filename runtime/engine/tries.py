"""One try of a step's handler: within its timeout, and stopped where it outruns it."""

from __future__ import annotations

import asyncio
from typing import Any

from ..base.causes import Cause
from ..base.errors import StepTimeout
from ..store.journal import Journal
from . import tracing
from .failure import contain
from .standing import standing
from .step_call import CURRENT_STEP, GiveBack, Monitor, StepCall

__all__ = ["outran", "run_try", "runs_on"]


class _Overtime(StepTimeout):
    def __init__(self, call: StepCall, *, facts: dict[str, Any], stopped: bool) -> None:
        super().__init__(f"step {call.key!r} took longer than {call.timeout:g}s")
        self.stopped = stopped
        self.facts = facts


def outran(call: StepCall, facts: dict[str, Any]) -> StepTimeout:
    """Return the error of a try that was ended with its process."""
    return _Overtime(call, facts=facts, stopped=True)


def runs_on(error: Exception) -> bool:
    """Tell whether an error is that of a try whose handler could not be stopped: only the process's end stops that one."""
    return isinstance(error, _Overtime) and not error.stopped


async def run_try(call: StepCall, attempt: int, journal: Journal, monitor: Monitor, grace: float) -> Any:
    """Run one try and return what its handler returns; one with a timeout in a task of its own, so that it can be left behind.

    `grace` is how long, in seconds, a cancelled handler may take to clean up.

    Raises:
        StepTimeout: it took longer than its timeout.
    """
    token = CURRENT_STEP.set((call.name, attempt))
    try:
        with tracing.attempt(journal.id, journal.metadata, call.key, attempt):
            if call.timeout is None:
                return await contain(call.run(attempt), GiveBack)
            task = asyncio.ensure_future(contain(call.run(attempt), GiveBack))
    finally:
        CURRENT_STEP.reset(token)
    try:
        await asyncio.wait({task}, timeout=call.timeout)
    except asyncio.CancelledError:
        await _stop(task, grace)
        raise
    if task.done():
        return task.result()
    stack = standing(task) if call.stoppable else monitor.stacks()
    monitor.step_begun(call.key, call.name, attempt, None)  # the cancel's grace counts from here, not the deadline
    stopped = await _stop(task, grace) if call.stoppable else False
    raise _Overtime(call, stopped=stopped, facts={"cause": Cause.STEP_TIMEOUT, "attempt": attempt, "stack": stack})


async def _stop(task: asyncio.Future[Any], grace: float) -> bool:
    """Cancel a handler and give it `grace` seconds to clean up; tell whether it ended."""
    task.cancel()
    await asyncio.wait({task}, timeout=grace)
    if task.done() and not task.cancelled():
        task.exception()  # seen: the timeout or the cancel is what counts
    return task.done()
