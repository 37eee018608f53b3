"""Files for their owner alone."""

from __future__ import annotations

import os

__all__ = ["open_private"]


def open_private(path: str, flags: int) -> int:
    """Open a file as `open(…, opener=open_private)` wants it: made 0600, and closed in programs that are executed."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
