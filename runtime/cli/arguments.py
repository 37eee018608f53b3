"""Arguments and options that several commands share, how ids are found by their beginning, and what a shell can complete."""

from __future__ import annotations

import contextlib
import difflib
import json as json_
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ..base.errors import InstanceNotFound, PaddockError, UsageError
from ..base.records import Status
from ..store.overview import ids_like, is_id, open_waits, workflow_names
from ..store.reading import Reader
from ..store.schemes import open_reader
from .database import find_database

__all__ = [
    "After",
    "Db",
    "Follow",
    "Ident",
    "Idents",
    "Input",
    "Json",
    "Last",
    "Name",
    "OptionalIdent",
    "StatusName",
    "complete_id",
    "complete_name",
    "complete_signal",
    "find_id",
    "parse_json",
    "parse_status",
    "reading",
    "resolve",
]

_FEW, _MANY = 5, 500


@contextmanager
def reading(db: str | None) -> Iterator[tuple[Reader, str]]:
    """Open the database that is meant for reading; yield the reader and the database's real path."""
    path = find_database(db)
    with open_reader(path) as reader:
        yield reader, path


# --- ids ---


def resolve(db: str | None, text: str) -> tuple[str, str]:
    """Return the database that is meant and the id that a text names there; see `find_id`."""
    with reading(db) as (reader, path):
        return path, find_id(reader, text)


def find_id(reader: Reader, text: str) -> str:
    """Return the id of the instance that a text names: its id, or a beginning that only one has.

    Raises:
        InstanceNotFound: it names none, or several; those are named that may be meant.
    """
    found = reader.read(ids_like, text, _FEW + 1) if text else []
    if text in found or reader.read(is_id, text):
        return text
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(found[:_FEW]) + (", …" if len(found) > _FEW else "")
        raise InstanceNotFound(f"several instances have an id that begins with {text!r:.150}: {shown}")
    near = difflib.get_close_matches(text, reader.read(ids_like, "", _MANY), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `paddock list` shows those that there are"
    raise InstanceNotFound(f"no instance has the id {text!r:.150}{hint}")


# --- values ---


def parse_json(text: str, what: str = "the input") -> Any:
    """Return the value of a JSON text from the command line; `-` reads it from stdin.

    Raises:
        UsageError: it is no JSON; where quotes are missing, the message shows them.
    """
    if text == "-":
        text = sys.stdin.read()

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        return json_.loads(text, parse_constant=refuse)
    except ValueError as error:
        quotable = text[:1].isalpha() and not {'"', "'"} & set(text) and "is no JSON" not in str(error)
        hint = f"; a text needs its quotes: '\"{text}\"'" if quotable else ""
        raise UsageError(f"{what} {text!r:.100} is no JSON: {error}{hint}") from None
    except RecursionError:
        raise UsageError(f"{what} is nested too deeply") from None


def parse_status(value: str | None) -> Status | None:
    """Return the status that a word names, None for none.

    Raises:
        UsageError: there is no such status.
    """
    try:
        return None if value is None else Status(value.lower().replace("-", "_"))
    except ValueError:
        raise UsageError(f"there is no status {value!r}; there are {', '.join(Status)}") from None


# --- completion ---


def complete_id(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids that a shell may complete to, the newest first."""
    with contextlib.suppress(PaddockError, OSError), reading(ctx.params.get("db")) as (reader, _):
        return reader.read(ids_like, incomplete, 50)
    return []


def complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of workflows that a shell may complete to: those with an instance or a schedule."""
    with contextlib.suppress(PaddockError, OSError), reading(ctx.params.get("db")) as (reader, _):
        return [name for name in reader.read(workflow_names) if name.startswith(incomplete)]
    return []


def complete_signal(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the signals that the instance before it waits for."""
    with contextlib.suppress(PaddockError, OSError), reading(ctx.params.get("db")) as (reader, _):
        waits = reader.read(open_waits, find_id(reader, ctx.params.get("id") or ""))
        return [name for name in waits if name.startswith(incomplete)]
    return []


def _complete_status(incomplete: str) -> list[str]:
    return [status.value for status in Status if status.value.startswith(incomplete)]


Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar="PADDOCK_DB",
        help="The database; by default the only one of Paddock's in this folder.",
        show_default=False,
        metavar="FILE",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: for programs, one line each.")]
Input = Annotated[str, typer.Argument(metavar="JSON", help="The input; - reads it from stdin.")]
Ident = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The instance's id, or its beginning.", show_default=False, autocompletion=complete_id
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="WORKFLOW",
        help="Only those of this workflow.",
        show_default=False,
        autocompletion=complete_name,
    ),
]
StatusName = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="Only those that are running, failed, …",
        show_default=False,
        autocompletion=_complete_status,
    ),
]
OptionalIdent = Annotated[
    str | None,
    typer.Argument(
        metavar="ID",
        help="An instance's id, or its beginning; all instances by default.",
        show_default=False,
        autocompletion=complete_id,
    ),
]
Idents = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID", help="The instances' ids, or their beginnings.", show_default=False, autocompletion=complete_id
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come.")]
After = Annotated[
    int | None, typer.Option("--after", min=0, metavar="CURSOR", help="Begin after this number.", show_default=False)
]
Last = Annotated[
    int, typer.Option("--last", "--tail", "-n", min=1, metavar="COUNT", help="Begin with the last so many.")
]
