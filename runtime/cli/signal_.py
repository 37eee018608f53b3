"""`paddock signal`."""

from __future__ import annotations

from typing import Annotated

import typer

from .arguments import Db, Ident, Json, complete_signal, parse_json, resolve
from .desk import ask
from .output import print_json, say, tell_live

__all__ = ["signal"]


def signal(
    id: Ident,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The signal's name.", show_default=False, autocompletion=complete_signal),
    ],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="What it carries; - reads it from stdin.")] = "null",
    *,
    db: Db = None,
    json: Json = False,
) -> None:
    """Answer what an instance waits for.

    A signal that comes early is kept. The payload is checked against what the wait accepts before anything is changed.

    [dim]paddock signal 0199c3d2 approve '{"approved": true}'[/]
    """
    path, ident = resolve(db, id)
    done = ask(path, "signal", {"id": ident, "name": name, "payload": parse_json(payload, "the payload")})
    if json:
        print_json({"id": ident, "signal": name, "live": done.live})
        return
    say(f"{ident} has the signal {name!r}")
    tell_live(done.live)
