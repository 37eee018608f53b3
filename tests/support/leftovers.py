"""What a test leaves behind: processes, threads, sockets, files.

`Watch` is taken before a test and asked after it. A process belongs to the test if it descends from this one, or if the
environment that it was started with carries the test's marker: so a daemon is found that was orphaned, called setsid and
ended up under init. Only what was not there before counts, so what a module's or session's fixture keeps is left alone.
Where there is no /proc (macOS), psutil answers the same questions, slower, and sockets are not looked at.
"""

import contextlib
import gc
import os
import socket
import stat
import threading
import time
from pathlib import Path

import psutil

MARKER = "PADDOCK_TEST_RUN"
GRACE = 20.0
"""Seconds that processes and threads get to end by themselves."""

_HAS_PROC = Path("/proc/self/environ").exists()
_KTHREADD = 2
"""The parent of the kernel's own threads, on a machine that is no container: many, and none of ours."""


class Watch:
    """A picture of this process's belongings, to compare with later."""

    def __init__(self, marker: str, folder: Path) -> None:
        """Take the picture; `folder` is where stray files would land."""
        self._marker = marker
        self._folder = folder
        self._processes = _pids()
        self._threads = set(threading.enumerate())
        self._sockets = set(_sockets())
        self._files = _files(folder)

    def leftovers(self, grace: float = GRACE) -> list[str]:
        """Describe what is new and does not go away within the grace; kill the processes among it, remove the files."""
        deadline = time.monotonic() + grace
        pause = 0.001
        while True:
            new = self._new_processes()
            if not (new or self._new_threads()) or time.monotonic() >= deadline:
                break
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        found = [_end(pid) for pid in new]  # not asked anew: a standby that is just being forked bears no name yet
        found += [f"thread {thread.name!r}" for thread in self._new_threads()]
        if set(_sockets()) - self._sockets:
            gc.collect()  # a transport in a reference circle is nobody's leak yet
            now = _sockets()
            found += [f"socket {now[inode]}" for inode in now.keys() - self._sockets]
        for path in sorted(_files(self._folder) - self._files):
            found.append(f"file {path}")
            _remove(path)
        return found

    def _new_processes(self) -> list[int]:
        new = _pids() - self._processes  # the few: to look at all that run on the machine takes longer than most tests
        return sorted(pid for pid in new if _is_ours(pid, self._marker) and _standby_of(pid) not in self._processes)

    def _new_threads(self) -> set[threading.Thread]:
        return set(threading.enumerate()) - self._threads


def _pids() -> set[int]:
    """Return all processes of the machine."""
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()} if _HAS_PROC else set(psutil.pids())


def _is_ours(pid: int, marker: str) -> bool:
    """Tell whether a process descends from this one, or carries the marker."""
    me = os.getpid()
    try:
        parent, environ = _look(pid)
    except (OSError, psutil.Error):  # gone meanwhile
        return False
    if f"{MARKER}={marker}".encode() in environ:
        return pid != me
    while parent not in (0, 1, me):
        try:
            parent, _ = _look(parent)
        except (OSError, psutil.Error):
            return False
    return parent == me


def _standby_of(pid: int) -> int | None:
    """Return the fork server of a standby, which comes and goes with it; None of any other process."""
    try:
        head, _, tail = _read(f"/proc/{pid}/stat").rpartition(b")")
    except OSError:
        return None
    return int(tail.split()[1]) if head.endswith(b"(paddock-standby") else None


def _look(pid: int) -> tuple[int, bytes]:
    """Return a process's parent, and the environment that it was started with."""
    if not _HAS_PROC:
        return _look_psutil(pid)
    # The name stands in parentheses and may hold anything, parentheses too.
    parent = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    environ = b""
    with contextlib.suppress(OSError):  # another user's
        if parent != _KTHREADD:
            environ = _read(f"/proc/{pid}/environ")
    return parent, environ


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(fd, 65536), b""))
    finally:
        os.close(fd)


def _look_psutil(pid: int) -> tuple[int, bytes]:
    process = psutil.Process(pid)
    parent, environ = process.ppid(), b""
    with contextlib.suppress(psutil.Error, OSError):
        environ = f"{MARKER}={process.environ().get(MARKER, '')}".encode()
    return parent, environ


def _end(pid: int) -> str:
    """Kill one process and say what it was."""
    try:
        process = psutil.Process(pid)
        state, command = process.status(), process.name()
        with contextlib.suppress(psutil.ZombieProcess):
            command = " ".join(process.cmdline()) or command
        process.kill()  # psutil compares the start time: never a stranger that got the pid since
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=0.2)
    except psutil.Error:
        return f"process {pid}, which ended at last"
    return f"process {pid} ({state}): {command[:200]}"


def _sockets() -> dict[str, str]:
    """Map inode → description, for the sockets that this process holds open."""
    found: dict[str, str] = {}
    if not _HAS_PROC:
        return found
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith("socket:"):
                found[target] = _describe(int(fd))
    return found


def _describe(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        return f"fd {fd}, {duplicate.family.name}, {duplicate.getsockname()!r}"


def _files(folder: Path) -> set[Path]:
    return set(folder.iterdir())


def _remove(path: Path) -> None:
    if not stat.S_ISDIR(path.lstat().st_mode):
        path.unlink()
        return
    for inner in path.iterdir():
        _remove(inner)
    path.rmdir()
