"""A replay that does nothing: the code goes from the top through what a journal holds, and stops where anything new would begin.

No step, check, condition or mapper runs that the journal does not answer for, no plugin is set up, nothing is written. What does run is
the code between the steps, as at every replay. It goes as far as the frontier in each of its tasks; then the instance suspends, in this
process only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from ..base.clock import SystemClock
from ..base.records import ErrorInfo, Status
from ..base.values import DEFAULT_MAX_PAYLOAD
from ..store.journal import Journal, StepRow
from ..store.ops import Began, Ended, Op, Suspended
from .context import Frame
from .definition import Definition
from .execution import Execution
from .executor import Outcome, execute
from .failure import describe_error
from .writer import JournalWriter

__all__ = ["Fit", "Replayed", "dry_run"]

_STOP_SECONDS = 1.0


class Fit(Enum):
    """How a journal and the code go together."""

    FITS = "fits"  # the instance goes on
    BLOCKS = "blocks"  # it would be blocked, until the code fits again
    FAILS = "fails"  # the code raises on its way through what is recorded: the instance would fail
    UNSURE = "unsure"  # the code wants what only a running instance has, or does not come to the journal's end


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to; `step` is the key of the step that it came to it at, where there is one."""

    fit: Fit
    step: str | None = None
    reason: str | None = None


async def dry_run(definition: Definition, journal: Journal, *, timeout: float) -> Replayed:
    """Replay a journal and tell whether it fits the code.

    Args:
        definition: the code.
        journal: what is recorded; it is changed on the way, so it must be a copy.
        timeout: how many seconds the code may take for awaits of its own.
    """
    writer = _NoWriter(journal)
    held: list[Execution] = []

    async def stop_here() -> None:
        await held[0].suspension.park(None)

    execution = Execution(
        journal,
        writer,
        SystemClock(),
        max_payload=DEFAULT_MAX_PAYLOAD,
        total_steps=definition.total_steps,
        quiet=0.001,
        frontier=stop_here,
    )
    held.append(execution)
    core, plugins, logger = _Absent("ctx.core"), _Absent("ctx.plugins"), _Mute()
    frame = Frame(execution, core, plugins, logger, None, {})  # type: ignore[arg-type]
    began = Began(os.getpid(), 0, "", None, None)
    task = asyncio.create_task(execute(definition, frame, began))
    await asyncio.wait({task}, timeout=timeout)
    if not task.done():
        await _stop(task)
        return Replayed(Fit.UNSURE, None, f"its code waited for something of its own for more than {timeout:g}s")
    found = _read(task, writer.last, journal)
    if found.fit is Fit.FITS and isinstance(writer.last, Suspended) and (row := execution.replay.missed()):
        return _left_out(row)
    return found


def _left_out(row: StepRow) -> Replayed:
    """Judge code that stands at an open step and has passed by a recorded one: the new step that follows is refused."""
    return Replayed(
        Fit.BLOCKS,
        row.key,
        f"the journal holds {row.kind} {row.key!r}, which the code does not ask for up to where the instance stands; unless it does "
        "before any new step, the instance is blocked there",
    )


async def _stop(task: asyncio.Task[Outcome]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=_STOP_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()  # seen


def _read(task: asyncio.Task[Outcome], last: Op | None, journal: Journal) -> Replayed:
    error = task.exception()
    if isinstance(error, _Unsure):
        return Replayed(Fit.UNSURE, None, str(error))
    if error is not None:
        info = describe_error(error)
        return Replayed(Fit.FAILS, info.step, f"{info.type}: {info.message}")
    match last:
        case Suspended(status=Status.BLOCKED, error=ErrorInfo() as info):
            return Replayed(Fit.BLOCKS, info.step, info.message)
        case Ended(status=Status.FAILED, error=ErrorInfo() as info) if not _is_recorded(info, journal):
            return Replayed(Fit.FAILS, info.step, f"{info.type}: {info.message}")
    return Replayed(Fit.FITS)


def _is_recorded(info: ErrorInfo, journal: Journal) -> bool:
    """Tell whether the failure is the journal's own: then the instance was about to fail, whatever the code."""
    row = journal.steps.get(info.step or "")
    return row is not None and (row.status == "failed" or row.kind == "wait_for")


class _NoWriter(JournalWriter):
    """Takes what an execution notes, and writes nothing.

    Attributes:
        last: the last operation that was noted: how the execution came out.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(_NothingCame(), journal.lease, SystemClock(), lambda _id: None)  # type: ignore[arg-type]
        self.last: Op | None = None

    def add(self, op: Op) -> None:
        self.last = op

    def add_later(self, op: Op) -> None:
        """Ignore it."""

    async def flush(self) -> None:
        """Return at once."""


class _NothingCame:
    """A store to which nothing comes from outside."""

    async def next_signal(self, *_args: Any) -> None:
        return None

    async def streamed(self, *_args: Any) -> dict[str, int]:
        return {}


class _Unsure(BaseException):
    """The code wants something that is not there in a replay only; a `BaseException`, so that no `except Exception` hides it."""


class _Absent:
    """What only a running instance has."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _Unsure(f"its code uses {self._name}.{name} outside of steps; up to there it fits")

    def __getitem__(self, name: object) -> NoReturn:
        raise _Unsure(f"its code uses {self._name}[{name!r}] outside of steps; up to there it fits")


class _Mute:
    """A logger that says nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_data: self
