"""What a user's code raised, in words: whatever it is, it fails the step that raised it and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from ..base.errors import InterruptError, PaddockError

__all__ = ["HandlerEnded", "contain", "error_name", "error_text"]

_OURS = __name__.partition(".")[0] + "."


class HandlerEnded(PaddockError):
    """A handler raised what would end its process or its task: `SystemExit`, or a `CancelledError` that nobody had asked for.

    Attributes:
        original: what it raised.
    """

    def __init__(self, original: BaseException) -> None:
        """Hold what was raised."""
        super().__init__(error_text(original) or f"the handler raised {type(original).__name__}")
        self.original = original


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
