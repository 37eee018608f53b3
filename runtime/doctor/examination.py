"""The whole examination, as `paddock doctor` makes it."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from pathlib import Path

from ..server.rundir import RunDirectory
from ..store.sqlite import real_path
from .database import examine_database
from .finding import Finding
from .machine import examine_machine
from .rundir import examine_run_dir

__all__ = ["examine"]


def examine(database: str | Path | None = None, run_dir: str | Path | None = None) -> list[Finding]:
    """Look at the machine, and at a database and a run directory where they are named; changes nothing.

    Without `run_dir` the one is looked at that the database's server has noted, or else would use. The database is opened read-only; a
    large one may take up to a minute to check.
    """
    if database is None:
        found = examine_machine()
        return found if run_dir is None else [*found, *examine_run_dir(os.path.abspath(run_dir), None)]
    path = real_path(database)
    server, noted = _server_of(path)
    place = os.path.abspath(run_dir) if run_dir is not None else noted or RunDirectory.place(path)
    return [*examine_machine(path), *examine_database(path, server), *examine_run_dir(place, server)]


def _server_of(database: str) -> tuple[int | None, str | None]:
    """Return pid and run directory of the server that runs on a database, as its lock file has them (fcntl(2), F_GETLK)."""
    try:
        descriptor = os.open(f"{database}-paddock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None, None
    try:
        layout = "qqihh" if sys.platform == "darwin" else "hhqqi"
        wanted = (0, 1, 0, fcntl.F_WRLCK, 0) if layout[0] == "q" else (fcntl.F_WRLCK, 0, 0, 1, 0)
        answer = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *wanted)))
        kind, pid = (answer[3], answer[2]) if layout[0] == "q" else (answer[0], answer[4])
        facts = json.loads(os.pread(descriptor, 16384, 2) or b"{}")
        run_dir = facts.get("run_dir")
    except (OSError, ValueError, AttributeError):
        return None, None
    finally:
        os.close(descriptor)
    return (pid or None) if kind != fcntl.F_UNLCK else None, run_dir if isinstance(run_dir, str) else None
