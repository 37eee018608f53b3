"""`paddock run`."""

from __future__ import annotations

import asyncio
import json as json_
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from ..base.duration import parse_duration
from ..base.errors import UsageError
from ..base.records import Instance, Status
from .output import FAILED, complain, console, own_frames, print_json
from .runner import Order, Outcome, run_one
from .target import load_workflow

__all__ = ["Launcher", "run"]

_INTERRUPTED = 130


class Launcher(StrEnum):
    """Where the instance runs."""

    FORK = "fork"
    SPAWN = "spawn"
    INLINE = "inline"


def run(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:WORKFLOW", show_default=False, help="What to run; or path/to/file.py:workflow."),
    ],
    input: Annotated[str, typer.Argument(metavar="JSON", help="The input; - reads it from stdin.")] = "null",
    *,
    db: Annotated[
        str | None, typer.Option("--db", help="The database; by default a temporary one, removed afterwards.")
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="An id of your own; an unfinished instance of this id in --db goes on.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", "-s", help="Print chunks and events as they come, a JSON line each.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="Cancel it after so long, such as 30s or 5min.")
    ] = None,
    launcher: Annotated[
        Launcher, typer.Option("--launcher", help="A forked or a fresh process, or this one.")
    ] = Launcher.FORK,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", help="A plugin that it needs, module:Class; may be repeated.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole instance, not only its output.")] = False,
) -> None:
    """Run a workflow once, and print its output as JSON.

    Progress and what the handlers print go to stderr when that is a terminal.

    [dim]paddock run shop.orders:process_order '{"order_id": "A-1"}'[/]
    [dim]paddock run hello.py:greet '"Ada"' --db app.db --id first[/]
    """
    definition, module = load_workflow(target)
    with _database(db) as path:
        order = Order(
            definition=definition,
            module=module,
            input=_parse(sys.stdin.read() if input == "-" else input),
            database=path,
            id=id,
            timeout=None if timeout is None else parse_duration(timeout),
            launcher=launcher.value,
            plugins=tuple(plugin or ()),
            stream=stream,
        )
        outcome = asyncio.run(run_one(order, console(stderr=True)))
    sys.exit(_report(outcome, timeout, whole=json))


def _parse(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        return json_.loads(text, parse_constant=refuse)
    except ValueError as error:
        quotable = text.isidentifier() and "is no JSON" not in str(error)
        hint = f"; a text needs its quotes: '\"{text}\"'" if quotable else ""
        raise UsageError(f"the input {text!r:.100} is no JSON: {error}{hint}") from None
    except RecursionError:
        raise UsageError("the input is nested too deeply") from None


@contextmanager
def _database(given: str | None) -> Iterator[str]:
    if given is not None:
        folder = os.path.dirname(os.path.realpath(given))
        if not os.path.isdir(folder):
            raise UsageError(f"there is no folder {folder} for a database")
        yield given
        return
    folder = tempfile.mkdtemp(prefix="paddock-run-")
    try:
        yield os.path.join(folder, "run.db")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _report(outcome: Outcome, timeout: str | None, *, whole: bool) -> int:
    """Print what became of it; return the exit code."""
    instance = outcome.instance
    if whole:
        print_json(instance.model_dump(mode="json"))
    elif instance.status is Status.COMPLETED:
        print_json(instance.output)
    if instance.status is Status.COMPLETED:
        return 0
    if outcome.interrupted:
        complain(f"interrupted; instance {instance.id} {_state(instance)}")
        return _INTERRUPTED
    if outcome.late:
        complain(f"it took longer than {timeout}; instance {instance.id} {_state(instance)}")
        return FAILED
    _complain_of(instance)
    return FAILED


def _state(instance: Instance) -> str:
    words = {Status.CANCELLED: "was cancelled", Status.FAILED: "failed", Status.TIMED_OUT: "timed out"}
    return words.get(instance.status, f"is {instance.status.value}")


def _complain_of(instance: Instance) -> None:
    error = instance.error
    sentence = f"{instance.workflow_name} instance {instance.id} {_state(instance)}"
    if error is None:
        complain(sentence)
        return
    complain(f"{sentence}{f' at step {error.step!r}' if error.step else ''}: {error.type}: {error.message}")
    for text in (own_frames(error.traceback), error.stack, error.output, error.error_output):
        if text:
            console(stderr=True).print(text.rstrip(), style="dim", markup=False, soft_wrap=True)
