"""`paddock backup`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import UsageError
from ..store.schemes import database_of
from ..store.sqlite_database import SqliteDatabase
from .arguments import Db, Json
from .database import find_database
from .output import print_json, say

__all__ = ["backup"]


def backup(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER", show_default=False, help="A new file; or a folder, for a name with the time."
        ),
    ],
    db: Db = None,
    json: Json = False,
) -> None:
    """Copy the database, also while a server runs on it.

    The copy is of one moment, checked, readable for you alone, and there only when it is whole. Nothing waits for it.

    [dim]paddock backup before-the-upgrade.db[/]
    [dim]paddock backup /var/backups/shop --db /var/lib/shop/app.db[/]
    """
    path = find_database(db)
    if not isinstance(database_of(path), SqliteDatabase):
        raise UsageError("this database is no file; PostgreSQL's own tools make its backups: pg_dump, or a base backup")
    from ..store.backup import back_up

    if target.is_dir():
        target /= f"{Path(path).stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
    size = back_up(path, target)
    if json:
        print_json({"file": str(target), "bytes": size})
    else:
        say(f"{target} is a backup of {path}, {size / 2**20:.1f} MB")
