"""Strands: pieces of one instance that run side by side, and how they end together.

One strand's failure ends the others (or waits for them); a suspension or the end of the process lets every strand stop at a boundary of
its own. While the journal is being replayed, a recorded failure waits until the other strands have replayed theirs: the cancel then
finds them where it found them the first time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from ..base.errors import InterruptError, OutcomeError, StepFailed
from .execution import Execution
from .failure import STOPPED
from .replay import STRAND
from .step_call import GiveBack

__all__ = ["StrandsFailed", "run_together"]


class StrandsFailed(Exception):
    """What strands failed with, in the order in which they stand."""

    def __init__(self, errors: Sequence[Exception]) -> None:
        """Hold the failures."""
        super().__init__(f"{len(errors)} failed")
        self.errors = list(errors)


async def run_together(execution: Execution, work: Sequence[Coroutine[Any, Any, Any]], *, fail_fast: bool) -> list[Any]:
    """Run coroutines side by side and return their results in order.

    Raises:
        StrandsFailed: some failed; with `fail_fast` the others were cancelled at the first failure.
        BaseException: what ends the execution (`InterruptError`, `GiveBack`, a cancel, an error of ours), once all have stopped.
    """
    keys: set[str] = set()
    token = STRAND.set((*STRAND.get(), keys))
    tasks = [asyncio.create_task(one) for one in work]
    STRAND.reset(token)
    execution.strands += 1
    try:
        await _settle(execution, tasks, fail_fast=fail_fast)
    except BaseException as error:
        await _cancel(execution, tasks)
        if isinstance(error, Exception):
            _stop_open(execution, keys)
        raise
    finally:
        execution.strands -= 1
    ended = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    errors = [found for found in ended if isinstance(found, Exception)]
    if errors:
        _stop_open(execution, keys)
        raise StrandsFailed([error for error in errors if not _is_stop(error)] or errors)
    return [task.result() for task in tasks]


async def _settle(execution: Execution, tasks: Sequence[asyncio.Task[Any]], *, fail_fast: bool) -> None:
    pending = set(tasks)
    leaving: BaseException | None = None
    while pending:
        with execution.tasks.waiting():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                continue
            if isinstance(error, InterruptError | GiveBack):
                leaving = leaving or error  # the others stop at their own boundaries
            elif _is_stop(error):
                continue  # a replay: what stopped it is recorded too
            elif isinstance(error, OutcomeError):
                if fail_fast and leaving is None:
                    await execution.replay.settle(len(STRAND.get()))
                    await _cancel(execution, pending)
                    return
            else:
                if isinstance(error, Exception) and execution.replay.mismatch is None:
                    await execution.replay.settle(len(STRAND.get()))
                raise error
    if leaving is not None:
        raise leaving


def _is_stop(error: BaseException | None) -> bool:
    """Tell whether an error is only the mark of a strand that another one's failure has ended."""
    return isinstance(error, StepFailed) and error.type == STOPPED


def _stop_open(execution: Execution, keys: set[str]) -> None:
    """Note that what the cancelled strands had open is over: a replay must not begin it again."""
    if execution.writer.broken is not None or execution.replay.mismatch is not None:
        return
    for key in keys:
        row = execution.journal.steps.get(key)
        if row is not None and row.status in ("running", "retrying", "waiting"):
            execution.stop(row, "another one beside it failed")


async def _cancel(execution: Execution, tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have stopped; one that will not is left behind, for the process's end to end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=execution.cancel_grace)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen: what ended the others is what counts
