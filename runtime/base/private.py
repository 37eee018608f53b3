"""Files for their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

__all__ = ["open_private", "open_to_others"]


def open_private(path: str, flags: int) -> int:
    """Open a file as `open(…, opener=open_private)` wants it: made 0600, and closed in programs that are executed."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def open_to_others(paths: Iterable[str]) -> dict[str, str]:
    """Return which of some files more than their owner may open, each with its mode as chmod(1) writes it; missing ones are left out."""
    found = {}
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            found[path] = f"{stat.S_IMODE(mode):o}"
    return found
