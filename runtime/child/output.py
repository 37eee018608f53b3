"""What the process prints: read from its own files, line by line, and kept with the instance.

The position up to which a stream is kept commits with the lines, so that after the process's end the server goes on exactly there: it
takes what a crash left unread, what teardown printed, and a last line without a newline.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Literal

from ..base.sparse import first_data
from ..engine.logs import LogSink

__all__ = ["OutputReader", "read_leftover", "split_lines", "tail"]

_READ = 256 * 1024
_LINE_LIMIT = 32 * 1024


class OutputReader:
    """Read what this process and its descendants print.

    Args:
        out_path: the file behind descriptor 1.
        err_path: the file behind descriptor 2.
        sink: where lines go.
        discard: tells whether the code is replaying what was printed before.
    """

    def __init__(
        self, out_path: str, err_path: str, sink: LogSink, discard: Callable[[], bool] = lambda: False
    ) -> None:
        """Open both files for reading."""
        self._streams: list[tuple[Literal["stdout", "stderr"], int]] = [
            ("stdout", os.open(out_path, os.O_RDONLY | os.O_CLOEXEC)),
            ("stderr", os.open(err_path, os.O_RDONLY | os.O_CLOEXEC)),
        ]
        self._positions = {"stdout": 0, "stderr": 0}
        self._sink = sink
        self._discard = discard

    def drain(self, step: tuple[str, int] | None = None) -> None:
        """Hand on every whole line that is there, as printed by a step (name and attempt) where only one can have printed it."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for name, descriptor in self._streams:
            if os.fstat(descriptor).st_size > self._positions[name]:
                self._drain(name, descriptor, step)

    def _drain(self, name: Literal["stdout", "stderr"], descriptor: int, step: tuple[str, int] | None) -> None:
        while data := os.pread(descriptor, _READ, self._past_holes(name, descriptor)):
            lines, used = split_lines(data, final=False)
            if not used:
                return
            at = self._positions[name]
            self._positions[name] += used
            if self._discard():
                self._sink.skip(name, self._positions[name])
                continue
            for text, size in lines:
                at += size
                self._sink.put("info" if name == "stdout" else "warning", text, {}, source=name, position=at, step=step)

    def _past_holes(self, name: Literal["stdout", "stderr"], descriptor: int) -> int:
        """Return where to read on: a flood that nobody read in time has lost its middle, see `RunDirectory.trim`."""
        self._positions[name] = first_data(descriptor, self._positions[name])
        return self._positions[name]


def split_lines(data: bytes, *, final: bool) -> tuple[list[tuple[str, int]], int]:
    """Cut bytes into lines with their sizes in bytes; a very long one is cut, an unfinished one waits unless `final`."""
    lines: list[tuple[str, int]] = []
    position = 0
    while position < len(data):
        end = data.find(b"\n", position, position + _LINE_LIMIT)
        if end >= 0:
            size = end + 1 - position
        elif len(data) - position >= _LINE_LIMIT:
            size = _LINE_LIMIT
        elif final:
            size = len(data) - position
        else:
            break
        text = data[position : position + size].decode(errors="replace").rstrip("\r\n")
        lines.append((text, size))
        position += size
    return lines, position


def read_leftover(path: str, position: int, limit: int) -> list[str]:
    """Return the lines that a dead process printed after `position`, at most `limit` bytes of them; `[]` where the file is gone."""
    try:
        with open(path, "rb") as file:
            file.seek(first_data(file.fileno(), position))
            data = file.read(limit)
    except OSError:
        return []
    return [text for text, _ in split_lines(data, final=True)[0]]


def tail(path: str, limit: int) -> str:
    """Return the end of a file, at most `limit` bytes."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""
