"""How long a thread may compute before others get their turn, and so how soon it gets its own.

The kernel's fair scheduler (EEVDF) runs whoever has the earliest deadline, and a deadline lies a slice ahead: a thread that asks for short
slices gets no more of a core than before, but gets it sooner, and may interrupt one that is in the middle of a longer slice. The server
computes little and often, beside children that keep every core busy. Since Linux 6.12 `sched_runtime` of a normal thread is that
request (sched_setattr(2); kernel/sched/syscalls.c, `__setparam_fair`); earlier kernels ignore it.
"""

from __future__ import annotations

import os
import platform
import struct
import sys

from .libc import libc

__all__ = ["ask_for_short_slices", "forget_slices"]

_SHORT_NS = 200_000
_CALLS = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
#: size, policy, flags, nice, priority, runtime, deadline, period, and the bounds of utilisation: struct sched_attr.
_ATTRIBUTES = struct.Struct("IIQiIQQQII")


def ask_for_short_slices() -> bool:
    """Ask for them for the calling thread; return whether the kernel took it. One with a real-time or batch policy keeps what it has."""
    return _set_slice(_SHORT_NS)


def forget_slices() -> bool:
    """Give the calling thread the system's slice again: programs that it starts would inherit the short one."""
    return _set_slice(0)


def _set_slice(nanoseconds: int) -> bool:
    number = _CALLS.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0, 0, 0)
    return int(libc().syscall(number, 0, attributes, 0)) == 0
