"""`paddock serve`."""

from __future__ import annotations

import contextlib
import os
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from ..base.errors import UsageError
from .completion import complete_server
from .output import say
from .token import find_token

if TYPE_CHECKING:
    from ..http.certificate import Certificate
    from ..server.app import AppServer

__all__ = ["serve"]


_Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:SERVER",
        show_default=False,
        help="An AppServer; or a module that holds workflows; or path/to/file.py for either.",
        autocompletion=complete_server,
    ),
]
_Host = Annotated[str, typer.Option("--host", help="Where to listen; beyond loopback it needs a token.")]
_Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")]
_Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar="PADDOCK_DB",
        help="The database, where the target is no server; by default the only one in this folder, or a new app.db.",
        show_default=False,
        metavar="FILE",
    ),
]
_Token = Annotated[
    str | None,
    typer.Option(
        "--token", help="What callers must show. Everybody on this machine can read it here: use PADDOCK_TOKEN."
    ),
]
_TokenFile = Annotated[
    str | None, typer.Option("--token-file", envvar="PADDOCK_TOKEN_FILE", help="A file that holds the token.")
]
_AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", help="A further name under which it is reached, behind a proxy; may be repeated."),
]
_SslCertfile = Annotated[
    str | None,
    typer.Option("--ssl-certfile", metavar="FILE", help="Speak TLS, with this certificate and its chain."),
]
_SslKeyfile = Annotated[
    str | None, typer.Option("--ssl-keyfile", metavar="FILE", help="Its key, where it stands in a file of its own.")
]
_OpenPage = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


def serve(
    target: _Target,
    *,
    host: _Host = "127.0.0.1",
    port: _Port = 8321,
    db: _Db = None,
    token: _Token = None,
    token_file: _TokenFile = None,
    allow_host: _AllowHost = None,
    ssl_certfile: _SslCertfile = None,
    ssl_keyfile: _SslKeyfile = None,
    open_page: _OpenPage = False,
) -> None:
    """Serve the HTTP API and the page, and run workflows, until a signal.

    SIGTERM and Ctrl-C stop: running steps get the server's kill_grace, and everything goes on at the next start. SIGHUP restarts the program
    in place, with new code and certificate, where these can be loaded; what runs does not notice.

    [dim]paddock serve shop.app:server --port 8321[/]
    [dim]paddock serve hello.py --open[/]
    [dim]PADDOCK_TOKEN=$(cat token) paddock serve shop.app:server --host 0.0.0.0 --ssl-certfile cert.pem --ssl-keyfile key.pem[/]
    """
    from ..child.trial import on_trial
    from ..http.access import is_loopback
    from ..http.serving import bind, check_address
    from .target import load_server

    secret = find_token(token, token_file)
    check_address(host, secret)
    certificate = _certificate(ssl_certfile, ssl_keyfile)
    server = load_server(target, db)
    if on_trial():
        return
    listening = bind(host, port, certificate)
    if certificate is None and not is_loopback(host):
        say("the token and all else travel in clear text: --ssl-certfile speaks TLS, or a proxy before this does")
    hosts = [*(allow_host or ()), *_own_names(host, secret)]
    gate = server.asgi(token=secret, allowed_hosts=hosts)
    try:
        _serve(server, lambda: _front(gate, listening, port, secret, open_page=open_page), secret)
    finally:
        listening.socket.close()


def _serve(server: AppServer, front: Callable[[], AbstractAsyncContextManager[None]], secret: str | None) -> None:
    """Do what `server.serve()` does, but try out this command before it is executed anew: it knows what it is going to load."""
    from ..server.signalled import serve_program
    from ..server.trial import try_command

    environ = {} if secret is None else {"PADDOCK_TOKEN": secret}
    command = [sys.executable, *sys.orig_argv[1:]]
    serve_program(server, front, lambda: try_command(command, environ=environ))


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


def _certificate(certfile: str | None, keyfile: str | None) -> Certificate | None:
    from ..http.certificate import Certificate

    if certfile is None and keyfile is not None:
        raise UsageError("--ssl-keyfile is the key of a certificate: give --ssl-certfile too")
    return Certificate(certfile, keyfile) if certfile is not None else None


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
