"""Whoever waits for events: a subscriber's place in the stream, and what anybody wishes to hear.

Each has a short queue of its own. One that falls behind loses nothing: it reads on from the store by its cursor, and holds up neither the bus
nor its neighbours.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from ..base.errors import InstanceNotFound
from ..base.records import Event
from ..store.window import Window

if TYPE_CHECKING:
    from .bus import EventBus

__all__ = ["OUTCOMES", "Feed", "Subscription", "Wishes", "matches"]

_QUEUE = 64
_NAMES = 1000
#: What may be an instance's end.
OUTCOMES = frozenset(
    {"workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.timed_out", "workflow.suspended"}
)


class Feed:
    """One subscriber's place in the stream."""

    def __init__(self, bus: EventBus, pattern: str, instance_id: str | None, cursor: int | None) -> None:
        """Begin behind a cursor, which the store leads on from; None begins with what is published from now on."""
        self._bus = bus
        self.pattern = pattern
        self.instance_id = instance_id
        self.cursor = cursor
        self._queue: deque[Event] = deque()
        self._behind = cursor is not None
        self._over = False
        self._wake = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Take an event that was just published, where it is one of this subscriber's."""
        if self._behind or not matches(event, self.pattern, self.instance_id):
            return
        if len(self._queue) >= _QUEUE:
            self._behind = True  # it goes on from its cursor in the store
            return
        self._queue.append(event)
        self._wake.set()

    async def next(self) -> Event:
        """Return the next event, as soon as there is one; raises StopAsyncIteration after `end`."""
        while True:
            if self._queue:
                event = self._queue.popleft()
                if self.cursor is not None and event.id <= self.cursor:
                    continue
                self.cursor = event.id
                return event
            if self._over:
                raise StopAsyncIteration
            if self._behind:
                await self._catch_up()
                continue
            self._wake.clear()
            await self._wake.wait()

    def ready(self) -> list[Event]:
        """Return what is queued, without waiting."""
        found = []
        for event in self._queue:
            if self.cursor is None or event.id > self.cursor:  # else it was read in the store, ahead of its publication
                found.append(event)
                self.cursor = event.id
        self._queue.clear()
        return found

    def end(self) -> None:
        """Say that nothing follows."""
        self._over = True
        self._wake.set()

    async def _catch_up(self) -> None:
        target = self._bus.cursor
        try:
            found = await self._bus.store.events(
                Window(self.cursor or 0, _QUEUE), pattern=self.pattern, instance_id=self.instance_id
            )
        except InstanceNotFound:  # not started yet, or cleaned up: there is nothing to catch up with
            found = []
        self._queue.extend(found)
        if len(found) < _QUEUE and self._bus.cursor == target:
            self._behind = False  # no await between the check and this: the next offer is not missed


class Subscription:
    """Events one after the other, from `EventBus.subscribe`: `async for event in subscription`. It ends when the server stops.

    It counts from the call that made it. Taking the next event may be cancelled, by a timeout for example: none is lost.
    """

    def __init__(self, feed: Feed) -> None:
        """Read a feed."""
        self._feed = feed

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event, as soon as there is one."""
        return await self._feed.next()

    def ready(self) -> list[Event]:
        """Take what follows and is here already, without waiting; at most a few dozen events."""
        return self._feed.ready()

    async def aclose(self) -> None:
        """End the subscription; one that nobody holds any more ends by itself."""
        self._feed.end()


class Wishes:
    """Which events somebody waits for: by patterns of their names, of one instance or of all."""

    def __init__(self, wishes: Iterable[tuple[str, str | None]]) -> None:
        """Gather patterns, each with the id of its instance, or None."""
        self._patterns: set[str] = set()
        self._of_instance: dict[str, set[str]] = {}
        for pattern, instance_id in wishes:
            (self._patterns if instance_id is None else self._of_instance.setdefault(instance_id, set())).add(pattern)
        self._known: dict[str, bool] = {}

    def __call__(self, name: str, instance_id: str) -> bool:
        """Tell whether somebody waits for an event."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= _NAMES:  # each instance has a name for its logs
                self._known.clear()
            known = self._known[name] = name in OUTCOMES or _is_among(name, self._patterns)
        return known or _is_among(name, self._of_instance.get(instance_id, ()))


def _is_among(name: str, patterns: Iterable[str]) -> bool:
    return any(pattern in ("*", name) or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def matches(event: Event, pattern: str, instance_id: str | None = None) -> bool:
    """Tell whether an event's name fits a glob, and it is the instance's, where one is named."""
    if instance_id is not None and event.instance_id != instance_id:
        return False
    return _is_among(event.name, (pattern,))
