"""Where a handler stands that waits: the frames of its coroutines, which no thread's stack shows."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["holds_transaction", "standing"]

_DEEPEST = 200


def standing(task: asyncio.Future[Any]) -> str | None:
    """Return where a task's coroutines stand, the innermost first as `faulthandler` has it; None for what is no task.

    What a coroutine awaits through another task is that task's own affair.
    """
    if not isinstance(task, asyncio.Task):
        return None
    lines = [
        f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}'
        for frame in _frames(task)
    ]
    return "\n".join(["It waited (most recent call first):", *reversed(lines)]) + "\n"


def holds_transaction(task: asyncio.Task[Any] | None) -> bool:
    """Tell whether a local variable of a waiting task's coroutines is a connection to SQLite with a transaction open."""
    if task is None:
        return False
    held = [value for frame in _frames(task) for value in frame.f_locals.values()]
    held += [getattr(value, "_connection", None) for value in held]  # aiosqlite's
    return any(isinstance(value, sqlite3.Connection) and value.in_transaction for value in held)


def _frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yield the frames of a task's coroutines, the outermost first."""
    held: Any = task.get_coro()
    for _ in range(_DEEPEST):
        if held is None:
            return
        frame = next(
            (found for name in ("cr_frame", "gi_frame", "ag_frame") if (found := getattr(held, name, None))), None
        )
        if frame is not None:
            yield frame
        held = next(
            (found for name in ("cr_await", "gi_yieldfrom", "ag_await") if (found := getattr(held, name, None))), None
        )
