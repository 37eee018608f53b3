"""The `paddock` command: one module for each subcommand; here they are put together, and errors become sentences and exit codes.

Exit codes: 0 done, 1 the workflow did not end well, 2 the call was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..base.errors import OutcomeError, PaddockError
from . import check, demo, doctor, list_, run, serve, show
from .output import FAILED, USAGE, complain

__all__ = ["app", "main"]

app = typer.Typer(
    name="paddock",
    help="Durable workflows, each instance in an operating-system process of its own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("serve")(serve.serve)
app.command("list")(list_.list_instances)
app.command("show")(show.show)
app.command("check")(check.check)
app.command("doctor")(doctor.doctor)
app.command("demo", context_settings={"allow_extra_args": False})(demo.demo)


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


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except OutcomeError as error:
        complain(str(error))
        sys.exit(FAILED)
    except PaddockError as error:
        complain(str(error))
        sys.exit(USAGE)
    except BrokenPipeError:  # `paddock list | head`: whoever read has seen enough
        sys.stderr.close()
        sys.exit(0)
