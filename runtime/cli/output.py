"""What the commands have in common on their way out: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import datetime
from typing import Any, BinaryIO, NoReturn

from rich.console import Console
from rich.text import Text

from ..base.records import Status

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "LEVEL_STYLES",
    "NARROW",
    "STYLES",
    "USAGE",
    "LineWriter",
    "complain",
    "console",
    "duration",
    "is_own_file",
    "leave_broken_pipe",
    "own_frames",
    "prepare_streams",
    "print_id",
    "print_json",
    "print_json_line",
    "say",
    "short_id",
    "short_seconds",
    "tell_live",
    "when",
]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

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
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "bold red"}

#: Columns below which ids are shortened.
NARROW = 120

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHORT = 18
_RUNTIME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(json.__file__ or "")).removesuffix("json")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """End in silence: whoever read has seen enough."""
        leave_broken_pipe()


def leave_broken_pipe() -> NoReturn:
    """Exit with 0 though nobody reads any more, without a word from the interpreter about it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    raise SystemExit(0)


def prepare_streams() -> None:
    """Make output that the terminal's encoding does not hold a question mark, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def console(*, stderr: bool = False) -> Console:
    """Return a console; without a terminal it is wide, so that no id is cut where a program reads it."""
    made = _Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = 200
    return made


class LineWriter:
    """Print records, a line each: on a terminal cut to its width, elsewhere whole."""

    def __init__(self) -> None:
        """Look at stdout."""
        self._console = console()
        self.narrow = self._console.is_terminal and self._console.width < NARROW

    def print(self, line: Text, *, fold: bool = False) -> None:
        """Print one; `fold` lets a long one go on in the next line."""
        cut = self._console.is_terminal and not fold
        self._console.print(line, no_wrap=cut, overflow="ellipsis" if cut else None, soft_wrap=not cut, crop=cut)


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
    _write(out.buffer, text)


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    _write(sys.stdout.buffer, json.dumps(value, ensure_ascii=False))


def _write(out: BinaryIO, text: str) -> None:
    try:
        out.write(text.encode("utf-8", "replace") + b"\n")
        out.flush()
    except BrokenPipeError:
        leave_broken_pipe()


def print_id(ident: str) -> None:
    """Print an id on stdout, for the next command."""
    print(ident, flush=True)  # noqa: T201  what was asked for


def tell_live(live: bool) -> None:
    """Say where nothing happens yet."""
    if not live:
        say("no server runs on this database: it takes effect when one starts")


def short_id(ident: str) -> str:
    """Return an id in few columns: of one that we made, the beginning, which tells it from others."""
    return ident[:_SHORT] if _UUID.fullmatch(ident) else ident


def own_frames(traceback: str | None) -> str | None:
    """Return a traceback from the user's code on: the frames above it are Paddock's, and the same for everybody."""
    if traceback is None:
        return None
    head, *frames = traceback.split('\n  File "')
    ours = [number for number, frame in enumerate(frames) if frame.startswith(_RUNTIME)]
    kept = frames[ours[-1] + 1 :] if ours else frames
    return '\n  File "'.join([head, *(kept or frames)])


def is_own_file(path: str) -> bool:
    """Tell whether a frame's file is Paddock's, or Python's own."""
    return path.startswith((_RUNTIME, _LIBRARY)) and "site-packages" not in path.removeprefix(_RUNTIME)


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
    return short_seconds(((end or datetime.now(tz=start.tzinfo)) - start).total_seconds())


def short_seconds(seconds: float) -> str:
    """Return a duration in seconds as a person says it."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    for unit, name, lower, lower_name in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min")):
        if seconds >= unit:
            return _two(int(seconds), unit, name, lower, lower_name)
    return _two(int(seconds), _MINUTE, "min", 1, "s")


def _two(seconds: int, unit: int, name: str, lower: int, lower_name: str) -> str:
    whole, rest = divmod(seconds, unit)
    return f"{whole} {name} {rest // lower} {lower_name}" if rest >= lower else f"{whole} {name}"
