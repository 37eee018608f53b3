"""The journal's writer: one commit a turn, and nobody waits for a commit that will not come."""

import asyncio

import pytest
from enginekit import JumpingClock

from paddock.runtime.engine.writer import JournalWriter
from paddock.runtime.store.ops import Emitted, Lease


class Store:
    """Commits when told."""

    def __init__(self):
        self.batches = []
        self.open = asyncio.Event()
        self.error = None

    async def commit(self, lease, ops, now):
        self.batches.append([op.name for op in ops])
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return len(self.batches)


@pytest.fixture
def store():
    made = Store()
    made.open.set()
    return made


@pytest.fixture
def told():
    return []


@pytest.fixture
def writer(store, told):
    return JournalWriter(store, Lease(1, 1), JumpingClock(), told.append)


def note(writer, name):
    writer.add(Emitted(name, {}))


async def test_what_one_turn_notes_is_one_commit(writer, store, told):
    for name in "abc":
        note(writer, name)
    await writer.flush()
    note(writer, "d")
    await writer.flush()
    assert store.batches == [["a", "b", "c"], ["d"]]
    assert told == [1, 2]


async def test_what_comes_during_a_commit_is_the_next(writer, store):
    store.open.clear()
    note(writer, "a")
    first = asyncio.ensure_future(writer.flush())
    while not store.batches:
        await asyncio.sleep(0)
    for name in "bc":
        note(writer, name)
    second = asyncio.ensure_future(writer.flush())
    await asyncio.sleep(0)
    store.open.set()
    await asyncio.gather(first, second)
    assert store.batches == [["a"], ["b", "c"]]


async def test_a_flush_waits_for_the_commit_under_way(writer, store):
    store.open.clear()
    note(writer, "a")
    while not store.batches:
        await asyncio.sleep(0)
    flushed = asyncio.ensure_future(writer.flush())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not flushed.done()
    store.open.set()
    await flushed


async def test_a_flush_of_nothing_is_at_once(writer, store):
    await writer.flush()
    assert store.batches == []


async def test_a_failed_commit_breaks_the_writer_for_good(writer, store, told):
    store.open.clear()
    note(writer, "a")
    waiting = [asyncio.ensure_future(writer.flush())]
    while not store.batches:
        await asyncio.sleep(0)
    note(writer, "b")
    waiting.append(asyncio.ensure_future(writer.flush()))
    await asyncio.sleep(0)
    store.error = OSError("gone")
    store.open.set()
    assert [str(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == ["gone", "gone"]
    with pytest.raises(OSError, match="gone"):
        await writer.flush()
    note(writer, "c")
    with pytest.raises(OSError, match="gone"):
        await writer.flush()
    assert store.batches == [["a"]]
    assert told == []


async def test_a_cancelled_flush_does_not_cancel_the_commit(writer, store, told):
    store.open.clear()
    note(writer, "a")
    flushed = asyncio.ensure_future(writer.flush())
    while not store.batches:
        await asyncio.sleep(0)
    flushed.cancel()
    await asyncio.gather(flushed, return_exceptions=True)
    store.open.set()
    note(writer, "b")
    await writer.flush()
    assert store.batches == [["a"], ["b"]]
    assert told == [1, 2]


async def test_what_is_read_right_before_a_commit_is_in_it(store, told):
    def before():
        writer.add(Emitted("printed", {}))

    writer = JournalWriter(store, Lease(1, 1), JumpingClock(), told.append, before)
    note(writer, "a")
    await writer.flush()
    assert store.batches == [["a", "printed"]]
