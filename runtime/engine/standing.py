"""Where a handler stands that waits: the frames of its coroutines, which no thread's stack shows."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["standing"]

_DEEPEST = 200


def standing(task: asyncio.Future[Any]) -> str | None:
    """Return where a task's coroutines stand, the innermost first as `faulthandler` has it; None for what is no task.

    What a coroutine awaits through another task is that task's own affair.
    """
    if not isinstance(task, asyncio.Task):
        return None
    lines: list[str] = []
    held: Any = task.get_coro()
    while held is not None and len(lines) < _DEEPEST:
        frame = next(
            (found for name in ("cr_frame", "gi_frame", "ag_frame") if (found := getattr(held, name, None))), None
        )
        if frame is not None:
            lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
        held = next(
            (found for name in ("cr_await", "gi_yieldfrom", "ag_await") if (found := getattr(held, name, None))), None
        )
    return "\n".join(["It waited (most recent call first):", *reversed(lines)]) + "\n"
