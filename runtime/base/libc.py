"""The C library, for the system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import functools

__all__ = ["libc"]


@functools.cache
def libc() -> ctypes.CDLL:
    """Return it, opened at the first call; a fork finds its parent's at hand."""
    return ctypes.CDLL(None, use_errno=True)
