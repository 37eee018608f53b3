"""The outermost frame of an execution: begins it, runs the definition, and notes how it came out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from ..base.errors import InterruptError, InvalidInput, LeaseLost, NonDeterminismError
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.values import Schema
from ..store.ops import Began, Ended, Op, Progress, Suspended
from .context import Frame
from .definition import Definition
from .execution import Execution, GiveBack, describe_error

__all__ = ["Outcome", "OutcomeKind", "check_input", "execute"]


class OutcomeKind(Enum):
    """How an execution came out, for the process that ran it."""

    ENDED = "ended"  # the terminal commit stands
    SUSPENDED = "suspended"  # the instance sleeps, waits, is paused or blocked
    GIVEN_BACK = "given back"  # the instance goes on in another process
    LOST = "lost"  # another executor holds the instance, or it was ended from outside
    CANCELLED = "cancelled"  # the server asked this process to stop


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution came out, with the status that it committed."""

    kind: OutcomeKind
    status: Status | None = None
    reason: str = ""


async def execute(definition: Definition, frame: Frame, began: Began) -> Outcome:
    """Run an instance until it ends, suspends, or is taken from us; everything that it came to is committed on return.

    Errors of the user's code end in the instance's status. What is raised from here is the ground giving way
    (`DatabaseUnavailable`): the process must end without another word, and the next executor reads again.
    """
    execution = frame.execution
    execution.writer.add(began)
    try:
        last, outcome = await _run(definition, frame)
        if last is not None:
            execution.writer.add(last)
        await execution.writer.flush()
    except LeaseLost as error:
        return Outcome(OutcomeKind.LOST, reason=str(error))
    finally:
        execution.close()
    if outcome.kind is OutcomeKind.ENDED:
        reach("child.ended")
    return outcome


async def _run(definition: Definition, frame: Frame) -> tuple[Op | None, Outcome]:
    execution = frame.execution
    try:
        return await _complete(definition, frame)
    except InterruptError:
        status, wake_at = execution.suspended or (Status.WAITING, None)
        return Suspended(status, wake_at), Outcome(OutcomeKind.SUSPENDED, status)
    except GiveBack as error:
        return None, Outcome(OutcomeKind.GIVEN_BACK, reason=error.reason)
    except asyncio.CancelledError:
        return None, Outcome(OutcomeKind.CANCELLED)
    except LeaseLost:
        raise
    except NonDeterminismError as error:
        return _blocked(error)
    except BaseExceptionGroup as group:
        return _from_group(group, execution)
    except Exception as error:
        broken = execution.writer.broken
        if broken is not None:
            raise broken from error
        return _failed(error)


async def _complete(definition: Definition, frame: Frame) -> tuple[Op | None, Outcome]:
    execution = frame.execution
    value, schema = await definition.run(frame)
    text = schema.encode(value, f"the output of workflow {definition.name!r}", execution.max_payload)
    if schema.typed:
        schema.decode(text, f"the output of workflow {definition.name!r}")
    progress = execution.progress()
    final = Progress(100.0, progress.completed_steps, progress.total_steps) if progress.percent < 100 else None  # noqa: PLR2004
    return Ended(Status.COMPLETED, output=text, progress=final), Outcome(OutcomeKind.ENDED, Status.COMPLETED)


def _from_group(group: BaseExceptionGroup[BaseException], execution: Execution) -> tuple[Op | None, Outcome]:
    """Look into a group that a user's `TaskGroup` raised: a suspension counts more than an error beside it."""
    for kind in (LeaseLost, GiveBack, InterruptError, NonDeterminismError):
        inner = group.subgroup(kind)
        while inner is not None and isinstance(inner, BaseExceptionGroup):
            found = inner.exceptions[0]
            if not isinstance(found, BaseExceptionGroup):
                break
            inner = found
        if inner is None:
            continue
        if kind is LeaseLost:
            raise found
        if kind is GiveBack:
            return None, Outcome(OutcomeKind.GIVEN_BACK, reason=str(found))
        if kind is NonDeterminismError:
            return _blocked(found)
        status, wake_at = execution.suspended or (Status.WAITING, None)
        return Suspended(status, wake_at), Outcome(OutcomeKind.SUSPENDED, status)
    return _failed(group)


def _blocked(error: BaseException) -> tuple[Op, Outcome]:
    return Suspended(Status.BLOCKED, error=describe_error(error)), Outcome(OutcomeKind.SUSPENDED, Status.BLOCKED)


def _failed(error: BaseException) -> tuple[Op, Outcome]:
    info: ErrorInfo = describe_error(error, getattr(error, "paddock_step", None))
    return Ended(Status.FAILED, error=info), Outcome(OutcomeKind.ENDED, Status.FAILED)


def check_input(definition: Definition, text: str) -> None:
    """Check an input's JSON text at the door.

    Raises:
        InvalidInput: it does not fit the workflow's schema.
    """
    schema: Schema = definition.input_schema
    try:
        schema.decode(text, f"the input of workflow {definition.name!r}")
    except ValueError as error:  # plain JSON that is none
        raise InvalidInput(f"the input of workflow {definition.name!r} is no JSON: {error}") from None
