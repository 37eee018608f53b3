"""`paddock doctor`."""

from __future__ import annotations

import contextlib
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from ..base.errors import UsageError
from ..doctor.finding import Finding, Level
from .arguments import Db
from .database import find_database
from .output import FAILED, console, print_json

__all__ = ["doctor"]

_MARKS = {Level.OK: ("✓", "green"), Level.NOTE: ("·", "blue"), Level.PROBLEM: ("✗", "bold red")}


def doctor(
    db: Db = None,
    run_dir: Annotated[
        str | None, typer.Option("--run-dir", help="Its run directory, where the server was given one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say what is wrong with the machine, a database and its run directory, and what to do; exit code 1 if anything is.

    It changes nothing, and may be used while a server runs.

    [dim]paddock doctor --db app.db[/]
    """
    from ..doctor.examination import examine

    if db is None:
        with contextlib.suppress(UsageError):  # then the machine alone
            db = find_database(None)
    found = examine(db, run_dir)
    wrong = [finding for finding in found if finding.level is Level.PROBLEM]
    if json:
        print_json({"ok": not wrong, "findings": [finding.row() for finding in found]})
    else:
        _print(found, len(wrong))
    if wrong:
        raise typer.Exit(FAILED)


def _print(found: list[Finding], wrong: int) -> None:
    out = console()
    for area, findings in groupby(found, key=lambda finding: finding.area):
        out.print(Text(area, style="bold"))
        for finding in findings:
            mark, style = _MARKS[finding.level]
            out.print(
                Text(f"  {mark} ", style=style).append(
                    finding.text, style="" if finding.level is not Level.OK else "dim"
                ),
                soft_wrap=True,
            )
            if finding.advice:
                out.print(
                    Text(f"    → {finding.advice}", style="bold" if finding.level is Level.PROBLEM else ""),
                    soft_wrap=True,
                )
    out.print(Text(f"{wrong} problem(s)", style="bold red") if wrong else Text("nothing is wrong", style="bold green"))
