"""`paddock schedules`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..base.errors import UsageError
from ..store import schedules as rows
from .arguments import Db, Json, reading
from .desk import ask
from .output import console, print_json, say, short_seconds, when

__all__ = ["schedules"]


def schedules(
    db: Db = None,
    remove: Annotated[
        str | None,
        typer.Option("--remove", metavar="ID", help="Delete one; what it has started goes on.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """List schedules: what the clock starts, and when.

    [dim]paddock schedules[/]
    [dim]paddock schedules --remove nightly-report[/]
    """
    from ..server.scheduler import Schedule

    with reading(db) as (reader, path):
        found = reader.read(rows.listed)
    if remove is not None:
        if remove not in [row.id for row in found]:
            known = ", ".join(row.id for row in found) or "none"
            raise UsageError(f"there is no schedule {remove!r:.150}; there are: {known}")
        done = ask(path, "unschedule", {"id": remove})
        if json:
            print_json({"id": remove, "removed": done.result, "live": done.live})
        else:
            say(f"schedule {remove} is deleted")
        return
    if json:
        print_json([Schedule.of(row).model_dump(mode="json") for row in found])
    elif not found:
        say("no schedules")
    else:
        console().print(_table(found))


def _table(found: list[rows.ScheduleRow]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("ID", "WORKFLOW", "WHEN", "NEXT", "LAST", "LAST INSTANCE"):
        table.add_column(column, overflow="fold")
    for row in found:
        zone = f" {row.tz}" if row.cron is not None and row.tz != "UTC" else ""
        rule = f"every {short_seconds(row.every or 0)}" if row.cron is None else f"{row.cron}{zone}"
        table.add_row(
            Text(row.id),
            Text(row.workflow_name),
            Text(rule),
            when(datetime.fromtimestamp(row.next_at, UTC)),
            when(datetime.fromtimestamp(row.last_at, UTC)) if row.last_at else "",
            Text(row.last_instance_id or "", style="dim"),
        )
    return table
