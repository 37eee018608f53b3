"""Following: events, logs and chunks as they come, results when they are there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ..base.errors import InstanceNotFound, ServerNotRunning
from ..base.records import LEVELS, TERMINAL, Event, Status
from ..server.workflows import Workflows
from ..store import browse
from . import answers
from .operation import Operation, reply
from .problems import problem_of
from .requests import Call, LogsQuery, ResultQuery, StreamQuery
from .shapes import log_of_event, log_record, shorten_event
from .sse import Frames, Readers, frame, last_event_id

__all__ = ["OPERATIONS", "outcome", "stream_of"]

_SSE = "text/event-stream"
_PIECE = 64 * 1024
_YES = frozenset({"1", "true"})
_ENDS = frozenset({"workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.timed_out"})
_LOGS = "log.workflow"


def _readers(call: Call) -> Readers:
    readers: Readers = call.request.app.state.readers
    return readers


def _frames(call: Call) -> Frames:
    frames: Frames = call.request.app.state.frames
    return frames


async def _check(call: Call, ident: str | None) -> None:
    """Refuse an unknown instance before a stream begins; raises InstanceNotFound."""
    if ident is not None:
        await call.served.store().view(browse.instance, ident)
    else:
        call.served.store()


# --- events ---


async def events(call: Call) -> Response:
    """Follow the events of all instances, or read a page of them."""
    return await _events(call, call.query.instance_id, None)


async def instance_events(call: Call) -> Response:
    """Follow the events of one instance from the first one on, or read a page of them."""
    return await _events(call, call.id, 0)


async def _events(call: Call, ident: str | None, begin: int | None) -> Response:
    await _check(call, ident)
    query = call.query
    if call.wants("application/json"):
        found = await call.served.events.history(
            query.pattern, instance_id=ident, after=query.after or 0, limit=query.limit
        )
        shown = [shorten_event(event) for event in found] if query.short in _YES else found
        more = found[-1].id if len(found) == query.limit else None
        return reply(answers.EventsPage(events=shown, next=more))
    came = last_event_id(call.request)
    after = came if came is not None else query.after if query.after is not None else begin
    ended = query.until == "end" and ident is not None and await _has_ended(call, ident)
    if query.follow not in _YES or ended:
        return _readers(call).respond(call.request, _past(call, ident, after or 0))
    return _readers(call).respond(call.request, _live(call, ident, after))


def _event_frame(call: Call, event: Event) -> bytes:
    if call.query.short in _YES:
        return _frames(call).of(event.id, "short", lambda: shorten_event(event))
    return _frames(call).of(event.id, "full", lambda: event)


async def _past(call: Call, ident: str | None, after: int) -> AsyncIterator[bytes]:
    async for event in _history(call, call.query.pattern, ident, after):
        yield _event_frame(call, event)
    yield frame({}, event="end")


async def _live(call: Call, ident: str | None, after: int | None) -> AsyncIterator[bytes]:
    """Go through events as they come; those that come together make one piece."""
    until_end = call.query.until == "end" and ident is not None
    subscription = call.served.events.subscribe(
        "*" if until_end else call.query.pattern, instance_id=ident, after=after
    )
    async for first in subscription:
        over, piece = False, b""
        for event in (first, *subscription.ready()):
            if not until_end or fnmatchcase(event.name, call.query.pattern):
                piece += _event_frame(call, event)
            over = over or (until_end and await _is_over(call, event))
            if len(piece) > _PIECE:
                yield piece
                piece = b""
        if over:
            piece += frame({}, event="end")
        if piece:
            yield piece
        if over:
            return


async def _has_ended(call: Call, ident: str) -> bool:
    return (await call.served.store().view(browse.instance, ident))["status"] in TERMINAL


async def _is_over(call: Call, event: Event) -> bool:
    """Tell whether an event is the end for good: a retry opens a failed instance again, and then its end lies further on."""
    return event.name in _ENDS and await _has_ended(call, event.instance_id)


# --- logs ---


async def logs(call: Call) -> Response:
    """Read or follow the log records of all instances."""
    return await _read_logs(call, None)


async def instance_logs(call: Call) -> Response:
    """Read or follow the log records of one instance."""
    return await _read_logs(call, call.id)


async def _read_logs(call: Call, ident: str | None) -> Response:
    await _check(call, ident)
    query, served = call.query, call.served
    if call.wants(_SSE):
        came = last_event_id(call.request)
        after = came if came is not None else query.after
        return _readers(call).respond(call.request, _live_logs(call, ident, after))
    if query.tail is not None or query.before is not None:
        limit = query.tail or query.limit
        rows = await served.store().view(browse.log_tail, limit, query.level, query.before, ident)
        before = rows[0]["id"] if len(rows) == limit else None
        return reply(answers.LogsPage(logs=[log_record(row) for row in rows], next=None, before=before))
    found = await served.logs.query(instance_id=ident, level=query.level, after=query.after or 0, limit=query.limit)
    more = found[-1].id if len(found) == query.limit else None
    return reply(answers.LogsPage(logs=found, next=more, before=None))


async def _live_logs(call: Call, ident: str | None, after: int | None) -> AsyncIterator[bytes]:
    lowest = LEVELS[call.query.level or "debug"]
    begin = after if after is not None else (0 if ident is not None else None)
    until_end = call.query.until == "end" and ident is not None
    past = call.query.follow not in _YES or (until_end and ident is not None and await _has_ended(call, ident))
    source = (
        _history(call, _LOGS, ident, begin or 0)
        if past
        else call.served.events.subscribe("*" if until_end else _LOGS, instance_id=ident, after=begin)
    )
    async for event in source:
        if event.name == _LOGS and LEVELS.get(str(event.data.get("level")), 0) >= lowest:
            yield _frames(call).of(event.id, "log", functools.partial(log_of_event, event))
        elif until_end and await _is_over(call, event):
            break
    if past or until_end:
        yield frame({}, event="end")


async def _history(call: Call, pattern: str, ident: str | None, after: int) -> AsyncIterator[Event]:
    """Go through past events until there are no more."""
    while found := await call.served.events.history(pattern, instance_id=ident, after=after, limit=100):
        for event in found:
            after = event.id
            yield event


# --- results ---


async def stream(call: Call) -> Response:
    """Follow an instance's chunks, then its result."""
    row = await call.served.store().view(browse.instance, call.id)
    return stream_of(call, call.id, row["workflow_name"])


