"""`paddock list`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..base.errors import UsageError
from ..base.records import Instance, Status
from ..store.reading import open_reader
from ..store.sqlite import real_path
from .output import STYLES, console, duration, print_json, say, when

__all__ = ["list_instances"]


def list_instances(
    db: Annotated[str, typer.Option("--db", envvar="PADDOCK_DB", help="The database.", show_default=False)],
    status: Annotated[str | None, typer.Option("--status", help="Only those that are running, failed, …")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only those of this workflow.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List instances, the newest first; works while a server runs on the database, and without one.

    [dim]paddock list --db app.db --status failed[/]
    """
    with open_reader(real_path(db)) as reader:
        found = reader.newest(name=name, status=_status(status), limit=limit)
    if json:
        print_json([_row(instance) for instance in found])
    elif found:
        console().print(_table(found))
    else:
        say("no such instances" if status or name else "no instances yet")


def _status(value: str | None) -> Status | None:
    try:
        return None if value is None else Status(value.lower().replace("-", "_"))
    except ValueError:
        raise UsageError(f"there is no status {value!r}; there are {', '.join(Status)}") from None


def _row(instance: Instance) -> dict[str, object]:
    """Return an instance without its steps' data: a list is for looking, `show` for reading."""
    return instance.model_dump(mode="json", exclude={"step_results"})


def _table(found: list[Instance]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("ID", "WORKFLOW", "STATUS", "STEP", "STARTED", "TOOK"):
        table.add_column(column, no_wrap=column in ("ID", "STATUS", "TOOK"), overflow="fold")
    for instance in found:
        begun = instance.started_at or instance.created_at
        ended = instance.completed_at is not None or instance.status is Status.RUNNING
        table.add_row(
            Text(instance.id),
            Text(instance.workflow_name),
            Text(instance.status.value, style=STYLES[instance.status]),
            Text(instance.current_step or ""),
            when(begun),
            duration(begun, instance.completed_at) if ended else "",
        )
    return table
