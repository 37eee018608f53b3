"""The outermost frame of an execution: begins it, runs the definition, and notes how it came out."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..base.errors import InterruptError, InvalidInput, LeaseLost, NonDeterminismError, OpenTransaction
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.values import ANY, Schema
from ..store.ops import Began, Ended, Op, Progress, Suspended
from . import tracing
from .context import Frame
from .definition import Definition
from .execution import Execution
from .failure import describe_error
from .step_call import GiveBack

__all__ = ["Outcome", "OutcomeKind", "check_input", "execute", "input_text"]


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
    journal = execution.journal  # what a handler sees of its instance counts this execution in
    journal.executions += 1
    journal.started_at = journal.started_at or execution.clock.now()
    journal.version = journal.version or began.version
    try:
        last, outcome = await _run(definition, frame)
        if last is not None:
            execution.monitor.over()
            execution.writer.add(last)
        await _acknowledged(execution)
    except LeaseLost as error:
        return Outcome(OutcomeKind.LOST, reason=str(error))
    finally:
        execution.close()
    if outcome.kind is OutcomeKind.ENDED:
        reach("child.ended")
    return outcome


async def _acknowledged(execution: Execution) -> None:
    """Wait for the last commit, also where the code has ended without ending its transaction on the database."""
    try:
        await execution.writer.flush()
    except OpenTransaction:
        execution.writer.let_go()
        await execution.writer.flush()


async def _run(definition: Definition, frame: Frame) -> tuple[Op | None, Outcome]:
    try:
        return await _complete(definition, frame)
    except Exception as error:  # noqa: BLE001
        return _read(
            frame.execution.left() or error, frame.execution
        )  # what the code made of its end counts for nothing
    except BaseException as error:  # noqa: BLE001  read here, and raised again where it is not the user's or the engine's own
        return _read(error, frame.execution)


def _read(error: BaseException, execution: Execution) -> tuple[Op | None, Outcome]:
    """Tell what an execution came to by what it raised.

    A user's `TaskGroup` raises a group: what suspends or ends the execution counts more than an error beside it.
    """
    inner = _first(error, LeaseLost, GiveBack, InterruptError, NonDeterminismError)
    broken = execution.writer.broken
    match inner or error:
        case InterruptError():
            status, wake_at = execution.suspension.decided or (Status.WAITING, None)
            return Suspended(status, wake_at), Outcome(OutcomeKind.SUSPENDED, status)
        case GiveBack(reason=reason):
            return None, Outcome(OutcomeKind.GIVEN_BACK, reason=reason)
        case asyncio.CancelledError():
            return None, Outcome(OutcomeKind.CANCELLED)
        case NonDeterminismError() as found:
            return _blocked(found)
        case LeaseLost() as found:
            raise found
        case Exception() | BaseExceptionGroup() if broken is None:
            return _failed(error)
    raise broken or error


async def _complete(definition: Definition, frame: Frame) -> tuple[Op | None, Outcome]:
    execution = frame.execution
    journal = execution.journal
    traced = tracing.instance(journal.id, journal.metadata)
    with execution.tasks.joined(), traced:
        value, schema = await definition.run(frame)
    if (left := execution.left()) is not None:
        raise left
    text = schema.encode(value, f"the output of workflow {definition.name!r}", execution.max_payload)
    if schema.typed:
        schema.decode(text, f"the output of workflow {definition.name!r}")
    progress = execution.progress()
    final = Progress(100.0, progress.completed_steps, progress.total_steps) if progress.percent < 100 else None  # noqa: PLR2004
    return Ended(Status.COMPLETED, output=text, progress=final), Outcome(OutcomeKind.ENDED, Status.COMPLETED)


def _first(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Return an exception of the first kind that a group holds, however deep; None where `error` is no group."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    for kind in kinds:
        found: BaseException | None = error.subgroup(kind)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if found is not None:
            return found
    return None


def _blocked(error: NonDeterminismError) -> tuple[Op, Outcome]:
    info = describe_error(error, error.paddock_step)
    return Suspended(Status.BLOCKED, error=info), Outcome(OutcomeKind.SUSPENDED, Status.BLOCKED)


def _failed(error: BaseException) -> tuple[Op, Outcome]:
    info: ErrorInfo = describe_error(error, getattr(error, "paddock_step", None))
    traceback.clear_frames(error.__traceback__)  # what the code held open (a transaction) ends with it
    return Ended(Status.FAILED, error=info), Outcome(OutcomeKind.ENDED, Status.FAILED)


def input_text(definition: Definition, value: Any, limit: int) -> str:
    """Return the JSON text of an input, checked at the door; None stands for what the workflow begins with without one.

    Raises:
        InvalidInput: it does not fit the workflow's schema, or holds a secret.
        NotSerializable: it has no JSON form.
        PayloadTooLarge: its JSON is longer than `limit` bytes.
    """
    if value is None:
        value = definition.input_schema.unsaid()
    text = ANY.encode(value, f"the input of workflow {definition.name!r}", limit)
    check_input(definition, text)
    return text


def check_input(definition: Definition, text: str) -> None:
    """Check an input's JSON text at the door.

    Raises:
        InvalidInput: it does not fit the workflow's schema, or holds a secret.
    """
    schema: Schema = definition.input_schema
    try:
        value = schema.receive(text, f"the input of workflow {definition.name!r}")
        schema.refuse_secrets(value, f"the input of workflow {definition.name!r}")
    except ValueError as error:  # plain JSON that is none
        raise InvalidInput(f"the input of workflow {definition.name!r} is no JSON: {error}") from None
