"""`paddock list`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..base.records import Instance, Status
from .arguments import Db, Json, Name, StatusName, parse_status, reading
from .output import NARROW, STYLES, console, duration, print_json, say, short_id, when

__all__ = ["list_instances"]


def list_instances(
    db: Db = None,
    status: StatusName = None,
    name: Name = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="COUNT", help="At most this many.")] = 20,
    json: Json = False,
) -> None:
    """List instances, the newest first.

    [dim]paddock list --status failed[/]
    [dim]paddock list --name import --json -n 1000 | jq '.[].id'[/]
    """
    with reading(db) as (reader, _):
        found = reader.newest(name=name, status=parse_status(status), limit=limit)
    if json:
        print_json([_row(instance) for instance in found])
    elif found:
        screen = console()
        screen.print(_table(found, narrow=screen.width < NARROW))
    else:
        say("no such instances" if status or name else "no instances yet")


def _row(instance: Instance) -> dict[str, object]:
    """Return an instance without its steps' data: a list is for looking, `show` for reading."""
    return instance.model_dump(mode="json", exclude={"step_results"})


def _table(found: list[Instance], *, narrow: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("ID", "WORKFLOW", "STATUS", "STEP", "STARTED", "TOOK"):
        table.add_column(column, no_wrap=column not in ("WORKFLOW", "STEP"), overflow="fold")
    for instance in found:
        begun = instance.started_at or instance.created_at
        ended = instance.completed_at is not None or instance.status is Status.RUNNING
        table.add_row(
            Text(short_id(instance.id) if narrow else instance.id),
            Text(instance.workflow_name),
            Text(instance.status.value, style=STYLES[instance.status]),
            Text(instance.current_step or ""),
            when(begun),
            duration(begun, instance.completed_at) if ended else "",
        )
    return table
