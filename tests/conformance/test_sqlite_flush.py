"""Who commits waits for the disk when the write lock is free again, and nobody hands on what the disk does not have."""

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator

import pytest
from storekit import NOW, claimed, new, step, wanted

from paddock import DatabaseUnavailable, SqlitePragmas
from paddock.runtime.server.bus import EventBus
from paddock.runtime.store import flush
from paddock.runtime.store.ops import Lease, MetadataSet
from paddock.runtime.store.sqlite import SqliteStore
from paddock.stores import Window

HASTY = SqlitePragmas(busy_timeout=0.05)


class Disk:
    """What the flush position asks of the disk: counted, and what a test says happens first."""

    def __init__(self) -> None:
        self.syncs = 0
        self.before: Callable[[], None] = lambda: None

    def __call__(self, descriptor: int) -> None:
        self.syncs += 1
        self.before()
        os.fdatasync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(flush, "_fdatasync", disk)
    return disk


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "app.db")


@pytest.fixture
def server(path, disk) -> Iterator[SqliteStore]:
    with contextlib.closing(SqliteStore.open(path, HASTY)) as store:
        yield store


@pytest.fixture
def child(server, path) -> Iterator[SqliteStore]:
    with contextlib.closing(SqliteStore(path, HASTY, child=True)) as store:
        yield store


async def begun(server: SqliteStore, disk: Disk, ident: str = "a") -> Lease:
    """Have an instance begin, and count from then on."""
    lease = await claimed(server, ident)
    disk.syncs = 0
    return lease


def dies_before_its_sync(child: SqliteStore, lease: Lease, key: str = "s") -> None:
    """Commit, as a child does that is killed when its commit can be seen and the disk need not have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child._sqlite, "_await_disk", lambda *_: None)
        child.commit_now(lease, step(key), NOW)


def fails(times: int) -> Callable[[], None]:
    """Return what fails so many times, as a disk does."""
    left = [times]

    def fail() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fail


# --- the child ----------------------------------------------------------------------------------------------------------


async def test_the_write_lock_is_free_while_the_disk_is_waited_for(server, child, disk):
    lease = await begun(server, disk)
    other: list[int] = []

    def write() -> None:
        disk.before = lambda: None
        changed = server._sqlite.call_now(lambda tx: tx.execute("UPDATE paddock_leases SET pid = 7").rowcount)
        other.append(changed)

    disk.before = write
    done = child.commit_now(lease, step("s"), NOW)
    assert other == [1]  # with 50 ms of patience, while the child waits
    assert disk.syncs == 2
    assert done == await server.last_event_id()


async def test_each_commit_waits_for_the_disk_once(server, child, disk):
    lease = await begun(server, disk)
    for n in range(5):
        child.commit_now(lease, step(f"s{n}"), NOW)
    assert disk.syncs == 5
    child.commit_now(lease, [MetadataSet("k", "1")], NOW)
    assert disk.syncs == 6
    await child.commit(lease, step("t"), NOW)
    assert disk.syncs == 7


async def test_taking_a_lease_waits_for_no_disk(server, child, disk):
    lease = await begun(server, disk)
    child.load_now(lease, (1, 2, "boot"))
    assert disk.syncs == 0
    child.commit_now(lease, step("s"), NOW)
    assert disk.syncs == 1


async def test_what_a_transaction_has_seen_is_on_the_disk_when_it_returns(server, child, path, disk):
    dies_before_its_sync(child, await begun(server, disk))
    with contextlib.closing(SqliteStore(path, HASTY, child=True)) as other:
        assert (await other.outcome_of("a")).status == "running"
        assert disk.syncs == 1


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_who_does_not_care_waits_for_no_disk(path, disk, synchronous):
    pragmas = SqlitePragmas().model_copy(update={"synchronous": synchronous})
    with contextlib.closing(SqliteStore.open(path, pragmas)) as server:
        lease = await begun(server, disk)
        with contextlib.closing(SqliteStore(path, pragmas, child=True)) as child:
            child.commit_now(lease, step("s"), NOW)
        assert (await server.get("a")).status == "running"
        assert (await server.read_on(0, 100, sure=True)).events[-1].name == "workflow.step.completed"
    assert disk.syncs == 0


# --- who reads ----------------------------------------------------------------------------------------------------------


async def test_events_are_told_up_to_where_a_child_has_synced(server, child, disk):
    lease = await begun(server, disk)
    known = await server.last_event_id()
    first = child.commit_now(lease, step("one"), NOW)
    assert await server.read_on(known, 100) == ([], known, False, True)
    server.on_disk(first)
    found, _, more, waits = await server.read_on(known, 100)
    assert ([event.id for event in found], more, waits) == ([*range(known + 1, first + 1)], False, False)
    second = child.commit_now(lease, step("two"), NOW)
    assert await server.read_on(first, 100) == ([], first, False, True)
    server.on_disk(known)  # an older word takes nothing back
    found, _, _, waits = await server.read_on(known, 100)
    assert (found[-1].id, waits) == (first, True)
    synced = disk.syncs
    found, _, _, waits = await server.read_on(first, 100, sure=True)
    assert (found[-1].id, waits, disk.syncs) == (second, False, synced + 1)
    assert (await server.read_on(first, 100)).events == found


async def test_own_commits_are_told_at_once(server, disk):
    await begun(server, disk)
    found, _, _, waits = await server.read_on(0, 100)
    assert (found[-1].name, waits) == ("workflow.started", False)
    assert disk.syncs == 0


async def test_a_claim_is_answered_before_the_disk_has_it_and_a_start_after(server, disk):
    """What was claimed for commits before it tells anybody anything, and its commit comes to the disk after the claim's."""
    await server.create(new("a"), NOW)
    under_way, go_on = threading.Event(), threading.Event()
    disk.before = lambda: (under_way.set(), go_on.wait(20))[0]
    [claim] = await server.claim(wanted({"wf": 0}), NOW)
    assert claim.id == "a"
    storing = asyncio.create_task(server.create(new("b"), NOW))
    go_on.set()
    await storing

    under_way.clear()
    go_on.clear()
    storing = asyncio.create_task(server.create(new("c"), NOW))
    assert await asyncio.to_thread(under_way.wait, 20)
    assert not storing.done()
    go_on.set()
    assert await storing


