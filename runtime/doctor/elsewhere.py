"""A database that is no SQLite file: can it be reached, what does it say of itself, and the work in it."""

from __future__ import annotations

from ..base.errors import PaddockError
from ..store.database import Database
from .database import leases, schema_version, work
from .finding import Finding, Level, ok, problem

__all__ = ["examine_elsewhere"]

_AREA = "database"


def examine_elsewhere(database: Database, server: int | None) -> list[Finding]:
    """Look at a database of any kind, whose server has the pid `server`, or that has none."""
    found: list[Finding] = []
    try:
        with database.reader() as reader:
            found += [ok(_AREA, database.name), schema_version(reader.version)]
            remarks = reader.read(lambda tx: list(database.check_up(tx)))
            found += [Finding(_AREA, Level(remark.level), remark.text, remark.advice) for remark in remarks]
            found += reader.read(lambda tx: [*work(tx, server), *leases(tx, server)])
    except PaddockError as error:
        found.append(problem(_AREA, str(error), "see what stands in the way, and try again"))
    return found
