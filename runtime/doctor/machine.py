"""The machine: what its kernel offers, and what is degraded where it does not. Everything is tried, nothing is changed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator

from ..base.errors import RunDirectoryError
from ..base.libc import libc
from ..base.tasks_group import groups_folder
from ..server.rundir import RunDirectory
from ..store.space import low_space
from .finding import Finding, note, ok, problem

__all__ = ["examine_machine"]

_AREA = "machine"
_PR_GET_CHILD_SUBREAPER = 37
_FEW_FILES = 256
_SAFE_CHECKPOINTS = (3, 51, 3)
_INITS = frozenset(
    {"systemd", "init", "tini", "dumb-init", "docker-init", "catatonit", "s6-svscan", "runit", "launchd", "openrc-init"}
)


def examine_machine(database: str | None = None) -> list[Finding]:
    """Look at the kernel, the limits and the temporary folder; with a database, at the place of its run directory."""
    return [*_versions(), *_kernel(), *_limits(), *_first_process(), *_temporary(database)]


def _versions() -> Iterator[Finding]:
    yield ok(_AREA, f"Python {platform.python_version()} on {platform.system()} {platform.release()}")
    if sqlite3.sqlite_version_info < _SAFE_CHECKPOINTS:
        yield ok(
            _AREA,
            f"SQLite {sqlite3.sqlite_version}; before 3.51.3 a checkpoint may not race a commit, so the server alone makes them",
        )
    else:
        yield ok(_AREA, f"SQLite {sqlite3.sqlite_version}")


def _kernel() -> Iterator[Finding]:
    if _has_pidfds():
        yield ok(_AREA, "pidfds: a signal reaches the process that it is meant for, and an exit is noticed at once")
    else:
        yield note(
            _AREA,
            "no pidfds: a process is told by its pid and start time, checked right before each signal, and exits are looked for 20 times a second",
            "Linux 5.3 or later has them",
        )
    if not sys.platform.startswith("linux"):
        yield note(
            _AREA,
            f"{platform.system()} has no subreaper, no /proc and no way to tell a stalled disk from a stuck process: a program that an instance "
            "starts and that leaves its session may outlive it, and the watchdog knows less",
            "run what must not leave anything behind on Linux",
        )
        return
    if _can_subreap():
        yield ok(_AREA, "subreaper: what an instance starts stays in its tree, however often it forks")
    else:
        yield note(
            _AREA,
            "no subreaper: programs that fork twice are found by their environment only",
            "Linux 3.4 or later has it",
        )
    if groups_folder() is not None:
        yield ok(_AREA, "control groups: a limit on the number of an instance's processes can be enforced")
    else:
        yield note(
            _AREA,
            "no control group for our own use: `register(processes=…)` is refused",
            "systemd's Delegate=yes gives one",
        )
    with contextlib.suppress(OSError):
        if b"hidepid" in _mount_options("/proc"):
            yield note(_AREA, "/proc hides the processes of others (hidepid); our own are seen all the same")


def _has_pidfds() -> bool:
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _can_subreap() -> bool:
    answer = ctypes.c_int()
    return int(libc().prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)) == 0


def _mount_options(point: str) -> bytes:
    with open("/proc/mounts", "rb") as file:
        return next((line.split()[3] for line in file if line.split()[1] == point.encode()), b"")


def _limits() -> Iterator[Finding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        yield problem(
            _AREA,
            f"only {files} open files are allowed; a server needs about 20, and two for each child",
            "raise it: `ulimit -n 4096`, or LimitNOFILE= of the service",
        )
    else:
        yield ok(_AREA, f"open files: up to {files if files != resource.RLIM_INFINITY else 'any number'}")
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if processes != resource.RLIM_INFINITY and processes < _FEW_FILES:
        yield problem(
            _AREA,
            f"only {processes} processes and threads are allowed for this user",
            "raise it: `ulimit -u 4096`, or LimitNPROC= of the service",
        )
    size = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if size != resource.RLIM_INFINITY:
        yield problem(
            _AREA,
            f"no file may grow past {size:,} bytes (ulimit -f): the database cannot either",
            "lift it: `ulimit -f unlimited`",
        )


def _first_process() -> Iterator[Finding]:
    """In a container the first process inherits every orphan, and many an application reaps none."""
    with contextlib.suppress(OSError), open("/proc/1/comm", encoding="utf-8") as file:
        name = file.read().strip()
        if name not in _INITS and os.path.exists("/.dockerenv"):
            yield note(
                _AREA,
                f"process 1 of this container is {name!r}, which may never reap what is orphaned",
                "start the container with an init: `docker run --init`",
            )


def _temporary(database: str | None) -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    if complaint := low_space(folder):
        yield problem(_AREA, complaint, "run directories lie there; make room")
    if not os.access(folder, os.W_OK | os.X_OK):
        yield problem(
            _AREA,
            f"the temporary folder {folder} cannot be written",
            "set TMPDIR, or name a folder with AppServer(run_dir=…)",
        )
    if not hasattr(socket, "AF_UNIX"):
        yield note(
            _AREA,
            "no Unix sockets: the processes speak over TCP on loopback, with a token",
            'set WorkflowsConfig(transport="tcp")',
        )
    elif database is not None:
        try:
            RunDirectory.check_length(RunDirectory.place(database))
        except RunDirectoryError as error:
            yield problem(_AREA, str(error), "name a short folder with AppServer(run_dir=…), or set TMPDIR to one")
