"""Give a file's room back from its middle (fallocate(2), FALLOC_FL_PUNCH_HOLE): its length and what else it holds stay.

A file that others append to can be neither rotated nor cut without them knowing; a hole they do not notice. Python has no call for it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

__all__ = ["first_data", "punch"]

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_BLOCK = 4096


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def punch(descriptor: int, start: int, end: int) -> bool:
    """Free the whole blocks between two offsets in bytes; False where the system or the file system cannot."""
    first, last = -(-start // _BLOCK) * _BLOCK, end // _BLOCK * _BLOCK
    if not sys.platform.startswith("linux") or last <= first:
        return False
    offset, length = ctypes.c_int64(first), ctypes.c_int64(last - first)
    return int(_libc().fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, offset, length)) == 0


def first_data(descriptor: int, position: int) -> int:
    """Return where the next data are, from a position on: behind a hole; the position itself where there are none, or no such call."""
    if not hasattr(os, "SEEK_DATA"):
        return position
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError:
        return position
