"""`paddock graph`."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import InstanceNotFound, PaddockError, UsageError
from ..base.records import Instance
from ..store.overview import is_id, workflow_names
from .arguments import Db, Json, complete_id, find_id, reading
from .completion import complete_workflow
from .database import find_database
from .desk import ask, running_server
from .output import print_json

if TYPE_CHECKING:
    from ..authoring.diagram import Diagram

__all__ = ["graph"]

_LOOK = 5.0


def _complete(ctx: typer.Context, incomplete: str) -> list[str]:
    return complete_workflow(ctx, incomplete) + complete_id(ctx, incomplete)


def graph(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW|ID",
            show_default=False,
            help="A workflow, as module:workflow or by the name that a running server knows; or an instance by its id or its beginning.",
            autocompletion=_complete,
        ),
    ],
    instance: Annotated[
        str | None,
        typer.Option("--instance", metavar="ID", help="Mark what this instance has done.", show_default=False),
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Print a workflow or an instance's path as a Mermaid flowchart.

    Of an instance the whole workflow is drawn where its server runs or the workflow is named; else its journal so far.
    A flow is code: what it does shows in its journal only.

    [dim]paddock graph shop.orders:process_order[/]
    [dim]paddock graph shop.orders:process_order --instance 0199c3d2[/]
    [dim]paddock graph 0199c3d2 > path.mmd[/]
    """
    from ..authoring.diagram import diagram_of, journal_diagram, marked
    from .mermaid import mermaid
    from .target import load_workflow

    if ":" in what and not _is_instance(db, what):
        definition, _ = load_workflow(what)
        drawn = diagram_of(definition)
        if instance is not None:
            drawn = marked(drawn, _same(_load(db, instance)[1], definition.name))
    elif (named := _named(db, what)) is not None:
        drawn = named if instance is None else marked(named, _same(_load(db, instance)[1], what))
    elif instance is not None:
        raise UsageError("--instance goes with a workflow; an id stands alone")
    else:
        path, found = _load(db, what)
        known = _from_server(path, found.workflow_name)
        drawn = marked(known, found) if known is not None else journal_diagram(found)
    if json:
        print_json(asdict(drawn))
    else:
        sys.stdout.write(mermaid(drawn) + "\n")


def _is_instance(db: str | None, text: str) -> bool:
    """Tell whether a text with a colon, which ids may have too, is an instance's id."""
    with contextlib.suppress(PaddockError), reading(db) as (reader, _):
        return reader.read(is_id, text)
    return False


def _named(db: str | None, text: str) -> Diagram | None:
    """Return the drawing of the workflow of a name that a running server knows; None where it is no such name."""
    try:
        path = find_database(db)
    except UsageError:
        return None
    return None if _is_instance(db, text) else _from_server(path, text)


def _load(db: str | None, text: str) -> tuple[str, Instance]:
    with reading(db) as (reader, path):
        try:
            found = reader.get(find_id(reader, text))
        except InstanceNotFound:
            if text not in reader.read(workflow_names):
                raise
            raise UsageError(
                f"no running server knows the workflow {text!r}; name it with its module: shop.orders:{text}"
            ) from None
    if found is None:
        raise UsageError(f"instance {text} was cleaned up just now")
    return path, found


def _same(instance: Instance, name: str) -> Instance:
    if instance.workflow_name != name:
        raise UsageError(f"instance {instance.id} is of workflow {instance.workflow_name!r}, not of {name!r}")
    return instance


def _from_server(path: str, workflow: str) -> Diagram | None:
    """Return the drawing that a running server has of a workflow; None where nobody knows it."""
    if running_server(path) is None:
        return None
    try:
        return _diagram(ask(path, "diagram", {"workflow": workflow}, timeout=_LOOK).result)
    except PaddockError:
        return None


def _diagram(data: dict[str, Any]) -> Diagram:
    from ..authoring.diagram import Arrow, Box, Diagram, Group

    return Diagram(
        name=data["name"],
        boxes=tuple(Box(**box) for box in data["boxes"]),
        arrows=tuple(Arrow(**arrow) for arrow in data["arrows"]),
        groups=tuple(Group(**group) for group in data["groups"]),
        complete=data["complete"],
    )
