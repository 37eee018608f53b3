"""The `paddock` command: one module for each subcommand; here they are put together, and errors become sentences and exit codes.

Exit codes: 0 done, 1 the workflow did not end well, 2 the call was wrong, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer

from ..base.errors import OutcomeError, PaddockError
from . import (
    backup,
    check,
    cleanup,
    demo,
    doctor,
    events,
    graph,
    list_,
    logs,
    run,
    schedules,
    serve,
    show,
    signal_,
    stack,
    start,
    steer,
    top,
)
from .completion import in_bash
from .output import FAILED, INTERRUPTED, USAGE, complain, leave_broken_pipe, prepare_streams

__all__ = ["app", "main"]

app = typer.Typer(
    name="paddock",
    help="Durable workflows, each instance in an operating-system process of its own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUN, _LOOK, _STEER = "Run", "Look", "Steer"
_COMMANDS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    (_RUN, "run", run.run),
    (_RUN, "start", start.start),
    (_RUN, "serve", serve.serve),
    (_RUN, "demo", demo.demo),
    (_LOOK, "list", list_.list_instances),
    (_LOOK, "show", show.show),
    (_LOOK, "events", events.events),
    (_LOOK, "logs", logs.logs),
    (_LOOK, "top", top.top),
    (_LOOK, "stack", stack.stack),
    (_LOOK, "graph", graph.graph),
    (_LOOK, "schedules", schedules.schedules),
    (_LOOK, "check", check.check),
    (_LOOK, "doctor", doctor.doctor),
    (_STEER, "signal", signal_.signal),
    (_STEER, "cancel", steer.cancel),
    (_STEER, "retry", steer.retry),
    (_STEER, "fork", steer.fork),
    (_STEER, "pause", steer.pause),
    (_STEER, "unpause", steer.unpause),
    (_STEER, "cleanup", cleanup.cleanup),
    (_STEER, "backup", backup.backup),
)
for _panel, _name, _function in _COMMANDS:
    app.command(_name, rich_help_panel=_panel)(_function)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"paddock {version('paddock')}")  # noqa: T201  what was asked for
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Durable workflows, each instance in an operating-system process of its own."""


class _Interrupted(BaseException):
    """Somebody pressed Ctrl-C. Not a KeyboardInterrupt, of which the option parser makes an error."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _Interrupted


def main() -> None:
    """Run the command line and exit with its code."""
    prepare_streams()
    signal.signal(signal.SIGINT, _interrupt)
    try:
        with in_bash() if os.environ.get("_PADDOCK_COMPLETE") == "complete_bash" else contextlib.nullcontext():
            app()
    except OutcomeError as error:
        complain(str(error))
        sys.exit(FAILED)
    except PaddockError as error:
        complain(str(error))
        sys.exit(USAGE)
    except _Interrupted:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `paddock list | head`
        leave_broken_pipe()
