"""What streams go through: past events, those that come, and an instance to its very end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ..base.errors import InstanceNotFound
from ..base.records import TERMINAL, Event
from ..store import browse
from ..store.overview import standing
from .served import Served

__all__ = ["ENDS", "has_ended", "is_over", "past", "until_end"]

ENDS = frozenset({"workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.timed_out"})
_PAGE = 100
_LAST_WORDS, _LOOK = 10.0, 0.1


async def has_ended(served: Served, ident: str) -> bool:
    """Tell whether an instance has ended; raises InstanceNotFound."""
    return (await served.store().view(browse.instance, ident))["status"] in TERMINAL


async def is_over(served: Served, event: Event) -> bool:
    """Tell whether an event is the end for good: a retry opens a failed instance again, and then its end lies further on."""
    return event.name in ENDS and await has_ended(served, event.instance_id)


async def past(served: Served, pattern: str, ident: str | None, after: int) -> AsyncIterator[Event]:
    """Go through past events until there are no more."""
    while found := await served.events.history(pattern, instance_id=ident, after=after, limit=_PAGE):
        for event in found:
            after = event.id
            yield event


async def until_end(served: Served, ident: str, after: int) -> AsyncIterator[Event]:
    """Go through an instance's events until it has ended and its process, whose last words still count, is gone.

    What a process printed last is kept after the event of its instance's end: by the process itself or, once that is dead, by the server,
    with the release of its lease. A process that will not go is waited for ten seconds.
    """
    ended = await has_ended(served, ident)
    while not ended:
        async for event in served.events.subscribe("*", instance_id=ident, after=after):
            after = event.id
            yield event
            if ended := await is_over(served, event):
                break
        else:
            return  # the server stops
    loop = asyncio.get_running_loop()
    patience = loop.time() + _LAST_WORDS
    leased = True
    while leased and loop.time() < patience:
        try:
            leased = (await served.store().view(standing, ident)).leased
            async for event in past(served, "*", ident, after):
                after = event.id
                yield event
        except InstanceNotFound:  # cleaned up
            return
        if leased:
            await asyncio.sleep(_LOOK)
