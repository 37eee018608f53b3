"""Following: events and logs as they come, or pages of what there is."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from ..base.records import LEVELS, Event
from ..store import browse
from . import answers
from .following import past, until_end
from .operation import Handler, Operation, reply
from .requests import Call, EventsQuery, InstanceEventsQuery, LogsQuery, Query
from .shapes import log_of_event, shorten_event
from .sse import frame, frames_of, last_event_id, readers_of

__all__ = ["OPERATIONS"]

_SSE = "text/event-stream"
_PIECE = 64 * 1024
_YES = frozenset({"1", "true"})
_LOG = "log.workflow"


async def _check(call: Call, ident: str | None) -> None:
    """Refuse an unknown instance before a stream begins; raises InstanceNotFound."""
    if ident is not None:
        await call.served.store().view(browse.instance, ident)
    else:
        call.served.store()


async def _page(
    call: Call, read: Callable[..., Awaitable[list[Any]]], ident: str | None
) -> tuple[list[Any], int | None, int | None]:
    """Read a page; return it with the cursors of those behind it and before it, None where it was not read that way or is the last."""
    query = call.query
    backwards = query.order == "desc" or query.tail is not None or query.before is not None
    limit = query.tail or query.limit
    found = await read(instance_id=ident, after=query.after or 0, before=query.before, limit=limit, reverse=backwards)
    more = found[-1].id if len(found) == limit else None
    if backwards and query.order == "asc":
        found.reverse()
    return (found, None, more) if backwards else (found, more, None)


async def _beginning(
    call: Call, read: Callable[..., Awaitable[list[Any]]], ident: str | None, begin: int | None
) -> int | None:
    """Return the cursor after which a stream begins, None for now: where its reader was, or before the last so many."""
    came = last_event_id(call.request)
    if came is not None:
        return came
    query = call.query
    if query.after is not None or query.tail is None:
        return begin if query.after is None else int(query.after)
    found = await read(instance_id=ident, limit=query.tail, reverse=True)
    return int(found[-1].id) - 1 if found else begin


async def _frames(
    call: Call, ident: str | None, pattern: str, after: int | None, encode: Callable[[Event], bytes]
) -> AsyncIterator[bytes]:
    """Go through the frames of events; those that come together make one piece. What `encode` has no bytes for is left out."""
    events = call.served.events
    if call.query.follow in _YES and not (call.query.until == "end" and ident is not None):
        subscription = events.subscribe(pattern, instance_id=ident, after=after)
        async for first in subscription:
            piece = b""
            for event in (first, *subscription.ready()):
                piece += encode(event)
                if len(piece) > _PIECE:
                    yield piece
                    piece = b""
            if piece:
                yield piece
        return
    to_its_end = ident is not None and call.query.follow in _YES
    source = (
        until_end(call.served, str(ident), after or 0) if to_its_end else past(call.served, pattern, ident, after or 0)
    )
    async for event in source:
        if fnmatchcase(event.name, pattern) and (piece := encode(event)):
            yield piece
    yield frame({}, event="end")


# --- events ---


async def events(call: Call) -> Response:
    """Follow the events of all instances, or read a page of them."""
    return await _events(call, call.query.instance_id, None)


async def instance_events(call: Call) -> Response:
    """Follow the events of one instance from the first one on, or read a page of them."""
    return await _events(call, call.id, 0)


async def _events(call: Call, ident: str | None, begin: int | None) -> Response:
    await _check(call, ident)
    pattern, short = call.query.pattern, call.query.short in _YES
    read = functools.partial(call.served.events.history, pattern)
    if call.wants("application/json"):
        found, behind, ahead = await _page(call, read, ident)
        shown = [shorten_event(event) for event in found] if short else found
        return reply(answers.EventsPage(events=shown, next=behind, before=ahead))
    held = frames_of(call.request)

    def encode(event: Event) -> bytes:
        if short:
            return held.of(event.id, "short", lambda: shorten_event(event))
        return held.of(event.id, "full", lambda: event)

    after = await _beginning(call, read, ident, begin)
    return readers_of(call.request).respond(call.request, _frames(call, ident, pattern, after, encode))


# --- logs ---


async def logs(call: Call) -> Response:
    """Read or follow the log records of all instances."""
    return await _logs(call, None, None)


async def instance_logs(call: Call) -> Response:
    """Read or follow the log records of one instance."""
    return await _logs(call, call.id, 0)


async def _logs(call: Call, ident: str | None, begin: int | None) -> Response:
    await _check(call, ident)
    read = functools.partial(call.served.logs.query, level=call.query.level)
    if not call.wants(_SSE):
        found, behind, ahead = await _page(call, read, ident)
        return reply(answers.LogsPage(logs=found, next=behind, before=ahead))
    held, lowest = frames_of(call.request), LEVELS[call.query.level or "debug"]

    def encode(event: Event) -> bytes:
        if LEVELS.get(str(event.data.get("level")), 0) < lowest:
            return b""
        return held.of(event.id, "log", functools.partial(log_of_event, event))

    after = await _beginning(call, read, ident, begin)
    return readers_of(call.request).respond(call.request, _frames(call, ident, _LOG, after, encode))


def _followed(place: str, handler: Handler, query: type[Query], page: type[BaseModel]) -> Operation:
    return Operation("GET", f"/api/{place}", handler, query=query, answers={200: page}, errors=(404,), stream=True)


OPERATIONS = (
    _followed("events", events, EventsQuery, answers.EventsPage),
    _followed("instances/{id}/events", instance_events, InstanceEventsQuery, answers.EventsPage),
    _followed("logs", logs, LogsQuery, answers.LogsPage),
    _followed("instances/{id}/logs", instance_logs, LogsQuery, answers.LogsPage),
)
