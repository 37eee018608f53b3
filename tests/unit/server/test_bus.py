"""The bus, and subscribers that read ahead of it."""

import contextlib

from storekit import claimed, step

from paddock.runtime.server.bus import EventBus
from paddock.runtime.store.sqlite import MemoryStore
from paddock.stores import Window


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
