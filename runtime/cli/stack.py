"""`paddock stack`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from ..store.schemes import database_of, read_note
from .arguments import Db, Ident, Json, find_id, reading
from .output import console, is_own_file, print_json

__all__ = ["stack"]

_FILE = re.compile(r'  File "(?P<file>.*)", line \d+')


def stack(
    id: Ident,
    db: Db = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Seconds to wait for them.")
    ] = 3.0,
    json: Json = False,
) -> None:
    """Print the Python stacks of a running instance.

    Those of all threads of its process, which is not disturbed. The server is not needed: this works beside one that hangs, and without one.

    [dim]paddock stack 0199c3d2[/]
    """
    from ..server.rundir import RunDirectory
    from ..server.stacks import holder, stacks_of

    with reading(db) as (reader, path):
        ident = find_id(reader, id)
        found = reader.read(holder, ident)
        instance = reader.get(ident)
    note = read_note(path)
    run_dir = (note.run_dir if note is not None else None) or RunDirectory.place(database_of(path).identity)
    taken = stacks_of(found, run_dir, timeout)
    if json:
        print_json({"id": ident, "pid": taken.pid, "stack": taken.text})
        return
    screen = console()
    step = (instance.current_step if instance is not None else None) or "?"
    screen.print(Text(f"process {taken.pid}, {found.workflow_name}, step {step}", style="bold"))
    for line in _coloured(taken.text):
        screen.print(line, soft_wrap=True)


def _coloured(text: str) -> Iterator[Text]:
    """Yield the lines; what is looked for is the user's code: threads that run it come first, frames of ours are dimmed."""
    threads = sorted(text.strip().split("\n\n"), key=_is_ours)
    for line in "\n\n".join(threads).splitlines():
        frame = _FILE.match(line)
        if frame is None:
            yield Text(line, style="cyan" if line.startswith(("Thread", "Current")) else "")
        else:
            yield Text(line, style="dim" if is_own_file(frame["file"]) else "")


def _is_ours(thread: str) -> bool:
    return all(is_own_file(found["file"]) for found in _FILE.finditer(thread))
