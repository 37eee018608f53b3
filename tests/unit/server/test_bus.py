"""The bus, and subscribers that read ahead of it."""

import asyncio
import contextlib
from typing import Any

import pytest
from storekit import claimed, step

from paddock import InstanceNotFound, workflow
from paddock.runtime.server.bus import EventBus
from paddock.runtime.store.sqlite import MemoryStore
from paddock.runtime.store.window import Look
from paddock.stores import Window
from paddock.testing import server


async def test_what_a_subscriber_has_read_ahead_of_the_bus_does_not_come_again():
    with contextlib.closing(MemoryStore()) as store:  # also where it fails: nobody waits for its thread then
        await _reads_ahead(store)


async def _reads_ahead(store: MemoryStore) -> None:
    bus = EventBus(store)  # not started: it looks when the test says so
    feed = bus.subscribe(after=0)
    lease = await claimed(store)
    before = await store.events(Window(0, 100))
    assert [await anext(feed) for _ in before] == before
    await store.commit(lease, step("one"), 1.0)
    await bus._publish()
    assert bus.cursor > before[-1].id
    after = await store.events(Window(before[-1].id, 100))
    assert [await anext(feed) for _ in after] == after
    assert not feed.ready()


async def test_who_comes_while_the_bus_reads_misses_nothing_that_is_committed_then():
    seen: list[str] = []
    with contextlib.closing(MemoryStore()) as store:
        bus = EventBus(store)
        lease = await claimed(store)
        reads = store.read_on

        async def read_on(*args: Any, **named: Any) -> Look:
            if not seen:
                bus.on("workflow.step.*", lambda event: seen.append(event.name))
                await store.commit(lease, step("one"), 1.0)
                seen.append("asked")
            return await reads(*args, **named)

        store.read_on = read_on  # type: ignore[method-assign]
        await bus._publish()
    assert seen == ["asked", "workflow.step.started", "workflow.step.completed"]


async def test_what_nobody_waits_for_is_not_told():
    with contextlib.closing(MemoryStore()) as store:
        bus = EventBus(store)
        published: list[int] = []
        bus.published = published.append
        lease = await claimed(store)
        seen: list[str] = []
        stop = bus.on("workflow.step.completed", lambda event: seen.append(event.name))
        feed = bus.subscribe("workflow.s*", instance_id="a")
        other = bus.subscribe("*", instance_id="b")
        await store.commit(lease, [*step("one"), *step("two")], 1.0)
        await bus._publish()
        assert seen == ["workflow.step.completed"] * 2
        assert published == [await store.last_event_id()] == [bus.cursor]
        assert [event.name for event in feed.ready()][-2:] == ["workflow.step.started", "workflow.step.completed"]
        assert other.ready() == []
        stop()
        stop()  # idempotent
        await store.commit(lease, step("three"), 1.0)
        await bus._publish()
        assert len(seen) == 2
        assert [event.data["step"] for event in feed.ready()] == ["three", "three"]


async def test_what_was_read_ahead_and_then_published_is_ready_once():
    with contextlib.closing(MemoryStore()) as store:
        bus = EventBus(store)
        feed = bus.subscribe(after=0)
        lease = await claimed(store)
        await store.commit(lease, [*step("one"), *step("two")], 1.0)
        first = await anext(feed)  # reads all that there is; the bus has looked at none of it
        await bus._publish()
        ids = [first.id, *(event.id for event in feed.ready())]
        assert ids == [event.id for event in await store.events(Window(0, 100))]


@pytest.mark.parametrize("every", [False, True])
async def test_who_waits_for_an_instance_learns_that_it_was_deleted_before_its_end_was_told(
    monkeypatch: pytest.MonkeyPatch, every: bool
):
    go_on, look = asyncio.Event(), EventBus._look

    async def late(bus: EventBus, *, sure: bool) -> Look:
        await go_on.wait()
        return await look(bus, sure=sure)

    async with server(register=[workflow("w").task("a", lambda: 1).build()]) as one:
        monkeypatch.setattr(EventBus, "_look", late)
        try:
            async with asyncio.timeout(60):
                ident = await one.workflows.start("w")
                waiting = asyncio.create_task(one.workflows.wait(ident))
                while (await one.workflows.get_instance(ident)).status != "completed":
                    await asyncio.sleep(0.01)
                await (one.workflows.cleanup_all() if every else one.workflows.cleanup(ident))
                with pytest.raises(InstanceNotFound):
                    await waiting
        finally:
            go_on.set()
