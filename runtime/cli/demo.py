"""`paddock demo`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Folder for the report; a new one in the temporary directory by default."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="FOLDER", help="Folder of Python code to audit instead of the standard library."
        ),
    ] = None,
) -> None:
    """Show that nothing is lost: kill -9 at work, and no step that had finished runs again.

    It audits the source of the standard library, kills the work and the server in the middle, and compares. It takes about 15 seconds, and leaves nothing but the report whose path it prints.

    [dim]paddock demo[/]
    """
    command = [sys.executable, "-P", "-m", "paddock.examples.code_audit", "--demo"]
    for option, value in (("--out", out), ("--source", source)):
        command += [option, value] if value is not None else []
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  this program becomes the example: same terminal, its exit code
