"""`paddock check`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from .arguments import Db
from .database import find_database
from .output import FAILED, STYLES, console, print_json, say

if TYPE_CHECKING:
    from ..authoring.replays import ReplayCheck
    from ..engine.definition import Definition

__all__ = ["check"]

_STYLES = {"fits": "green", "blocks": "bold red", "fails": "bold red", "unsure": "yellow"}


def check(
    modules: Annotated[
        list[str],
        typer.Argument(help="Modules with the workflows: package.module or path/to/file.py.", show_default=False),
    ],
    db: Db = None,
    id: Annotated[str | None, typer.Option("--id", help="Only this instance.")] = None,
    timeout: Annotated[str, typer.Option("--timeout", help="How long the code of one instance may take.")] = "10s",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """Tell which unfinished instances would go on with the code at hand, before it is deployed.

    Replays their journals: no step, condition or plugin runs, nothing is written, a server may run on the database. The code of flows
    and states between their steps runs, as at every replay, up to where the journal ends; what it prints is dropped. Exit code 1 if an
    instance would block or fail.

    [dim]paddock check shop.orders --db app.db[/]
    """
    from ..authoring.replays import check_replays  # here: the other commands need not wait for it

    with contextlib.redirect_stdout(io.StringIO()):
        definitions = [one for name in modules for one in _definitions(name)]
        found = asyncio.run(check_replays(find_database(db), definitions, id=id, timeout=timeout))
    if json:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        _show(found)
    if not all(one.ok for one in found):
        raise typer.Exit(FAILED)


def _definitions(module: str) -> list[Definition]:
    from ..engine.definition import Definition, definition_of
    from .target import load_module

    values = [definition_of(value) for value in list(vars(load_module(module)).values())]
    return [value for value in values if isinstance(value, Definition)]


def _show(found: list[ReplayCheck]) -> None:
    out = console()
    for one in found:
        if one.fit != "fits":
            line = Text.assemble(
                (one.instance_id, "bold"), f"  {one.workflow_name}  ", (one.status.value, STYLES[one.status]), "  "
            )
            line.append(one.fit, _STYLES[one.fit])
            if one.step is not None:
                line.append(f" at {one.step}")
            out.print(line, soft_wrap=True)
            out.print(Text(f"    {one.reason}"), soft_wrap=True)
    counts = {fit: sum(one.fit == fit for one in found) for fit in _STYLES}
    words = {"fits": "go on", "blocks": "would block", "fails": "would fail", "unsure": "cannot be told"}
    told = ", ".join(f"{count} {words[fit]}" for fit, count in counts.items() if count)
    say(f"{len(found)} unfinished: {told}" if found else "no unfinished instances")