def stream_of(call: Call, ident: str, name: str) -> Response:
    """Answer with an instance's chunks and its result, as server-sent events."""
    return _readers(call).respond(call.request, _chunks(call, ident, name, last_event_id(call.request) or 0))


async def _chunks(call: Call, ident: str, name: str, after: int) -> AsyncIterator[bytes]:
    ended = await _has_ended(call, ident)
    source = (
        _history(call, "workflow.*", ident, after)
        if ended
        else call.served.events.subscribe("workflow.*", instance_id=ident, after=after)
    )
    yield frame({"id": ident, "workflow_name": name}, event="started")
    async for event in source:
        after = event.id
        if event.name == "workflow.stream":
            chunk = {"index": event.data.get("index"), "chunk": event.data.get("chunk")}
            yield frame(chunk, event="chunk", id=event.id)
        elif not ended and (await _is_over(call, event) or await _is_blocked(call, event)):
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
    await _check(call, call.id)
    return await outcome(call, call.id, call.query.timeout, {})


async def outcome(call: Call, ident: str, timeout: float | None, headers: Mapping[str, str]) -> Response:
    """Wait until an instance has ended, the caller has gone, or the server closes; answer with how it stands."""
    served = call.served
    waiting: dict[str, asyncio.Task[Any]] = {
        "end": asyncio.ensure_future(served.workflows.wait(ident)),
        "gone": asyncio.ensure_future(_gone(call)),
        "closing": asyncio.ensure_future(served.closing.wait()),
    }
    try:
        await asyncio.wait(waiting.values(), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not waiting["end"].done() and served.closing.is_set():
            raise ServerNotRunning("the server stops")
        if waiting["gone"].done() and not waiting["end"].done():
            raise ClientDisconnect
        if not waiting["end"].done():
            row = await served.store().view(browse.instance, ident)
            body = answers.Outcome(id=ident, workflow_name=row["workflow_name"], status=row["status"], output=None)
            return reply(body, 202, headers)
        instance = waiting["end"].result()
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
    Operation(
        "GET",
        "/api/events",
        "events",
        "Follow events, or read a page of them",
        events,
        query=StreamQuery,
        answers={200: answers.EventsPage},
        errors=(404,),
        stream=True,
    ),
    Operation(
        "GET",
        "/api/instances/{id}/events",
        "instanceEvents",
        "Follow an instance's events, or read a page of them",
        instance_events,
        query=StreamQuery,
        answers={200: answers.EventsPage},
        errors=(404,),
        stream=True,
    ),
    Operation(
        "GET",
        "/api/logs",
        "logs",
        "Read or follow log records",
        logs,
        query=LogsQuery,
        answers={200: answers.LogsPage},
        stream=True,
    ),
    Operation(
        "GET",
        "/api/instances/{id}/logs",
        "instanceLogs",
        "Read or follow an instance's log records",
        instance_logs,
        query=LogsQuery,
        answers={200: answers.LogsPage},
        errors=(404,),
        stream=True,
    ),
    Operation(
        "GET",
        "/api/instances/{id}/stream",
        "stream",
        "Follow an instance's chunks, then its result",
        stream,
        errors=(404,),
        stream=True,
    ),
    Operation(
        "GET",
        "/api/instances/{id}/result",
        "result",
        "Wait for an instance's result",
        result,
        query=ResultQuery,
        answers={200: answers.Outcome, 202: answers.Outcome},
        errors=(404, 409, 424),
    ),
)
