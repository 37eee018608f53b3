"""The gate in front of every route: asks `access` before anything is read, and sets the headers that every answer carries."""

from __future__ import annotations

import time
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access, Asking
from .problems import Problem, answer
from .served import Served

__all__ = ["HEADERS", "Gate", "asking_of"]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def asking_of(scope: Scope) -> Asking:
    """Return the head of a request as `access` wants it."""
    headers: dict[str, bytes] = {}
    cookies: dict[str, str] = {}
    for key, value in scope["headers"]:
        name = key.decode("latin-1").lower()
        if name in ("host", "origin", "authorization") and name in headers:
            headers[name] = b""  # said twice: neither counts
        elif name == "cookie":
            cookies.update(_cookies(value.decode("latin-1")))
        else:
            headers[name] = value
    root, path = scope.get("root_path", ""), scope["path"]
    if root and path.startswith(root):
        path = path[len(root) :]
    client = scope.get("client")
    return Asking(
        method=scope["method"],
        path=path,
        headers=headers,
        peer=client[0] if client else None,
        scheme=scope.get("scheme", "http"),
        cookies=cookies,
        now=time.time(),
    )


def _cookies(text: str) -> dict[str, str]:
    try:
        return {key: morsel.value for key, morsel in SimpleCookie(text).items()}
    except CookieError:
        return {}


class Gate:
    """An ASGI application in front of another."""

    def __init__(self, app: ASGIApp, access: Access, served: Served) -> None:
        """Guard `app` by the rules of `access`."""
        self._app = app
        self._access = access
        self.served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._access.check(asking_of(scope))
        except Problem as problem:
            await answer(problem)(scope, receive, sealed)
            return
        await self._app(scope, receive, sealed)
