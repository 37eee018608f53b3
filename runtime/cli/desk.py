"""Where a command's wish goes: to the running server of the database, or to its rows where there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import MachineError, ServerNotRunning
from ..store.schemes import read_note
from ..store.turn import ServerNote

if TYPE_CHECKING:
    from ..engine.definition import Definition

__all__ = ["Done", "ask", "running_server"]

_PATIENCE = 10.0
_PAUSE = 0.05
_ANSWER = 120.0


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation returned, and whether a running server did it."""

    result: Any
    live: bool


def running_server(database: str) -> ServerNote | None:
    """Return the note of the server that runs on a database (its real path), None where none does."""
    note = read_note(database)
    return note if note is not None and note.pid else None


def ask(
    database: str,
    operation: str,
    arguments: dict[str, Any],
    definitions: Sequence[tuple[Definition, str | None]] = (),
    *,
    timeout: float = _ANSWER,
) -> Done:
    """Have an operation done.

    A server that starts or stops just now is waited for. `definitions` are what the rows' own service is to know where no server runs.

    Raises:
        PaddockError: the operation was refused, or nobody could do it.
    """
    from .line import Line, NoLine

    until = time.monotonic() + _PATIENCE
    while True:
        note = running_server(database)
        try:
            if note is None:
                from .offline import ServerCame, do_offline

                try:
                    return Done(do_offline(database, operation, arguments, definitions), live=False)
                except ServerCame:
                    continue
            with Line.to(note) as line:
                return Done(line.ask(operation, arguments, timeout), live=True)
        except (NoLine, ServerNotRunning) as error:  # it starts, stops, or hangs
            if time.monotonic() > until:
                raise _hangs(note, error) from None
        time.sleep(_PAUSE)


def _hangs(note: ServerNote | None, error: Exception) -> MachineError:
    if note is None:
        return MachineError(str(error))
    return MachineError(f"{error}. If it hangs, end it: its instances go on with the next server")
