"""An operation: one method of one path, with what it takes and answers. Routes and the OpenAPI description are made of the same table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic_core
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .problems import Problem, answer, problem_of
from .requests import Call, Query, read_body, read_json, read_query
from .served import Served

__all__ = ["Handler", "Operation", "empty", "place", "reply", "routes"]

Handler = Callable[[Call], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Args:
        method, path: where.
        handler: what answers; its name is the operation's, and its docstring the line for people.
        query, body: models of what it takes.
        answers: statuses and the models of what they carry; None carries nothing.
        errors: statuses of problems beside those that every operation may answer.
        stream: answers server-sent events, too or only.
        raw_body: the body is any JSON object.
        waits: answers when an instance has ended, or when the caller's patience has.
    """

    method: str
    path: str
    handler: Handler
    query: type[Query] = Query
    body: type[BaseModel] | None = None
    answers: Mapping[int, Any] = field(default_factory=dict)
    errors: Sequence[int] = ()
    stream: bool = False
    raw_body: bool = False
    waits: bool = False

    @property
    def name(self) -> str:
        """Return the description's `operationId`."""
        first, *more = self.handler.__name__.split("_")
        return first + "".join(word.title() for word in more)

    @property
    def summary(self) -> str:
        """Return a line for people; Python's `-OO` takes docstrings away."""
        return (self.handler.__doc__ or self.name).removesuffix(".")

    @property
    def takes_body(self) -> bool:
        """Tell whether it reads a body."""
        return self.body is not None or self.raw_body


def reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(pydantic_core.to_json(value, inf_nan_mode="null"), status, headers, "application/json")


def place(call: Call, ident: str) -> dict[str, str]:
    """Return the headers that say where an instance is found."""
    root = call.request.scope.get("root_path", "")
    return {"Location": f"{root}/api/instances/{ident}", "Paddock-Instance-Id": ident}


def empty() -> Response:
    """Answer that it is done, with nothing to say."""
    return Response(status_code=204)


def routes(operations: Sequence[Operation], served: Served) -> list[Route]:
    """Return a route for each path, for all of its methods."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [
        Route(path, _endpoint(methods, served), methods=list(methods), name=path) for path, methods in by_path.items()
    ]


def _endpoint(methods: Mapping[str, Operation], served: Served) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        try:
            if "\0" in request.scope["path"]:  # no name holds one, and not every database can be asked for it
                raise Problem(404, "NotFound", "there is nothing here")
            query = read_query(operation.query, request)
            body = None
            if operation.takes_body:
                body = await read_json(request, served.settings.max_payload)
                if operation.body is not None:
                    body = read_body(operation.body, body)
            return await operation.handler(Call(served, request, query, body))
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer
            return answer(problem_of(error))

    return endpoint
