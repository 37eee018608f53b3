"""The ASGI application: all routes behind one gate. It stands alone or under a prefix of another application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

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
from .openapi import Description
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
    *steering_routes.OPERATIONS,
    *instance_routes.OPERATIONS,
    *stream_routes.OPERATIONS,
    *result_routes.OPERATIONS,
    *session_routes.OPERATIONS,
)

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def create_app(served: Served, *, token: str | None, hosts: Iterable[str], lifespan: Lifespan) -> Gate:
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
        async with lifespan(app):
            with served.answering():
                yield

    app = Starlette(
        routes=[
            *routes(OPERATIONS, served),
            Route("/openapi.json", Description(OPERATIONS, served, needs_token=access.needs_token).respond),
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
    return Gate(app, access, served)


async def _problem(_request: Request, error: Exception) -> Response:
    return answer(problem_of(error))
