"""Room on a disk."""

from __future__ import annotations

import os

__all__ = ["low_space"]

_LEAST_FREE = 16 * 2**20
_LEAST_SHARE = 0.01


def low_space(path: str) -> str | None:
    """Return a complaint where less than 16 MiB, and less than a hundredth of it, is free on the disk of a path."""
    if path == ":memory:":
        return None
    try:
        disk = os.statvfs(os.path.dirname(path) if not os.path.exists(path) else path)
    except OSError:
        return None
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if free >= min(_LEAST_FREE, size * _LEAST_SHARE):
        return None
    return f"only {free >> 10:,} KiB are free on the disk of {path}; make room"
