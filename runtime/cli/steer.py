"""What people do to instances: `paddock cancel`, `retry`, `pause`, `unpause`, `fork`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..base.errors import UsageError
from ..base.records import Status
from ..store.overview import standing
from ..store.schemes import open_reader
from .arguments import Db, Ident, Idents, Json, Name, StatusName, parse_json, parse_status, resolve
from .database import find_database
from .desk import Done, ask
from .output import print_id, print_json, say, tell_live

__all__ = ["cancel", "fork", "pause", "retry", "unpause"]


def cancel(
    ids: Idents = None,
    *,
    all: Annotated[bool, typer.Option("--all", help="Every unfinished one; --name and --status narrow it.")] = False,
    name: Name = None,
    status: StatusName = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Cancel instances, with everything that they started.

    Their processes are gone when this returns. Child workflows go with them. One that has ended already is left as it is.

    [dim]paddock cancel 0199c3d2[/]
    [dim]paddock cancel --all --name import --status waiting[/]
    """
    if _in_bulk(ids, all, name, status):
        wanted = parse_status(status)
        done = ask(find_database(db), "cancel_all", {"name": name, "status": wanted and wanted.value})
        _tell_count(done, "cancelled", json=json)
        return
    for path, ident in _each(db, ids):
        done = ask(path, "cancel", {"id": ident})
        if json:
            print_json({"id": ident, "cancelled": done.result, "live": done.live})
        elif done.result:
            say(f"{ident} is cancelled")
        else:
            say(f"{ident} had ended before, as {_status(path, ident).value}")


def retry(
    ids: Idents = None,
    *,
    all: Annotated[bool, typer.Option("--all", help="Every failed one; --name narrows it.")] = False,
    name: Name = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Run failed instances on from their failed step.

    Blocked ones are tried again.

    [dim]paddock retry 0199c3d2[/]
    [dim]paddock retry --all --name import[/]
    """
    if _in_bulk(ids, all, name, None):
        _tell_count(ask(find_database(db), "retry_all", {"name": name}), "queued again", json=json)
        return
    _do_each(db, ids, "retry", "is queued again", json=json)


def pause(ids: Idents, *, db: Db = None, json: Json = False) -> None:
    """Hold instances; running ones at the end of their step.

    [dim]paddock pause 0199c3d2[/]
    """
    _do_each(db, ids, "pause", "is held, at the end of its step if it runs", json=json)


def unpause(ids: Idents, *, db: Db = None, json: Json = False) -> None:
    """Let paused instances go on.

    [dim]paddock unpause 0199c3d2[/]
    """
    _do_each(db, ids, "unpause", "goes on", json=json)


def fork(
    id: Ident,
    *,
    step: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Share what was done before this step.", show_default=False),
    ] = None,
    input: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Another input.", show_default=False)
    ] = None,
    new_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The new instance's id.", show_default=False)
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Run a copy of an instance from a step on.

    The new one shares what was done before the step; its id is printed. Without --from it begins at the beginning.

    [dim]paddock fork 0199c3d2 --from charge[/]
    [dim]paddock fork 0199c3d2 --input '{"order_id": "A-2"}'[/]
    """
    path, ident = resolve(db, id)
    arguments: dict[str, Any] = {"id": ident, "from_step": step, "new_id": new_id}
    if input is not None:
        arguments["input"] = parse_json(input)
    done = ask(path, "fork", arguments)
    if json:
        print_json({"id": done.result, "live": done.live})
        return
    print_id(done.result)
    tell_live(done.live)


def _in_bulk(ids: list[str] | None, all: bool, name: str | None, status: str | None) -> bool:
    """Tell whether many are meant; refuse what is neither ids nor --all, or both."""
    if all and ids:
        raise UsageError("give ids, or --all, not both")
    if not all and not ids:
        raise UsageError("which instances? Give ids, or --all")
    if not all and (name is not None or status is not None):
        raise UsageError("--name and --status narrow --all; ids need neither")
    return all


def _each(db: str | None, ids: list[str] | None) -> list[tuple[str, str]]:
    """Resolve all ids before anything is done: one that is wrong leaves all as they are."""
    return [resolve(db, text) for text in ids or ()]


def _do_each(db: str | None, ids: list[str] | None, operation: str, sentence: str, *, json: bool) -> None:
    live = True
    for path, ident in _each(db, ids):
        done = ask(path, operation, {"id": ident})
        live = done.live
        if json:
            print_json({"id": ident, "status": _status(path, ident).value, "live": done.live})
        else:
            say(f"{ident} {sentence}")
    if not json:
        tell_live(live)


def _tell_count(done: Done, what: str, *, json: bool) -> None:
    if json:
        print_json({"count": done.result, "live": done.live})
        return
    say(f"{done.result} {what}")
    if done.result:
        tell_live(done.live)


def _status(path: str, ident: str) -> Status:
    with open_reader(path) as reader:
        return reader.read(standing, ident).status
