"""The door for browsers: the token in exchange for a cookie, because an `EventSource` sends no headers of its own."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from . import machine_answers
from .access import SESSION_SECONDS, Access
from .bodies import SessionBody
from .gate import asking_of
from .operation import Operation, empty, reply
from .problems import Problem
from .requests import Call

__all__ = ["OPERATIONS"]


def _access(call: Call) -> Access:
    access: Access = call.request.app.state.access
    return access


async def get_session(call: Call) -> Response:
    """Tell whether a token is needed, and whether the caller has shown it."""
    access = _access(call)
    known = access.knows(asking_of(call.request.scope))
    return reply(machine_answers.Session(required=access.needs_token, authenticated=known))


async def open_session(call: Call) -> Response:
    """Give a cookie for the token."""
    access = _access(call)
    if access.needs_token and not access.is_token(call.body.token.encode()):
        raise Problem(401, "Unauthorized", "that is not the server's token")
    response = empty()
    if access.needs_token:
        response.set_cookie(
            access.cookie,
            access.session(time.time()),
            max_age=SESSION_SECONDS,
            path=_path(call.request),
            secure=call.request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
    return response


async def close_session(call: Call) -> Response:
    """Take the cookie back."""
    response = empty()
    response.delete_cookie(_access(call).cookie, path=_path(call.request), httponly=True, samesite="strict")
    return response


def _path(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"


OPERATIONS = (
    Operation("GET", "/api/session", get_session, answers={200: machine_answers.Session}),
    Operation("POST", "/api/session", open_session, body=SessionBody, answers={204: None}),
    Operation("DELETE", "/api/session", close_session, answers={204: None}),
)
