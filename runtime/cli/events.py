"""`paddock events`."""

from __future__ import annotations

import json as json_
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.text import Text

from ..base.records import Event
from ..store import events as rows
from ..store import instances
from ..store.overview import cursor_before
from ..store.reading import Reader
from ..store.window import Window
from .arguments import After, Db, Follow, Last, OptionalIdent, find_id, reading
from .follow import follow
from .output import LineWriter, print_json_line, short_id, short_seconds, when

__all__ = ["events"]

_ALL = "*"


def events(
    id: OptionalIdent = None,
    *,
    live: Follow = False,
    pattern: Annotated[
        str, typer.Option("--name", metavar="GLOB", help="Only events whose name matches, such as 'workflow.step.*'.")
    ] = _ALL,
    after: After = None,
    last: Last = 50,
    db: Db = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print events, of one instance or of all.

    The number before each is the cursor for --after. With -f it goes on as they come; for one instance until that has ended. An event under a second name is left out unless --name
    asks for it.

    [dim]paddock events 0199c3d2 -f[/]
    [dim]paddock events --name 'workflow.failed' --json -n 1000[/]
    [dim]paddock events --after 812 -f --json | jq .name[/]
    """
    with reading(db) as (reader, path):
        ident = find_id(reader, id) if id is not None else None
        begin = after
        if begin is None:
            begin = reader.read(cursor_before, last, pattern=pattern, instance_id=ident)
    writer = LineWriter()
    for event in follow(path, _reader(ident, pattern), after=begin, instance_id=ident, live=live):
        if pattern == _ALL and _is_alias(event):
            continue
        if json:
            print_json_line(event.model_dump(mode="json"))
        else:
            writer.print(_line(event, alone=ident is not None, narrow=writer.narrow))


def _is_alias(event: Event) -> bool:
    """Tell whether an event only repeats the one before it under a second name."""
    return event.name in (
        f"log.workflow.{event.instance_id}",
        f"workflow.{event.instance_id}.event",
        f"workflow.{event.workflow_name}.event",
    )


def _reader(ident: str | None, pattern: str) -> Callable[[Reader, int, int], list[Event]]:
    def read(reader: Reader, after: int, limit: int) -> list[Event]:
        def rows_of(tx: Any) -> list[Event]:
            seq = instances.find(tx, ident)[0] if ident is not None else None
            return rows.read_events(tx, Window(after, limit), pattern=pattern, instance=seq)

        return reader.read(rows_of)

    return read


def _line(event: Event, *, alone: bool, narrow: bool) -> Text:
    name = event.name
    style = "red" if name.endswith((".failed", ".timed_out", ".killed", ".stale")) else "green"
    if not name.endswith(".completed") and style == "green":
        style = "yellow" if name.endswith((".retry", ".cancelled", ".retried", ".resumed")) else "cyan"
    line = Text.assemble((f"{event.id:>6} ", "dim"), (f"{when(event.created_at)} ", "dim"))
    if not alone:
        line.append(f"{short_id(event.instance_id) if narrow else event.instance_id} ", "dim")
    line.append(f"{name:<24} " if alone or not narrow else f"{name} ", style)
    line.append(_tell(event))
    return line


def _tell(event: Event) -> str:
    data = {key: value for key, value in event.data.items() if key not in ("instance_id", "workflow_name")}
    tell = _SENTENCES.get(event.name)
    return tell(data) if tell is not None else _compact(data)


def _compact(value: Any) -> str:
    return json_.dumps(value, ensure_ascii=False) if value not in (None, {}) else ""


def _why(data: dict[str, Any]) -> str:
    error = data.get("error") or {}
    return f"{error.get('type')}: {error.get('message')}".replace("\n", " ")


def _step(data: dict[str, Any]) -> str:
    step = (data.get("error") or {}).get("step")
    return f"{step}: " if step else "no step: "


def _log(data: dict[str, Any]) -> str:
    step = f"{data['step_name']}: " if data.get("step_name") else ""
    return f"{data.get('level')} {step}{data.get('message')}"


def _suspended(data: dict[str, Any]) -> str:
    return f"{data.get('reason')}" + (f": {_why(data)}" if data.get("error") else "")


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "workflow.started": lambda data: f"process {data.get('pid')}, input {_compact(data.get('input'))}",
    "workflow.resumed": lambda data: f"process {data.get('pid')}, execution {data.get('executions')}",
    "workflow.crashed": lambda data: f"crash {data.get('crashes')} at {_step(data)}{_why(data)}",
    "workflow.suspended": _suspended,
    "workflow.progress": lambda data: (
        f"{data.get('progress', 0):.0f}%, {data.get('completed_steps')} of {data['total_steps']} steps"
        if data.get("total_steps")
        else f"{data.get('completed_steps')} steps"
    ),
    "workflow.completed": lambda data: _compact(data.get("output")),
    "workflow.failed": _why,
    "workflow.timed_out": _why,
    "workflow.stream": lambda data: _compact(data.get("chunk")),
    "workflow.step.started": lambda data: (
        f"{data.get('step')} ({data.get('step_type')})"
        + (f", attempt {data['attempt']}" if (data.get("attempt") or 1) > 1 else "")
    ),
    "workflow.step.completed": lambda data: f"{data.get('step')} → {_compact(data.get('output')) or 'null'}",
    "workflow.step.failed": lambda data: f"{data.get('step')}: {_why(data)}",
    "workflow.step.retry": lambda data: (
        f"{data.get('step')}: attempt {data.get('attempt')} of {data.get('max_attempts')} failed, "
        f"again in {short_seconds(data.get('delay') or 0)}: {_why(data)}"
    ),
    "workflow.step.poll": lambda data: f"{data.get('step')}: check {data.get('poll_count')}",
    "workflow.step.loop": lambda data: f"{data.get('step')}: jump {data.get('loop_count')}",
    "workflow.watchdog.stale": lambda data: f"process {data.get('pid')}: {data.get('reason')}",
    "workflow.watchdog.killed": lambda data: f"process {data.get('pid')}: {data.get('reason')}",
    "workflow.event": lambda data: f"{data.get('event')} {_compact(data.get('data'))}",
    "log.workflow": _log,
}
