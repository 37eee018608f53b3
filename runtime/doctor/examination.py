"""The whole examination, as `paddock doctor` makes it."""

from __future__ import annotations

import os
from pathlib import Path

from ..server.rundir import RunDirectory
from ..store.sqlite import real_path
from ..store.turn import ServerNote, read_note
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
    note = read_note(path) or ServerNote(pid=0)
    server = note.pid or None
    place = os.path.abspath(run_dir) if run_dir is not None else note.run_dir or RunDirectory.place(path)
    return [*examine_machine(path), *examine_database(path, server), *examine_run_dir(place, server)]
