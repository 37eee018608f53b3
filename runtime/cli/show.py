"""`paddock show`."""

from __future__ import annotations

import json as json_
import shlex
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..base.errors import InstanceNotFound
from ..base.records import ErrorInfo, Instance, Status, StepResult, StepStatus
from ..store.overview import open_waits
from .arguments import Db, Ident, find_id, reading
from .output import STYLES, console, duration, own_frames, print_json, when

__all__ = ["show"]

_STEP_STYLES = {
    StepStatus.RUNNING: "cyan",
    StepStatus.RETRYING: "yellow",
    StepStatus.WAITING: "blue",
    StepStatus.COMPLETED: "green",
    StepStatus.FAILED: "red",
    StepStatus.CANCELLED: "dim",
}
_LONGEST_VALUE = 2000


def show(
    id: Ident,
    db: Db = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with everything.")] = False,
) -> None:
    """Show an instance: its steps, input, output, and why it failed.

    [dim]paddock show 0199c3d2[/]
    [dim]paddock show order-a-1 --json | jq .error.message[/]
    """
    with reading(db) as (reader, _):
        instance = reader.get(find_id(reader, id))
        waits = reader.read(open_waits, instance.id) if instance is not None and instance.completed_at is None else []
    if instance is None:
        raise InstanceNotFound(f"instance {id} was cleaned up just now")
    if json:
        print_json(instance.model_dump(mode="json"))
        return
    screen = console()
    screen.print(_head(instance))
    if instance.step_results:
        screen.print()
        screen.print(_steps(instance))
    for title, value in (("input", instance.input), ("output", instance.output), ("metadata", instance.metadata)):
        if value not in (None, {}):
            _print_value(screen, title, value)
    if instance.error is not None:
        screen.print()
        if instance.completed_at is None and instance.status is not Status.BLOCKED:
            screen.print(Text("it went on after", style="dim"))
        for line in _error(instance.error):
            screen.print(line, soft_wrap=True)
    _print_next(screen, instance, waits)


def _print_next(screen: Console, instance: Instance, waits: list[str]) -> None:
    """Say which command moves it on, where it is a person's turn."""
    commands = [f"paddock signal {instance.id} {shlex.quote(name)} JSON" for name in waits]
    advice = "it waits for a signal; send it with" if waits else ""
    if instance.status in (Status.FAILED, Status.BLOCKED):
        commands = [f"paddock retry {instance.id}"]
        failed = instance.status is Status.FAILED
        advice = "run it on from its failed step with" if failed else "when that is put right, let it go on with"
    if commands:
        screen.print()
        screen.print(Text(advice, style="dim"))
    for command in commands:
        screen.print(Text(command), soft_wrap=True)


def _head(instance: Instance) -> Table:
    table = Table.grid(padding=(0, 2))
    status = Text(instance.status.value, style=f"bold {STYLES[instance.status]}")
    if instance.pid is not None:
        status.append(f" (process {instance.pid})", style="not bold dim")
    rows: list[tuple[str, str | Text]] = [
        ("instance", instance.id),
        ("workflow", instance.workflow_name),
        ("status", status),
        ("step", "" if instance.completed_at else instance.current_step or ""),
        ("created", when(instance.created_at)),
        ("started", when(instance.started_at)),
        ("ended", when(instance.completed_at)),
        ("wakes", when(instance.wake_at)),
        ("took", duration(instance.started_at, instance.completed_at) if instance.completed_at else ""),
        ("executions", str(instance.executions)),
        ("parent", instance.parent_id or ""),
    ]
    for title, value in rows:
        if value:
            table.add_row(Text(title, style="dim"), value if isinstance(value, Text) else Text(value))
    return table


def _steps(instance: Instance) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("STEP", "KIND", "STATUS", "ATTEMPTS", "STARTED", "TOOK", ""):
        table.add_column(column, justify="right" if column in ("ATTEMPTS", "TOOK") else "left", overflow="fold")
    for step in instance.step_results.values():
        depth = step.key.count("/")
        over = step.completed_at is not None or (step.status is StepStatus.RUNNING and instance.completed_at is None)
        table.add_row(
            Text("  " * (depth // 2) + step.key),
            step.kind,
            Text(step.status.value, style=_STEP_STYLES[step.status]),
            str(step.attempts or ""),
            when(step.started_at),
            duration(step.started_at, step.completed_at) if over else "",
            Text(_note(step), style="dim"),
        )
    return table


def _note(step: StepResult) -> str:
    notes = []
    if step.poll_count:
        notes.append(f"{step.poll_count} checks")
    if step.loop_count:
        notes.append(f"{step.loop_count} jumps")
    if step.error is not None:
        notes.append(f"{step.error.type}: {step.error.message}".partition("\n")[0])
    return ", ".join(notes)


def _print_value(screen: Console, title: str, value: Any) -> None:
    text = json_.dumps(value, ensure_ascii=False, indent=2)
    if len(text) > _LONGEST_VALUE:
        text = f"{text[:_LONGEST_VALUE]}\n… ({len(text):,} characters; --json prints all)"
    screen.print()
    screen.print(Text(title, style="dim"))
    screen.print(Text(text), soft_wrap=True)


def _error(error: ErrorInfo) -> Iterator[Text]:
    at = f" at step {error.step}" if error.step else ""
    yield Text.assemble((f"{error.type}{at}", "bold red"), f": {error.message}")
    facts = [
        f"signal {error.signal}" if error.signal else "",
        f"exit code {error.exit_code}" if error.exit_code is not None else "",
        f"try {error.attempt}" if error.attempt else "",
        f"{max(error.peak_memory or 0, error.max_rss) / 2**20:.0f} MB at most" if error.max_rss else "",
        f"{error.cpu_seconds:.1f} s of CPU time" if error.cpu_seconds else "",
    ]
    if any(facts):
        yield Text(", ".join(filter(None, facts)), style="dim")
    for title, text in (
        ("traceback", own_frames(error.traceback)),
        ("stack", error.stack),
        ("end of its output", error.output),
        ("end of its error output", error.error_output),
    ):
        if text:
            yield Text(f"\n{title}", style="dim")
            yield Text(text.rstrip())
