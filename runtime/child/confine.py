"""Put on this process what its workflow's registration says it may use, before any code of the workflow's runs.

**Memory.** Two things bound it. The kernel refuses what goes over `RLIMIT_DATA` (Linux 4.7; private writable memory), so the code
that asks for too much gets a `MemoryError`: a step's error with a traceback. `RLIMIT_AS` would count what is only reserved, such as
64 MB for each thread's heap, and refuse what was never used. The kernel's limit is per process and leaves shared memory out, so the
watchdog looks at the whole tree as well, and ends it where it holds more.

What a forked child has from the fork server counts as its own in the tables of the kernel, so it counts here: the limit is what a
process may be seen to hold. `RLIMIT_DATA` counts what is reserved too, such as the 8 MB of each thread's stack, of which little is
used. So it is set anew with each heartbeat and each step: to what is reserved now, and as much more as the limit leaves.

**CPU.** At the soft limit the kernel sends SIGXCPU, which writes the stacks and then ends the process; one that does not end for
it is killed a second later.

Limits that are lower already stay as they are; nothing here raises one.
"""

from __future__ import annotations

import faulthandler
import math
import os
import resource
import signal
import sys
import time
from typing import IO

from ..base.errors import LimitNotEnforceable
from ..base.limits import ProcessLimits, environment
from ..base.tasks_group import join
from .spec import MARKER, ChildSpec

__all__ = ["bound_memory", "confine", "trace_cpu_limit"]

_ROOM = 8 * 2**20
#: Threads of Paddock's own: the loop's, the heartbeat's, the database's, a plugin's database, and as many for steps.
_OWN_TASKS = 8


def confine(spec: ChildSpec) -> None:
    """Apply an execution's limits to this process.

    Raises:
        LimitNotEnforceable: one cannot be applied after all; it is named.
    """
    limits = spec.limits
    try:
        if spec.tasks_group is not None and limits.processes is not None:
            join(spec.tasks_group, limits.processes + _OWN_TASKS)
        _apply_environment(limits, spec.marker)
        if limits.nice:
            os.setpriority(os.PRIO_PROCESS, 0, max(limits.nice, os.getpriority(os.PRIO_PROCESS, 0)))
        if limits.open_files is not None:
            _lower(resource.RLIMIT_NOFILE, limits.open_files)
        if limits.cpu_limit is not None:
            whole = math.ceil(limits.cpu_limit)
            _lower(resource.RLIMIT_CPU, whole, whole + 1)
        if limits.memory_limit is not None:
            _check_room(limits.memory_limit)
            bound_memory(limits.memory_limit)
    except (OSError, ValueError) as error:
        raise LimitNotEnforceable(f"the limits cannot be applied to the process: {error}") from None


def _apply_environment(limits: ProcessLimits, marker: str) -> None:
    if limits.env is not None:
        wanted = {**environment(limits.env, os.environ), MARKER: marker}
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)
        time.tzset()
    if limits.cwd is not None:
        sys.path[:] = [os.path.abspath(entry) for entry in sys.path]
        try:
            os.chdir(limits.cwd)
        except OSError as error:
            raise LimitNotEnforceable(f"cwd: {limits.cwd} cannot be entered: {error.strerror}") from None


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    _, most = resource.getrlimit(kind)
    hard = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(kind, (soft, hard))


def bound_memory(limit: int) -> None:
    """Let the kernel refuse what would take this process over a limit in bytes; elsewhere than on Linux the watchdog alone counts."""
    if sys.platform.startswith("linux"):
        reserved, held = _own_memory()
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        soft = reserved + max(0, limit - held)
        resource.setrlimit(resource.RLIMIT_DATA, (soft if most == resource.RLIM_INFINITY else min(soft, most), most))


def _check_room(limit: int) -> None:
    held = _own_memory()[1] if sys.platform.startswith("linux") else 0
    if limit < held + _ROOM:
        raise LimitNotEnforceable(
            f"memory_limit: {limit / 2**20:.0f} MB is too little: a process of this workflow holds {held / 2**20:.0f} MB before "
            "its first step; register it with more"
        )


def _own_memory() -> tuple[int, int]:
    """Return the private writable memory of this process, and how much of it is in use (proc(5), /proc/pid/status); bytes."""
    found: dict[str, int] = {}
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("VmData", "RssAnon"):
                found[name] = 1024 * int(rest.split()[0])
    return found["VmData"], found["RssAnon"]


def trace_cpu_limit(trace: IO[str]) -> None:
    """Have the stacks written when the CPU limit is reached; the signal then does what it always does."""
    faulthandler.register(signal.SIGXCPU, trace, all_threads=True, chain=True)
