"""The event bus: the store's events in their order, to everybody who asked, as soon as they are committed.

A child tells up to which id the disk has what it committed; the bus reads on from its own cursor up to there. So nothing is published that
is not durable, nothing twice, and nothing out of order, and what was committed while no socket was there comes along with the next look.
Where a child does not say so soon, because it died or was not heard, the store makes sure of it itself.

What nobody waits for is read past: of most events only the name is looked at.

Asynchronous subscribers have a feed each (`feeds.py`). Synchronous handlers are called on the loop, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from traceback import format_exc
from typing import Any

import blinker

from ..base.errors import ConfigError, MachineError, ServerNotRunning
from ..base.log import get_logger
from ..base.records import Event
from ..store.protocol import Store
from ..store.window import Look
from .feeds import OUTCOMES, Feed, Subscription, Wishes, matches
from .paging import event_cursor, event_window

__all__ = ["EventBus", "Subscription"]

_BATCH = 64
_LOOK_AT_LEAST = 1.0
_MAKE_SURE = 0.01
_LAST_MOMENT = 0.2
_LONGEST_REST = 0.005

Handler = Callable[[Event], Any]
_log = get_logger("paddock.events")


@dataclass(slots=True, eq=False)
class _Listener:
    """An asynchronous handler, which outlives a stop and a new start of its server; its worker does not."""

    pattern: str
    handler: Handler
    worker: asyncio.Task[None] | None = None


class EventBus:
    """`server.events`.

    Attributes:
        published: called with the newest event's id after each batch.
    """

    def __init__(self, store: Store) -> None:
        """Read from a store; `start` begins to publish."""
        self.store = store
        self.cursor = 0
        self._signal = blinker.Signal("paddock.event")
        self._feeds: weakref.WeakSet[Feed] = weakref.WeakSet()
        self._listeners: list[_Listener] = []
        self._called: dict[Callable[..., None], str] = {}
        self._wishes: Wishes | None = None
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()
        self._waits = False  # something is committed, and perhaps not on the disk
        self.trouble: str | None = None
        self.published: Callable[[int], None] = lambda _cursor: None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Publish what is committed from now on."""
        self.cursor = await self.store.last_event_id()
        self._wake = asyncio.Event()  # of this loop: a server may be started again in another
        self._task = asyncio.create_task(self._pump(), name="paddock-events")
        for listener in self._listeners:
            self._begin(listener)

    async def stop(self) -> None:
        """Publish what is committed, give asynchronous handlers a moment, and end."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        with contextlib.suppress(MachineError):
            while await self._publish(sure=True):
                pass
        for feed in list(self._feeds):
            feed.end()
        workers = [listener.worker for listener in self._listeners if listener.worker is not None]
        if workers:
            _, late = await asyncio.wait(workers, timeout=_LAST_MOMENT)
            for worker in late:
                worker.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        self._turn_away()

    def _turn_away(self) -> None:
        """Tell whoever waits for an outcome that it will not be seen here."""
        waiters, self._waiters = self._waiters, {}
        for waiter in (waiter for held in waiters.values() for waiter in held if not waiter.done()):
            waiter.set_exception(ServerNotRunning("the server has stopped; its instances go on at the next start"))
            waiter.exception()  # seen: nobody need be waiting any more

    def poke(self) -> None:
        """Look at the store: something was committed."""
        self._wake.set()

    def heard(self, event_id: int) -> None:
        """Look at the store: a child has everything up to an event on the disk."""
        self.store.on_disk(event_id)
        self._wake.set()

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sure = not await self._poked(_MAKE_SURE if self._waits else _LOOK_AT_LEAST)
            began = loop.time()
            try:
                while await self._publish(sure=sure):  # noqa: ASYNC110  a turn for the others between two batches, not a wait
                    await asyncio.sleep(0)
                self.trouble = None
            except Exception as error:  # noqa: BLE001  whatever it is: without the pump nobody hears anything
                told = str(error) if isinstance(error, MachineError) else repr(error)
                if self.trouble is None:
                    _log.error("events cannot be read; they come when they can", error=told)
                self.trouble = told
                await asyncio.sleep(_LOOK_AT_LEAST)
            # each look costs about the same, however little it finds: where many commit, it finds more after a rest
            await asyncio.sleep(min(loop.time() - began, _LONGEST_REST))

    async def _poked(self, seconds: float) -> bool:
        """Wait for a poke, no longer than that; return whether there was one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        poked = self._wake.is_set()
        self._wake.clear()
        return poked

    async def _publish(self, *, sure: bool = False) -> bool:
        """Publish one batch; return whether there may be more."""
        before, look = self.cursor, await self._look(sure=sure)
        self._waits = look.waits
        for event in look.events:
            self.cursor = event.id
            self._signal.send(self, event=event)
            for feed in self._feeds:
                feed.offer(event)
            if event.name in OUTCOMES:
                self._look_again(event.instance_id)
        if look.last > before:
            self.cursor = look.last
            self.published(self.cursor)
        return look.more

    async def _look(self, *, sure: bool) -> Look:
        while True:
            wishes = self._wishes = self._wishes or self._gather_wishes()
            look = await self.store.read_on(self.cursor, _BATCH, wanted=wishes, sure=sure)
            if self._wishes is wishes:
                return look
            # somebody has come meanwhile, whose events may have been read past

    def _gather_wishes(self) -> Wishes:
        return Wishes(
            [(pattern, None) for pattern in self._called.values()]
            + [(feed.pattern, feed.instance_id) for feed in self._feeds]
        )

    # --- subscribing ---

    def on(self, pattern: str, handler: Handler) -> Callable[[], None]:
        """Call `handler(event)` for each event whose name matches a glob, from now on; return a function that ends it.

        A handler that raises is logged and stops nobody else. A coroutine function runs in a task of its own: a slow one gets every
        event, late, and holds up nobody. A plain function is called on the server's loop and must not block it.

        Raises:
            ConfigError: the pattern is no text, or the handler no function.
        """
        if not callable(handler):
            raise ConfigError(f"{handler!r:.100} is no function; give one that takes an event")
        _pattern(pattern)
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
            return self._on_async(pattern, handler)

        def receive(_bus: object, *, event: Event) -> None:
            if matches(event, pattern):
                _call(handler, event)

        def end() -> None:
            self._signal.disconnect(receive)
            self._called.pop(receive, None)

        self._signal.connect(receive, weak=False)
        self._called[receive] = pattern
        self._wishes = None
        return end

    def _on_async(self, pattern: str, handler: Handler) -> Callable[[], None]:
        listener = _Listener(pattern, handler)
        self._listeners.append(listener)
        if self._task is not None:
            self._begin(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                if listener.worker is not None:
                    listener.worker.cancel()

        return end

    def _begin(self, listener: _Listener) -> None:
        feed = Feed(self, listener.pattern, None, None)
        feed.cursor = self.cursor
        self._follow(feed)
        listener.worker = asyncio.create_task(self._work(feed, listener.handler), name=f"paddock-on-{listener.pattern}")

    async def _work(self, feed: Feed, handler: Handler) -> None:
        while True:
            try:
                event = await feed.next()
            except StopAsyncIteration:
                return
            try:
                await handler(event)
            except Exception:  # noqa: BLE001  a subscriber's failure is its own
                _log.error(
                    "an event handler failed", event_name=event.name, pattern=feed.pattern, exception=format_exc()
                )

    def subscribe(
        self, pattern: str = "*", *, instance_id: str | None = None, after: int | None = None
    ) -> Subscription:
        """Go through events as they are committed: `async for event in server.events.subscribe(…)`.

        Args:
            pattern: a glob over the name.
            instance_id: of one instance only; it need not have been started yet.
            after: the id of the last event seen: the next is the one that follows, whatever happened in between. None begins now.

        Raises:
            ConfigError: the pattern is no text, or `after` no id.
        """
        cursor = event_cursor(after) if after is not None else (self.cursor if self._task is not None else None)
        feed = Feed(self, _pattern(pattern), instance_id, cursor)
        self._follow(feed)
        return Subscription(feed)

    def _follow(self, feed: Feed) -> None:
        self._feeds.add(feed)
        self._wishes = None

    async def history(
        self,
        pattern: str = "*",
        *,
        instance_id: str | None = None,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        reverse: bool = False,
    ) -> list[Event]:
        """Return past events, oldest first: `history(limit=20, reverse=True)` are the last twenty, the newest first.

        Args:
            pattern: a glob over the name.
            instance_id: of one instance only.
            after: the id of the last event of the page before; 0 is the beginning.
            before: the id of the oldest event of the page before, where pages go back.
            limit: how many at most.
            reverse: the newest first.

        Raises:
            ConfigError: the pattern is no text, or there is no such page.
            InstanceNotFound: there is no such instance.
        """
        return await self.store.events(
            event_window(after, before, limit, reverse=reverse), pattern=_pattern(pattern), instance_id=instance_id
        )

    def outcome_of(self, instance_id: str) -> asyncio.Future[None]:
        """Return a future that is done at the next event that may be the instance's end."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(instance_id, []).append(waiter)
        return waiter

    def deleted(self, instance_id: str | None = None) -> None:
        """Have those look who wait for the end of an instance, or of any, that was deleted: its events may have gone unpublished."""
        for ident in list(self._waiters) if instance_id is None else (instance_id,):
            self._look_again(ident)

    def _look_again(self, instance_id: str) -> None:
        for waiter in self._waiters.pop(instance_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def forget(self, instance_id: str, waiter: asyncio.Future[None]) -> None:
        """Take back an `outcome_of` that nobody waits for any more."""
        held = self._waiters.get(instance_id)
        if held and waiter in held:
            held.remove(waiter)
            if not held:
                del self._waiters[instance_id]


def _pattern(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ConfigError(f'a pattern is a glob over events\' names, such as "workflow.*", not {value!r:.100}')


def _call(handler: Handler, event: Event) -> None:
    try:
        found = handler(event)
        if inspect.isawaitable(found):  # a plain function that returns a coroutine
            task = asyncio.ensure_future(found)
            task.add_done_callback(_report)
    except Exception:  # noqa: BLE001  a subscriber's failure is its own
        _log.error("an event handler failed", event_name=event.name, exception=format_exc())


def _report(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("an event handler failed", error=repr(task.exception()))
