"""Who else has a database open: by /proc, for a person who is to find the reader that lets the WAL grow."""

from __future__ import annotations

import contextlib
import os

__all__ = ["openers"]

_NAME_LENGTH = 60


def openers(path: str) -> dict[int, str]:
    """Return pid and command of each process that has the database open, as far as this user may look; `{}` without /proc."""
    wanted = {path, f"{path}-shm", f"{path}-wal"}
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                if _has_open(pid, wanted):
                    found[pid] = _command(pid)
    return found


def _has_open(pid: int, wanted: set[str]) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{name}") in wanted:
                return True
    return False


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(4096).rstrip(b"\0").split(b"\0")
    return b" ".join(words).decode(errors="replace")[:_NAME_LENGTH]
