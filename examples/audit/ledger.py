"""A notebook outside the database: who began what, when, and who ended it. The demonstration holds it against the journal.

A line is one write to a file opened for appending, so lines of several threads and processes never mix, and a line that was
written is there, whatever happens to the process next.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Line", "noted", "read_ledger"]


@dataclass(frozen=True)
class Line:
    """One line: a step was begun or ended by a process."""

    at: datetime
    pid: int
    what: str
    step: str


@contextmanager
def noted(ledger: str, step: str) -> Iterator[None]:
    """Note the beginning of a step, and its end if it gets there."""
    _append(ledger, "begin", step)
    yield
    _append(ledger, "end", step)


def _append(ledger: str, what: str, step: str) -> None:
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{time.time():.6f} {os.getpid()} {what} {step}\n".encode())
    finally:
        os.close(descriptor)


def read_ledger(ledger: str) -> list[Line]:
    """Return all lines."""
    lines = []
    with open(ledger, encoding="utf-8") as file:
        for text in file:
            at, pid, what, step = text.split(maxsplit=3)
            lines.append(Line(datetime.fromtimestamp(float(at), UTC), int(pid), what, step.strip()))
    return lines
