"""The ASGI application: all routes behind one gate. It stands alone or under a prefix of another application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pydantic_core
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import (
    instance_routes,
    machine_routes,
    result_routes,
    session_routes,
    steering_routes,
    stream_routes,
    workflow_routes,
)
from .access import Access
from .gate import Gate
from .metrics import Metrics
from .openapi import describe
from .operation import routes
from .page_routes import ROUTES
from .problems import answer, problem_of
from .served import Served
from .sse import Frames, Readers

__all__ = ["OPERATIONS", "create_app"]

#: The more special paths first: `/api/instances/bulk` is no instance.
OPERATIONS = (
    *machine_routes.OPERATIONS,
    *workflow_routes.OPERATIONS,
    *sorted(steering_routes.OPERATIONS, key=lambda one: one.name != "bulk"),
    *instance_routes.OPERATIONS,
    *stream_routes.OPERATIONS,
    *result_routes.OPERATIONS,
    *session_routes.OPERATIONS,
)

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


class _Description:
    """The OpenAPI description as text, made anew only where something was registered: it takes a while."""

    def __init__(self, served: Served, *, needs_token: bool) -> None:
        self._served = served
        self._needs_token = needs_token
        self._of: tuple[str, frozenset[str]] | None = None
        self._text = b""

    async def respond(self, request: Request) -> Response:
        root, names = request.scope.get("root_path", ""), self._served.workflows.registry.names
        if self._of != (root, names):
            found = describe(OPERATIONS, self._served, needs_token=self._needs_token, root=root)
            self._of, self._text = (root, names), pydantic_core.to_json(found)
        return Response(self._text, media_type="application/json")


async def _problem(_request: Request, error: Exception) -> Response:
    return answer(problem_of(error))


def create_app(
    served: Served, *, token: str | None = None, hosts: Iterable[str] = (), lifespan: Lifespan | None = None
) -> Gate:
    """Return the application.

    Args:
        served: the server's services.
        token: what callers must show; None answers loopback alone.
        hosts: names under which it is reached beside loopback, "*" for all.
        lifespan: what runs around it where it is the root application; a mounted one is not told of its life.
    """
    access = Access(token, hosts)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        gate.open()
        if lifespan is None:
            yield
            return
        async with lifespan(app):
            try:
                yield
            finally:
                gate.let_go()

    app = Starlette(
        routes=[
            *routes(OPERATIONS, served),
            Route("/openapi.json", _Description(served, needs_token=access.needs_token).respond),
            Route("/metrics", Metrics(served).respond),
            *ROUTES,
        ],
        exception_handlers=dict.fromkeys((404, 405, 400, Exception), _problem),
        lifespan=life,
    )
    app.router.redirect_slashes = False  # a redirect would be built from the caller's Host
    app.state.access = access
    app.state.readers = Readers(served)
    app.state.frames = Frames()
    gate = Gate(app, access, served)
    return gate
