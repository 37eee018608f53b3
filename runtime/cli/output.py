"""What the commands have in common on their way out: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import Any

from rich.console import Console

from ..base.records import Status

__all__ = ["FAILED", "STYLES", "USAGE", "complain", "console", "duration", "own_frames", "print_json", "say", "when"]

FAILED, USAGE = 1, 2

#: How a status looks.
STYLES = {
    Status.PENDING: "dim",
    Status.RUNNING: "cyan",
    Status.SLEEPING: "blue",
    Status.WAITING: "blue",
    Status.PAUSED: "yellow",
    Status.BLOCKED: "yellow",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
    Status.TIMED_OUT: "red",
}
_RUNTIME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def console(*, stderr: bool = False) -> Console:
    """Return a console; without a terminal it is wide, so that no id is cut where a program reads it."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = 200
    return made


def complain(sentence: str) -> None:
    """Say on stderr what is wrong."""
    console(stderr=True).print(f"[bold red]error:[/] {_plain(sentence)}", soft_wrap=True)


def say(sentence: str) -> None:
    """Tell a person something, on stderr."""
    console(stderr=True).print(_plain(sentence), soft_wrap=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout: indented for a person, one line for a program."""
    out = sys.__stdout__ or sys.stdout  # also while inline handlers' own output is turned away from it
    text = json.dumps(value, ensure_ascii=False, indent=2 if out.isatty() else None)
    out.buffer.write(text.encode("utf-8", "replace") + b"\n")
    out.buffer.flush()


def own_frames(traceback: str | None) -> str | None:
    """Return a traceback from the user's code on: the frames above it are Paddock's, and the same for everybody."""
    if traceback is None:
        return None
    head, *frames = traceback.split('\n  File "')
    ours = [number for number, frame in enumerate(frames) if frame.startswith(_RUNTIME)]
    kept = frames[ours[-1] + 1 :] if ours else frames
    return '\n  File "'.join([head, *(kept or frames)])


def when(moment: datetime | None) -> str:
    """Return a time as the reader's clock shows it; the date too where it is not today's."""
    if moment is None:
        return ""
    local = moment.astimezone()
    today = local.date() == datetime.now().astimezone().date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def duration(start: datetime | None, end: datetime | None) -> str:
    """Return how long something took, short; an end that is missing is now."""
    if start is None:
        return ""
    seconds = ((end or datetime.now(tz=start.tzinfo)) - start).total_seconds()
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < _DAY:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"
