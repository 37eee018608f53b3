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
        typer.Option("--out", help="Folder for the report; a new one in the temporary directory by default."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Folder of Python code to audit instead of the standard library.")
    ] = None,
) -> None:
    """Audit the standard library's source; kill -9 the work and the server in the middle; prove that no finished step ran again.

    It takes about 15 seconds, and leaves nothing but the report whose path it prints.
    """
    command = [sys.executable, "-P", "-m", "paddock.examples.code_audit", "--demo"]
    for option, value in (("--out", out), ("--source", source)):
        command += [option, value] if value is not None else []
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  this program becomes the example: same terminal, its exit code
