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

from ..base.sparse import extent
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
        self._begun: dict[str, tuple[int, tuple[str, int] | None]] = {}
        self._sink = sink
        self._discard = discard

    def drain(self, step: tuple[str, int] | None = None) -> None:
        """Hand on every whole line that is there, as printed by a step (name and attempt) where only one can have printed it."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # code may have put anything in its place
                stream.flush()
        for name, descriptor in self._streams:
            # a third of what fstat takes, three times a step
            if os.lseek(descriptor, 0, os.SEEK_END) > self._positions[name]:
                self._drain(name, descriptor, step)
                self._note_begun(name, os.fstat(descriptor).st_size, step)

    def _note_begun(self, name: str, size: int, step: tuple[str, int] | None) -> None:
        """Remember which step has begun a line that is not finished yet."""
        position = self._positions[name]
        if size > position and self._begun.get(name, (None, None))[0] != position:
            self._begun[name] = position, step

    def finish(self) -> None:
        """Hand on an unfinished last line, as printed by the step that has begun it: the code that prints is over."""
        self.drain()
        for name, descriptor in self._streams:
            position, step = self._begun.get(name, (None, None))
            size = os.fstat(descriptor).st_size
            if position != self._positions[name] or size - position > _LINE_LIMIT or self._sink.full or self._discard():
                continue  # none, or nothing that is to be kept
            text = os.pread(descriptor, size - position, position).decode(errors="replace")
            self._positions[name] = size
            self._sink.put("info" if name == "stdout" else "warning", text, {}, source=name, position=size, step=step)

    def close(self) -> None:
        """Close both files."""
        for _, descriptor in self._streams:
            os.close(descriptor)

    def _drain(self, name: Literal["stdout", "stderr"], descriptor: int, step: tuple[str, int] | None) -> None:
        while not self._sink.full:
            # a flood that nobody read in time has lost its middle (`RunDirectory.trim`): lines end where a hole begins
            at, end, cut = extent(descriptor, self._positions[name])
            data = os.pread(descriptor, min(_READ, end - at), at)
            lines, used = split_lines(data, final=cut and at + len(data) == end)
            if not used:
                return
            self._positions[name] = at + used
            if self._discard():
                self._sink.skip(name, self._positions[name])
                continue
            begun, first = self._begun.get(name, (None, None))
            for text, size in lines:
                by = first if at == begun else step
                at += size
                self._sink.put("info" if name == "stdout" else "warning", text, {}, source=name, position=at, step=by)
        self._positions[name] = os.fstat(descriptor).st_size
        self._sink.skip(
            name, self._positions[name]
        )  # or what is dropped here would be kept at the process's end after all


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
            data = b""
            while len(data) < limit and (piece := _next_piece(file.fileno(), position, limit - len(data))):
                position, data = piece[0], data + piece[1]
    except OSError:
        return []
    return [text for text, _ in split_lines(data, final=True)[0]]


def _next_piece(descriptor: int, position: int, limit: int) -> tuple[int, bytes] | None:
    """Return the data that come next, at most `limit` bytes of them, and where they end; None at the end of the file."""
    start, end, _ = extent(descriptor, position)
    data = os.pread(descriptor, min(limit, end - start), start)
    return (start + len(data), data) if data else None


def tail(path: str, limit: int) -> str:
    """Return the end of a file, at most `limit` bytes."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""