async def test_a_look_syncs_first_what_a_dead_child_has_left_unsynced(server, child, disk):
    lease = await begun(server, disk)
    for look in (
        lambda: server.get("a"),
        lambda: server.events(Window(0, 100)),
        lambda: server.view(lambda tx: tx.execute("SELECT 1").fetchone()),
        lambda: server.release_due(NOW),  # a transaction that changes nothing
    ):
        dies_before_its_sync(child, lease, f"s{disk.syncs}")
        before = disk.syncs
        await look()
        assert disk.syncs == before + 1
        await look()
        assert disk.syncs == before + 1  # it is known now


async def test_a_commit_without_an_event_is_synced_by_who_sees_it_too(server, child, disk):
    lease = await begun(server, disk)
    last = await server.last_event_id()
    for value in ("1", "2"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(child._sqlite, "_await_disk", lambda *_: None)
            child.commit_now(lease, [MetadataSet("k", value)], NOW)
        before = disk.syncs
        assert (await server.get("a")).metadata == {"k": int(value)}
        assert disk.syncs == before + 1
    assert await server.last_event_id() == last  # ids have no gap for it


async def test_a_commit_that_syncs_takes_along_what_came_before(server, child, disk):
    lease = await begun(server, disk)
    dies_before_its_sync(child, lease)
    await begun(server, disk, "b")
    found, _, _, waits = await server.read_on(0, 100)
    assert [event.instance_id for event in found][-1] == "b"
    assert not waits
    assert disk.syncs == 0


async def test_the_bus_makes_sure_where_nobody_rings(server, child, disk):
    lease = await begun(server, disk)
    bus = EventBus(server)
    await bus.start()
    try:
        feed = bus.subscribe("workflow.step.completed")
        dies_before_its_sync(child, lease)
        bus.poke()
        assert (await asyncio.wait_for(anext(feed), 20)).data["step"] == "s"
        dies_before_its_sync(child, lease, "t")  # and without a poke, at its next look
        assert (await asyncio.wait_for(anext(feed), 20)).data["step"] == "t"
        ringing = child.commit_now(lease, step("u"), NOW)
        syncs = disk.syncs
        bus.heard(ringing)
        assert (await asyncio.wait_for(anext(feed), 20)).data["step"] == "u"
        assert disk.syncs == syncs  # it was told
    finally:
        await bus.stop()


# --- a sync that fails --------------------------------------------------------------------------------------------------


async def test_a_sync_that_fails_is_made_up_for_by_writing_the_wal_anew(server, child, path, disk):
    lease = await begun(server, disk)
    written: list[int] = []
    writes = os.pwrite
    disk.before = fails(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *args: written.append(writes(*args)) or written[-1])
        child.commit_now(lease, step("s", '"' + "x" * 2_000_000 + '"'), NOW)
    assert sum(written) >= os.stat(f"{path}-wal").st_size  # the numbers at the lock are written like that too
    assert disk.syncs == 2
    assert server._sqlite.call_now(lambda tx: tx.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
    assert len((await server.load(lease)).steps["s"].output) == 2_000_002


async def test_a_disk_that_goes_on_failing_is_no_commit(server, child, disk):
    lease = await begun(server, disk)
    disk.before = fails(2)
    with pytest.raises(DatabaseUnavailable, match=r"app\.db .*Input/output"):
        child.commit_now(lease, step("s"), NOW)
    assert child._position.doubtful
    child.commit_now(lease, step("t"), NOW)  # the WAL is written anew first
    assert not child._position.doubtful
    assert {"s", "t"} <= set((await server.load(lease)).steps)


async def test_a_reader_whose_sync_fails_has_the_writer_make_up_for_it(server, child, disk):
    lease = await begun(server, disk)
    dies_before_its_sync(child, lease)
    disk.before = fails(1)
    assert (await server.get("a")).status == "running"
    assert not server._position.doubtful
    dies_before_its_sync(child, lease, "t")
    disk.before = fails(2)
    with pytest.raises(DatabaseUnavailable, match=r"app\.db"):
        await server.get("a")
    assert "Input/output" in server.health()["database"]
    assert (await server.get("a")).status == "running"
    assert (await server.read_on(0, 100)).events[-1].data["step"] == "t"
