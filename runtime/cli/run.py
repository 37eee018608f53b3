"""`paddock run`."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ..base.duration import parse_duration
from ..base.errors import UsageError
from ..base.records import Status
from ..store.schemes import database_of
from ..store.sqlite_database import SqliteDatabase
from .arguments import Input, parse_json
from .completion import complete_workflow
from .outcome import print_result, report, state_of
from .output import FAILED, INTERRUPTED, complain, console

if TYPE_CHECKING:
    from .runner import Outcome

__all__ = ["Launcher", "run"]


class Launcher(StrEnum):
    """Where the instance runs."""

    FORK = "fork"
    SPAWN = "spawn"
    INLINE = "inline"


_Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:WORKFLOW",
        show_default=False,
        help="What to run; or path/to/file.py:workflow.",
        autocompletion=complete_workflow,
    ),
]
_Db = Annotated[
    str | None,
    typer.Option("--db", metavar="FILE", help="The database; by default a temporary one, removed afterwards."),
]
_Id = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="An id of your own; an unfinished instance of this id in --db goes on."),
]
_Stream = Annotated[
    bool, typer.Option("--stream", "-s", help="Print chunks and events as they come, a JSON line each.")
]
_Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="DURATION", help="Cancel it after so long, such as 30s or 5min.")
]
_Launcher = Annotated[Launcher, typer.Option("--launcher", help="A forked or a fresh process, or this one.")]
_Plugin = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE:CLASS", help="A plugin that it needs, may be repeated."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print the whole instance, not only its output.")]


def run(
    target: _Target,
    input: Input = "null",
    *,
    db: _Db = None,
    id: _Id = None,
    stream: _Stream = False,
    timeout: _Timeout = None,
    launcher: _Launcher = Launcher.FORK,
    plugin: _Plugin = None,
    json: _Json = False,
) -> None:
    """Run a workflow once, and print its output as JSON.

    Progress and what the handlers print go to stderr when that is a terminal.

    [dim]paddock run shop.orders:process_order '{"order_id": "A-1"}'[/]
    [dim]paddock run hello.py:greet '"Ada"' --db app.db --id first[/]
    """
    from .runner import Order, run_one  # here and below: what a command needs alone, the others need not wait for
    from .target import load_workflow

    definition, module = load_workflow(target)
    with _database(db) as path:
        order = Order(
            definition=definition,
            module=module,
            input=parse_json(input),
            database=path,
            id=id,
            timeout=None if timeout is None else parse_duration(timeout),
            launcher=launcher.value,
            plugins=tuple(plugin or ()),
            stream=stream,
        )
        outcome = asyncio.run(run_one(order, console(stderr=True)))
    sys.exit(_report(outcome, timeout, whole=json))


@contextmanager
def _database(given: str | None) -> Iterator[str]:
    if given is not None:
        found = database_of(given)
        folder = os.path.dirname(found.path) if isinstance(found, SqliteDatabase) else None
        if folder is not None and not os.path.isdir(folder):
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
    if instance.status is Status.COMPLETED or not (outcome.interrupted or outcome.late):
        return report(instance, whole=whole)
    print_result(instance, whole=whole)
    if outcome.interrupted:
        complain(f"interrupted; instance {instance.id} {state_of(instance)}")
        return INTERRUPTED
    complain(f"it took longer than {timeout}; instance {instance.id} {state_of(instance)}")
    return FAILED
