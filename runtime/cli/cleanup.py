"""`paddock cleanup`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..base.duration import parse_duration
from ..base.errors import UsageError
from .arguments import Db, Idents, Json, Name, StatusName, parse_status, resolve
from .database import find_database
from .desk import ask
from .output import print_json, say

__all__ = ["cleanup"]


def cleanup(
    ids: Idents = None,
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="DURATION", help="All that ended longer ago, such as 30d.", show_default=False
        ),
    ] = None,
    name: Name = None,
    status: StatusName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    db: Db = None,
    json: Json = False,
) -> None:
    """Delete finished instances with their history, for good.

    [dim]paddock cleanup 0199c3d2[/]
    [dim]paddock cleanup --older-than 30d --status completed --yes[/]
    """
    if (older_than is None) == (not ids):
        raise UsageError("which instances? Give either ids or --older-than, such as --older-than 30d")
    if ids:
        if name is not None or status is not None:
            raise UsageError("--name and --status narrow --older-than; ids need neither")
        for path, ident in [resolve(db, text) for text in ids]:
            done = ask(path, "cleanup", {"id": ident})
            if json:
                print_json({"id": ident, "live": done.live})
            else:
                say(f"{ident} is deleted")
        return
    path = find_database(db)
    seconds = parse_duration(older_than or 0)
    wanted = parse_status(status)
    if not yes and sys.stdin.isatty() and not typer.confirm("Delete them for good?", err=True):
        raise typer.Exit
    done = ask(path, "cleanup_all", {"name": name, "status": wanted and wanted.value, "older_than": seconds})
    if json:
        print_json({"count": done.result, "live": done.live})
    else:
        say(f"{done.result} deleted")
