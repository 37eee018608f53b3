"""Give a file's room back from its middle (fallocate(2), FALLOC_FL_PUNCH_HOLE): its length and what else it holds stay.

A file that others append to can be neither rotated nor cut without them knowing; a hole they do not notice. Python has no call for it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from .libc import libc

__all__ = ["extent", "punch"]

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_BLOCK = 4096


def punch(descriptor: int, start: int, end: int) -> bool:
    """Free the whole blocks between two offsets in bytes; False where the system or the file system cannot."""
    first, last = -(-start // _BLOCK) * _BLOCK, end // _BLOCK * _BLOCK
    if not sys.platform.startswith("linux") or last <= first:
        return False
    offset, length = ctypes.c_int64(first), ctypes.c_int64(last - first)
    return int(libc().fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, offset, length)) == 0


def extent(descriptor: int, position: int) -> tuple[int, int, bool]:
    """Return begin and end of the next data from a position on, without the holes around them, and whether a hole follows.

    Begin and end are the file's size where there are none. What others append meanwhile is not taken for the far side of a hole: the size is
    asked for first, and a file without a hole has its end there or beyond.
    """
    size = os.fstat(descriptor).st_size
    if position >= size:
        return size, size, False
    if not hasattr(os, "SEEK_DATA"):
        return position, size, False
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
    except OSError as error:  # ENXIO: nothing but a hole up to the end
        return (size if error.errno == errno.ENXIO else position), size, False
    return start, end, end < size
