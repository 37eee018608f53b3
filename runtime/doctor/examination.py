"""The whole examination, as `paddock doctor` makes it."""

from __future__ import annotations

import os
from pathlib import Path

from ..base.errors import PaddockError
from ..server.rundir import RunDirectory
from ..store.schemes import database_of
from ..store.sqlite_database import SqliteDatabase
from ..store.turn import ServerNote
from .database import examine_database
from .elsewhere import examine_elsewhere
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
    named = database_of(database)
    inside: list[Finding] = []
    try:
        note = named.note() or ServerNote(pid=0)
        server, identity = note.pid or None, named.identity
    except PaddockError:  # it is away: what is said of it says so
        note, server, identity = ServerNote(pid=0), None, named.name
    if isinstance(named, SqliteDatabase):
        inside = examine_database(named.path, server)
    else:
        inside = examine_elsewhere(named, server)
    place = os.path.abspath(run_dir) if run_dir is not None else note.run_dir or RunDirectory.place(identity)
    here = server if note.host is None else None
    return [*examine_machine(identity), *inside, *examine_run_dir(place, here)]
