"""`paddock stack`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from ...watchdog.identity import ProcessHandle, ProcessIdentity, process_state
from ...watchdog.stacks import take_stacks, trace_path_of
from ..base.errors import InvalidTransition, MachineError
from ..base.records import TERMINAL
from ..store.admission import Held, held
from ..store.schemes import read_note
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
    with reading(db) as (reader, path):
        ident = find_id(reader, id)
        found = next((one for one in reader.read(held) if one.id == ident), None)
        instance = reader.get(ident)
    if found is None or instance is None or instance.status in TERMINAL:
        status = instance.status.value if instance is not None else "gone"
        raise InvalidTransition(f"instance {ident} is {status}, so it has no process and no stack")
    text = _take(path, found, timeout)
    if json:
        print_json({"id": ident, "pid": found.pid, "stack": text})
        return
    screen = console()
    screen.print(
        Text(f"process {found.pid}, {instance.workflow_name}, step {instance.current_step or '?'}", style="bold")
    )
    for line in _coloured(text):
        screen.print(line, soft_wrap=True)


def _take(path: str, found: Held, timeout: float) -> str:
    from ..server.rundir import RunDirectory

    if not found.isolated:
        raise InvalidTransition(
            f"instance {found.id} runs inside its server's process, whose stacks cannot be taken from here"
        )
    if found.pid is None or found.pid_start is None or found.boot_id is None:
        raise MachineError(f"the process of instance {found.id} is just being born; try again")
    identity = ProcessIdentity(found.pid, found.pid_start, found.boot_id)
    note = read_note(path)
    run_dir = (note.run_dir if note is not None else None) or RunDirectory.place(path)
    handle = ProcessHandle.open(identity)
    if handle is None:
        raise MachineError(
            f"process {found.pid} of instance {found.id} is dead; its server, or the next one, will see to it"
        )
    with handle:
        trace = trace_path_of(os.path.join(run_dir, "trace"), found.pid)
        text = take_stacks(handle, identity, trace, state=process_state(found.pid)[0], timeout=timeout)
    if text is None:
        raise MachineError(
            f"process {found.pid} of instance {found.id} wrote no stacks within {timeout:g} s; it may have just begun, or it hangs in the kernel"
        )
    return text


def _coloured(text: str) -> Iterator[Text]:
    """Yield the lines, those of frames of ours dimmed: what is looked for is the user's code."""
    for line in text.rstrip().splitlines():
        frame = _FILE.match(line)
        if frame is None:
            yield Text(line, style="cyan" if line.startswith(("Thread", "Current")) else "")
        else:
            yield Text(line, style="dim" if is_own_file(frame["file"]) else "")
