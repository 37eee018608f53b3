"""`paddock start`."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import UsageError, WorkflowNotFound
from ..store.overview import workflow_names
from ..store.schemes import open_reader
from .arguments import Db, Input, Json, complete_name, parse_json
from .database import find_database
from .desk import Done, ask, running_server
from .output import print_id, print_json, tell_live

if TYPE_CHECKING:
    from ..engine.definition import Definition

__all__ = ["start"]


_Workflow = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW",
        show_default=False,
        help="A name that the server has registered; or module:workflow.",
        autocompletion=complete_name,
    ),
]
_Id = Annotated[
    str | None,
    typer.Option(
        "--id", metavar="ID", help="An id of your own; the same one starts nothing twice.", show_default=False
    ),
]
_Delay = Annotated[
    str | None,
    typer.Option("--delay", metavar="DURATION", help="Not before so long, such as 10min.", show_default=False),
]
_Priority = Annotated[int, typer.Option("--priority", metavar="NUMBER", help="A higher one runs first.")]
_Meta = Annotated[
    list[str] | None,
    typer.Option("--meta", metavar="KEY=JSON", help="Metadata; may be repeated.", show_default=False),
]
_Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end and print its output.")]


def start(
    workflow: _Workflow,
    input: Input = "null",
    *,
    db: Db = None,
    id: _Id = None,
    delay: _Delay = None,
    priority: _Priority = 0,
    meta: _Meta = None,
    wait: _Wait = False,
    json: Json = False,
) -> None:
    """Start an instance, and print its id.

    Where no server runs on the database it is queued, and runs when one starts.

    [dim]paddock start process-order '{"order_id": "A-1"}' --id order-a-1[/]
    [dim]paddock start shop.orders:process_order - --wait < order.json[/]
    """
    path = find_database(db)
    live = running_server(path) is not None
    if wait and not live:
        raise UsageError(
            f"no server runs on {path}, so there is no end to wait for; leave --wait away, or use `paddock run`"
        )
    arguments: dict[str, Any] = {
        "input": parse_json(input),
        "id": id,
        "delay": delay,
        "priority": priority,
        "metadata": dict(map(_pair, meta or ())),
    }
    done = _start(path, workflow, arguments, live=live)
    if wait:
        from .waiting import wait_for_end

        sys.exit(wait_for_end(path, done.result, workflow, whole=json))
    if json:
        print_json({"id": done.result, "live": done.live})
    else:
        print_id(done.result)
        tell_live(done.live)


def _start(path: str, workflow: str, arguments: dict[str, Any], *, live: bool) -> Done:
    """Have the server start it, by the name that it knows; where none runs or it knows no such name, by what can be loaded here."""
    if live:
        try:
            return ask(path, "start", {"name_or_definition": workflow, **arguments})
        except WorkflowNotFound:
            if ":" not in workflow:
                raise
    name, definitions = _definition(path, workflow)
    return ask(path, "start", {"name_or_definition": name, **arguments}, definitions)


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--meta {text!r:.100} is no KEY=JSON, such as --meta 'customer=\"Ada\"'")
    return key, parse_json(value, f"the value of --meta {key}")


def _definition(path: str, workflow: str) -> tuple[str, list[tuple[Definition, str | None]]]:
    """Return the name of a workflow, and what can be known of it without a server."""
    from .offline import NamedOnly
    from .target import load_workflow

    with open_reader(path) as reader:
        names = reader.read(workflow_names)
    if workflow in names:
        return workflow, [(NamedOnly(workflow), None)]
    if ":" in workflow:
        definition, module = load_workflow(workflow)
        return definition.name, [(definition, module)]
    near = difflib.get_close_matches(workflow, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "name it module:workflow, so that its input can be checked"
    raise WorkflowNotFound(
        f"no server runs on {path}, and no instance there is of a workflow {workflow!r:.100}; {hint}"
    )
