"""Measure the memory of a process and of all that it has started.

Counted is what is the processes' own and cannot be dropped: anonymous and shared-memory pages, and what of them is in
swap. Pages of files are the kernel's to take back. A process that forks shares its pages with its children until one of
them writes: added up plainly they would count once for each, and a program that forks workers would be ended for memory
that it never had. So the plain sum, which is cheap and never too small, is only believed for a single process; for more
than one the kernel is asked for each one's share (`Pss`, which costs a walk through its page tables).

The tree is read from parent to child. Who is orphaned becomes the instance's process's own child, because that is a
subreaper, so nobody is missed.
"""

from __future__ import annotations

import os

from .procstat import LINUX

__all__ = ["process_memory", "tree_memory"]

_PLAIN = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_SHARED = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


def tree_memory(pid: int) -> int:
    """Return the bytes that a process and its descendants hold; 0 for a process that is gone."""
    if not LINUX:
        return _portable(pid)
    members = _descendants(pid)
    if len(members) == 1:
        return process_memory(pid)
    return sum(_sum(f"/proc/{member}/smaps_rollup", _SHARED) or process_memory(member) for member in members)


def process_memory(pid: int) -> int:
    """Return the bytes that one process holds, those included that it shares with its parent since a fork."""
    return _sum(f"/proc/{pid}/status", _PLAIN) if LINUX else _portable(pid)


def _descendants(root: int) -> list[int]:
    """Return a process and all that descend from it (proc(5), /proc/pid/task/tid/children)."""
    members, at = [root], 0
    while at < len(members):
        pid = members[at]
        at += 1
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    members += [int(child) for child in file.read().split()]
        except OSError:
            continue
    return members


def _sum(path: str, names: tuple[bytes, ...]) -> int:
    try:
        with open(path, "rb") as file:
            return 1024 * sum(int(line.split()[1]) for line in file if line.startswith(names))
    except (OSError, ValueError):
        return 0


def _portable(pid: int) -> int:
    import psutil

    try:
        process = psutil.Process(pid)
        return sum(member.memory_info().rss for member in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0
