"""What a user's code raised, in words: whatever it is, it fails the step that raised it and nothing else."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable
from typing import Any

from ..base.errors import (
    InterruptError,
    InvalidInput,
    OpenTransaction,
    OutcomeError,
    PaddockError,
    StepFailed,
    StepTimeout,
    WaitTimeout,
)
from ..base.records import ErrorInfo
from ..base.values import Schema
from ..store.journal import StepRow

__all__ = [
    "STOPPED",
    "HandlerEnded",
    "ProcessDied",
    "cannot_get_better",
    "contain",
    "describe_error",
    "error_name",
    "error_text",
    "given",
    "recorded_error",
    "recorded_failure",
    "was_stopped",
]

_OURS = __name__.partition(".")[0] + "."
_TRACEBACK_LIMIT = 16_000
_MESSAGE_LIMIT = 4000

#: The error type of a step that was ended because another one beside it had failed.
STOPPED = "Stopped"


class HandlerEnded(PaddockError):
    """A handler raised what would end its process or its task: `SystemExit`, or a `CancelledError` that nobody had asked for.

    Attributes:
        original: what it raised.
    """

    def __init__(self, original: BaseException) -> None:
        """Hold what was raised."""
        super().__init__(error_text(original) or f"the handler raised {type(original).__name__}")
        self.original = original


class ProcessDied(PaddockError):
    """A step that may run at most once was under way when its process ended: nobody knows what it has done."""


async def contain(call: Awaitable[Any], *signals: type[BaseException]) -> Any:
    """Await a handler. A base exception of its own becomes an exception, for one step's code must not end a process that others share.

    A cancel from outside, a suspension and what else is named in `signals` pass.

    Raises:
        HandlerEnded: it raised what is no `Exception`.
    """
    passing: tuple[type[BaseException], ...] = (Exception, GeneratorExit, KeyboardInterrupt, InterruptError, *signals)
    try:
        return await call
    except passing:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise HandlerEnded(error) from error
    except BaseException as error:
        raise HandlerEnded(error) from error


def error_name(error: BaseException) -> str:
    """Return the name of an error's type as users know it: of ours, the public one."""
    kind = type(error.original) if isinstance(error, HandlerEnded) else type(error)
    if kind.__name__.startswith("_") and kind.__module__.startswith(_OURS):
        kind = next(base for base in kind.__mro__ if not base.__name__.startswith("_"))
    return kind.__name__


def error_text(error: BaseException) -> str:
    """Return an error's message, whatever its `__str__` does, as text that UTF-8 can hold."""
    try:
        if isinstance(error, MemoryError) and not error.args:  # Python has nothing to say then
            return "the process got no more memory: it is at its workflow's memory_limit, or the machine has none left"
        return str(error).encode(errors="backslashreplace").decode()
    except Exception as worse:  # noqa: BLE001  a user's class
        return f"(its message cannot be read: {type(worse).__name__})"


class _UnfitInput(InvalidInput):
    pass


def given(schema: Schema, text: str, what: str) -> Any:
    """Return what a handler is called with. What does not fit now never will: the step fails at once, whatever its retry says.

    Raises:
        InvalidInput: it does not fit.
    """
    try:
        return schema.receive(text, what)
    except InvalidInput as error:
        raise _UnfitInput(str(error)) from None


def cannot_get_better(error: BaseException) -> bool:
    """Tell whether another try would come to the same."""
    return isinstance(error, _UnfitInput | OpenTransaction)


def was_stopped(row: StepRow) -> bool:
    """Tell whether a step was ended because another one beside it had failed."""
    return row.status == "failed" and recorded_error(row).type == STOPPED


def recorded_failure(row: StepRow) -> OutcomeError:
    """Return the failure that the journal holds: the same at every replay."""
    info = recorded_error(row)
    if info.type == WaitTimeout.__name__:
        error = WaitTimeout(info.message)
        error.paddock_step = row.key
        return error
    return StepFailed(info.step or row.key, info.type, info.message, row.attempts, info.traceback, info.facts)


def recorded_error(row: StepRow) -> ErrorInfo:
    """Return the error that the journal holds for a step."""
    return ErrorInfo.model_validate_json(row.error or '{"type": "Unknown", "message": ""}')


def describe_error(error: BaseException, step: str | None = None) -> ErrorInfo:
    """Return the structured form of an exception; a `StepFailed` keeps the type and message of what its step raised."""
    if isinstance(error, StepFailed):
        return ErrorInfo(
            type=error.type, message=error.message, step=error.step, traceback=error.traceback, **error.facts
        )
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return describe_error(error.exceptions[0], step)
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    message = error_text(error)[:_MESSAGE_LIMIT]
    facts = error.facts if isinstance(error, StepTimeout) else {}
    return ErrorInfo(type=error_name(error), message=message, step=step, traceback=text[-_TRACEBACK_LIMIT:], **facts)
