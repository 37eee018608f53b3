"""`paddock serve`."""

from __future__ import annotations

import contextlib
import os
import stat
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ..base.errors import UsageError
from .output import say

__all__ = ["serve"]

_WEAK = 16


def serve(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:SERVER",
            show_default=False,
            help="An AppServer; or a module that holds workflows, with --db; or path/to/file.py for either.",
        ),
    ],
    *,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; beyond loopback it needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8321,
    db: Annotated[
        str | None, typer.Option("--db", envvar="PADDOCK_DB", help="The database, where the target is no server.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", help="What callers must show. Everybody on this machine can read it here: use PADDOCK_TOKEN."
        ),
    ] = None,
    token_file: Annotated[
        str | None, typer.Option("--token-file", envvar="PADDOCK_TOKEN_FILE", help="A file that holds the token.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="A further name under which it is reached, behind a proxy; may be repeated."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the HTTP API and the page, and run workflows, until a signal.

    SIGTERM and Ctrl-C stop: running steps get the server's kill_grace, and everything goes on at the next start. SIGHUP restarts the program
    in place, with new code; what runs does not notice.

    [dim]paddock serve shop.app:server --port 8321[/]
    [dim]paddock serve hello.py --db app.db --open[/]
    [dim]PADDOCK_TOKEN=$(cat token) paddock serve shop.app:server --host 0.0.0.0[/]
    """
    from ..http.serving import bind, check_address
    from .target import load_server

    secret = _token(token, token_file)
    check_address(host, secret)
    server = load_server(target, db)
    listening = bind(host, port)
    hosts = [*(allow_host or ()), *_own_names(host, secret)]
    gate = server.asgi(token=secret, allowed_hosts=hosts)
    try:
        server.serve(beside=lambda: _front(gate, listening, port, secret, open_page=open_page))
    finally:
        listening.socket.close()


@asynccontextmanager
async def _front(gate: Any, listening: Any, port: int, secret: str | None, *, open_page: bool) -> AsyncIterator[None]:
    from ..http.serving import beside

    async with beside(gate, listening, port=port):
        _tell(f"serving on {listening.url} (pid {os.getpid()})" + ("" if secret is None else ", with a token"))
        if open_page:
            fragment = f"/#token={quote(secret, safe='')}" if secret is not None else "/"
            webbrowser.open(listening.url + fragment)
        yield
        _tell("stopping")
        if secret is not None:  # for the program that is executed in place of this one; no child is made any more
            os.environ["PADDOCK_TOKEN"] = secret


def _tell(sentence: str) -> None:
    """Say something to whoever still reads: a server does not stop because nobody does."""
    with contextlib.suppress(OSError, ValueError):
        say(sentence)


def _own_names(host: str, secret: str | None) -> list[str]:
    """Return the names that a request may use: with a token and beyond loopback any, for nobody knows what the machine is called."""
    from ..http.access import is_loopback

    if secret is not None and not is_loopback(host):
        return ["*"]
    return [host]


def _token(given: str | None, file: str | None) -> str | None:
    """Return the token: of the option, the file, or the environment, from which it is taken away, so that no child inherits it.

    Raises:
        UsageError: it is empty, given twice, or its file cannot be read.
    """
    from_environment = os.environ.pop("PADDOCK_TOKEN", None)
    if given is not None and file is not None:
        raise UsageError("--token and --token-file exclude each other")
    if given is not None:
        say(
            "anybody on this machine can read --token in the list of processes; PADDOCK_TOKEN or --token-file keep it secret"
        )
        found, source = given, "--token"
    elif file is not None:
        found, source = _read_token(file), file
    elif from_environment is not None:
        found, source = from_environment, "PADDOCK_TOKEN"
    else:
        return None
    if not found.strip():
        raise UsageError(f"{source} holds no token")
    if len(found.strip()) < _WEAK:
        say(
            "the token is short; python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one that nobody guesses"
        )
    return found.strip()


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(10_000)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file {path} cannot be read: {error}") from None
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        with contextlib.suppress(OSError):
            say(f"others can read {path}; chmod 600 keeps the token secret")
    return text
