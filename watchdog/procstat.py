"""Read what the kernel says of processes: /proc on Linux, psutil elsewhere.

The watchdog looks at every child once per interval and a child at itself at start, so on Linux `/proc/PID/stat` is
parsed by hand (about 15 µs, psutil takes ten times that and 20 ms to import).
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

__all__ = [
    "LINUX",
    "TICKS_PER_SECOND",
    "ProcessStat",
    "catches_signal",
    "children_of",
    "environ_entries",
    "list_pids",
    "read_stat",
    "thread_states",
]

LINUX = sys.platform.startswith("linux")

#: What one unit of `ProcessStat.cpu_ticks` is.
TICKS_PER_SECOND: int = os.sysconf("SC_CLK_TCK") if LINUX else 100

_STAT_SIZE = 4096
# psutil's words for the letters of proc_pid_stat(5).
_LETTERS = {
    "running": "R",
    "sleeping": "S",
    "disk-sleep": "D",
    "stopped": "T",
    "tracing-stop": "t",
    "zombie": "Z",
    "dead": "X",
    "idle": "I",
}


class ProcessStat(NamedTuple):
    """One line of the kernel's process table.

    Attributes:
        pid: the process.
        state: its main thread's state, a letter of proc_pid_stat(5): R, S, D, T, t, Z, X, I. A process whose main thread has
            ended while others go on is none that is gone, and shows S.
        ppid: its parent.
        pgid: its process group.
        sid: its session.
        cpu_ticks: CPU time of all its threads, in `TICKS_PER_SECOND`.
        start_time: ticks since boot on Linux, milliseconds since the epoch elsewhere.
    """

    pid: int
    state: str
    ppid: int
    pgid: int
    sid: int
    cpu_ticks: int
    start_time: int


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _STAT_SIZE)
    finally:
        os.close(descriptor)


def _parse(pid: int, line: bytes) -> ProcessStat:
    # The command's name stands in parentheses and may hold spaces and parentheses itself: count from the last one.
    fields = line[line.rindex(b")") + 2 :].split(None, 20)
    state = fields[0].decode()
    if state == "Z" and int(fields[17]) > 1:
        state = "S"  # its other threads live (or are still dying, locks and all): nobody may take its place
    return ProcessStat(
        pid,
        state,
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        int(fields[11]) + int(fields[12]),
        int(fields[19]),
    )


def read_stat(pid: int) -> ProcessStat:
    """Return what the kernel knows of a process, zombies included.

    Raises:
        ProcessLookupError: there is no such process.
    """
    if not LINUX:
        return _read_stat_psutil(pid)
    try:
        return _parse(pid, _read(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
        raise ProcessLookupError(f"no process {pid}") from None


def _read_stat_psutil(pid: int) -> ProcessStat:
    import psutil

    try:
        process = psutil.Process(pid)
        state = _LETTERS.get(process.status(), "S")
        ppid, start_time = process.ppid(), int(process.create_time() * 1000)
        try:
            times = process.cpu_times()
            cpu = int((times.user + times.system) * TICKS_PER_SECOND)
        except psutil.Error:  # a zombie, or another user's
            cpu = 0
        return ProcessStat(pid, state, ppid, os.getpgid(pid), os.getsid(pid), cpu, start_time)
    except (psutil.Error, OSError):
        raise ProcessLookupError(f"no process {pid}") from None


def list_pids() -> list[int]:
    """Return the pids of all processes that exist now."""
    if LINUX:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    import psutil

    return list(psutil.pids())


def thread_states(pid: int) -> set[str]:
    """Return the states of all threads; empty for a process that is gone.

    Where threads cannot be seen it is the letter of the process alone.
    """
    if not LINUX:
        try:
            return {read_stat(pid).state}
        except ProcessLookupError:
            return set()
    states: set[str] = set()
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return states
    for thread in threads:
        try:
            line = _read(f"/proc/{pid}/task/{thread}/stat")
            states.add(_parse(pid, line).state)
        except (OSError, ValueError, IndexError):
            continue
    return states


def children_of(pid: int) -> list[int]:
    """Return the children of all of a process's threads now (proc(5), /proc/pid/task/tid/children); [] where nobody tells."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # whole: half a number names a stranger
                found += map(int, file.read().split())
    except (OSError, ValueError):
        return found
    return found


def environ_entries(pid: int) -> list[bytes]:
    """Return the environment that a process was executed with; empty where it is not ours to see.

    proc_pid_environ(5): what it changed later does not show, so a fork without an exec shows that of its ancestor.
    """
    if LINUX:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return file.read().split(b"\0")
        except OSError:
            return []
    import psutil

    try:
        return [os.fsencode(f"{key}={value}") for key, value in psutil.Process(pid).environ().items()]
    except (psutil.Error, OSError):
        return []


def catches_signal(pid: int, number: int) -> bool | None:
    """Tell whether a process has a handler for a signal; None where that cannot be seen.

    proc_pid_status(5): `SigCgt` is a mask with bit N-1 for signal N.
    """
    if not LINUX:
        return None
    try:
        status = _read(f"/proc/{pid}/status")
        mask = status.split(b"SigCgt:\t", 1)[1].split(b"\n", 1)[0]
        return bool(int(mask, 16) >> (number - 1) & 1)
    except (OSError, IndexError, ValueError):
        return None
