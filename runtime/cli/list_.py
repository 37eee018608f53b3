"""`paddock list`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..base.records import ErrorInfo, Instance, Status, StepStatus
from .arguments import Db, Json, Name, StatusName, parse_status, reading
from .output import NARROW, STYLES, console, duration, print_json, say, short_id, when

__all__ = ["list_instances"]

#: Columns below which a reason is not worth its place.
_LEAST = 16


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
        screen.print(_table(found, screen))
        if screen.is_terminal and len(found) == limit:
            say(f"the newest {limit}; -n shows more")
    else:
        say("no such instances" if status or name else "no instances yet")


def _row(instance: Instance) -> dict[str, object]:
    """Return an instance without its steps' data: a list is for looking, `show` for reading."""
    return instance.model_dump(mode="json", exclude={"step_results"})


def _table(found: list[Instance], screen: Console) -> Table:
    """Return the table; why an instance stands where it stands has the room that the rest leaves."""
    rows = [_cells(instance, narrow=screen.width < NARROW) for instance in found]
    room = screen.width - screen.measure(_filled(rows)).maximum - 2
    whys = [Text(_why(instance), style="dim") for instance in found]
    if room < _LEAST or not any(whys):
        return _filled(rows)
    return _filled([[*row, why] for row, why in zip(rows, whys, strict=True)], room=room)


def _filled(rows: list[list[Text]], *, room: int = 0) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("ID", "WORKFLOW", "STATUS", "STEP", "STARTED", "TOOK"):
        table.add_column(column, no_wrap=column not in ("WORKFLOW", "STEP"), overflow="fold")
    if room:
        table.add_column("WHY", no_wrap=True, overflow="ellipsis", max_width=room)
    for row in rows:
        table.add_row(*row)
    return table


def _cells(instance: Instance, *, narrow: bool) -> list[Text]:
    begun = instance.started_at or instance.created_at
    ended = instance.completed_at is not None or instance.status is Status.RUNNING
    return [
        Text(short_id(instance.id) if narrow else instance.id),
        Text(instance.workflow_name),
        Text(instance.status.value, style=STYLES[instance.status]),
        Text(instance.current_step or ""),
        Text(when(begun)),
        Text(duration(begun, instance.completed_at) if ended else ""),
    ]


_TROUBLED = (Status.FAILED, Status.TIMED_OUT, Status.BLOCKED)


def _why(instance: Instance) -> str:
    """Return in few words why an instance stands where it stands, where its status does not say it."""
    if instance.status in _TROUBLED and instance.error is not None:
        return _first_line(instance.error)
    if instance.status is Status.PENDING:
        return "queued" if instance.wake_at is None else f"begins {when(instance.wake_at)}"
    if instance.status is not Status.SLEEPING:
        return ""
    steps = reversed(instance.step_results.values())
    tried = next((step.error for step in steps if step.status is StepStatus.RETRYING and step.error is not None), None)
    again = when(instance.wake_at)
    return f"until {again}" if tried is None else f"again {again} after {_first_line(tried)}"


def _first_line(error: ErrorInfo) -> str:
    return f"{error.type}: {error.message}".partition("\n")[0]
