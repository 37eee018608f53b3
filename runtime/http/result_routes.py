"""Results: an instance's chunks as they come, and its output once it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ..base.errors import InstanceNotFound, ServerNotRunning
from ..base.records import TERMINAL, Event, Status
from ..server.workflows import Workflows
from ..store import browse
from . import answers
from .following import has_ended, is_over, past
from .operation import Operation, place, reply
from .patience import patience_of
from .problems import problem_of
from .requests import Call, ResultQuery
from .sse import frame, last_event_id, readers_of

__all__ = ["OPERATIONS", "outcome", "stream_of"]


async def stream(call: Call) -> Response:
    """Follow an instance's chunks, then its result."""
    row = await call.served.store().view(browse.instance, call.id)
    return stream_of(call, call.id, row["workflow_name"])


def stream_of(call: Call, ident: str, name: str) -> Response:
    """Answer with an instance's chunks and its result, as server-sent events."""
    return readers_of(call.request).respond(call.request, _chunks(call, ident, name, last_event_id(call.request) or 0))


async def _chunks(call: Call, ident: str, name: str, after: int) -> AsyncIterator[bytes]:
    ended = await has_ended(call.served, ident)
    source = (
        past(call.served, "workflow.*", ident, after)
        if ended
        else call.served.events.subscribe("workflow.*", instance_id=ident, after=after)
    )
    yield frame({"id": ident, "workflow_name": name}, event="started")
    async for event in source:
        after = event.id
        if event.name == "workflow.stream":
            chunk = {"index": event.data.get("index"), "chunk": event.data.get("chunk")}
            yield frame(chunk, event="chunk", id=event.id)
        elif not ended and (await is_over(call.served, event) or await _is_blocked(call, event)):
            ended = True
            break
    if not ended:
        raise ServerNotRunning("the server has stopped; the instance goes on at its next start")
    yield await _last(call.served.workflows, ident, name, after)


async def _is_blocked(call: Call, event: Event) -> bool:
    if event.name != "workflow.suspended" or event.data.get("status") != Status.BLOCKED:
        return False
    row = await call.served.store().view(browse.instance, event.instance_id)
    return bool(row["status"] == Status.BLOCKED)


async def _last(workflows: Workflows, ident: str, name: str, event_id: int) -> bytes:
    try:
        output = await workflows.result(ident)
    except Exception as error:  # noqa: BLE001  every outcome is answered
        return frame(problem_of(error).body, event="error", id=event_id)
    done = {"id": ident, "workflow_name": name, "status": "completed", "output": output}
    return frame(done, event="result", id=event_id)


async def result(call: Call) -> Response:
    """Wait for an instance's result."""
    await call.served.store().view(browse.instance, call.id)
    return await outcome(call, call.id, call.query.timeout)


async def outcome(call: Call, ident: str, timeout: float | None) -> Response:
    """Wait until an instance has ended, the caller has gone or its patience is over, or the server closes; answer with how it stands."""
    served, patience = call.served, patience_of(",".join(call.request.headers.getlist("prefer")), timeout)
    headers = {**place(call, ident), **patience.headers}
    waiting: dict[str, asyncio.Task[Any]] = {
        "end": asyncio.ensure_future(served.workflows.wait(ident)),
        "gone": asyncio.ensure_future(_gone(call)),
        "closing": asyncio.ensure_future(served.closing.wait()),
    }
    try:
        await asyncio.wait(waiting.values(), timeout=patience.seconds, return_when=asyncio.FIRST_COMPLETED)
        if not waiting["end"].done() and served.closing.is_set():
            raise ServerNotRunning("the server stops")
        if waiting["gone"].done() and not waiting["end"].done():
            raise ClientDisconnect
        if not waiting["end"].done():
            row = await served.store().view(browse.instance, ident)
            if row["status"] not in TERMINAL:
                body = answers.Outcome(id=ident, workflow_name=row["workflow_name"], status=row["status"], output=None)
                return reply(body, 202, headers)
        instance = await waiting["end"]
    finally:
        for task in waiting.values():
            task.cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)
    if instance.status is not Status.COMPLETED:
        await served.workflows.result(ident)  # raises what became of it
        raise InstanceNotFound(f"instance {ident} went on meanwhile; ask again")
    body = answers.Outcome(
        id=ident, workflow_name=instance.workflow_name, status=instance.status, output=instance.output
    )
    return reply(body, 200, headers)


async def _gone(call: Call) -> None:
    """Return once the caller has hung up; its body was read before."""
    while (await call.request.receive())["type"] != "http.disconnect":
        pass


OPERATIONS = (
    Operation("GET", "/api/instances/{id}/stream", stream, errors=(404,), stream=True),
    Operation(
        "GET",
        "/api/instances/{id}/result",
        result,
        query=ResultQuery,
        answers={200: answers.Outcome, 202: answers.Outcome},
        errors=(404, 409, 424),
        waits=True,
    ),
)
