"""Many writers on one file: turns, joined commits, strangers, and the lock that makes one server per database."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from storekit import NOW, claimed, new, step

from paddock import DatabaseUnavailable, InstanceNotFound, LeaseLost, ServerAlreadyRunning, SqlitePragmas
from paddock.runtime.store.checkpoint import Checkpointer
from paddock.runtime.store.ops import Emitted, Lease
from paddock.runtime.store.sqlite import SqliteStore
from paddock.runtime.store.turn import _STANDS_STILL, LockFile
from paddock.stores import Window

PRAGMAS = SqlitePragmas(synchronous="NORMAL", busy_timeout=0.05)


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "app.db")


@pytest.fixture
def store(path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(path, PRAGMAS)
    yield opened
    opened.close()


@contextlib.contextmanager
def program(what: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-m", "storeprocs", what, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


async def line(process: subprocess.Popen[str]) -> str:
    return (await asyncio.to_thread(process.stdout.readline)).strip()


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


# --- joined commits ---------------------------------------------------------------------------------------------------


class Gate:
    """Holds the store's thread, so that what is asked meanwhile is joined into one commit."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._open = threading.Event()
        self.commits = 0

    async def __aenter__(self):
        entered = threading.Event()

        def wait(_tx):
            entered.set()
            self._open.wait()

        self._task = asyncio.ensure_future(self._store._write(wait))
        await asyncio.to_thread(entered.wait)
        self._store._writer._connection.set_trace_callback(self._count)
        return self

    def _count(self, statement: str) -> None:
        self.commits += statement == "COMMIT"

    def open(self) -> None:
        self._open.set()

    async def __aexit__(self, *_exc: object) -> None:
        self.open()
        await self._task
        # in the connection's own thread: here it would wait for SQLite, and SQLite, in a commit, for this thread to count it
        await self._store._write(lambda tx: tx.set_trace_callback(None))


async def test_what_waits_together_is_one_commit(store):
    async with Gate(store) as gate:
        calls = [asyncio.ensure_future(store.create(new(f"i{n}"), NOW)) for n in range(20)]
        await asyncio.sleep(0)
        gate.open()
        assert await asyncio.gather(*calls) == [True] * 20
        assert gate.commits == 2  # the gate's own, and one for all


async def refuse_integrity(store):
    await store._write(lambda tx: tx.execute("INSERT INTO paddock_payloads VALUES (999999, 'input', '1')"))


async def refuse_value(store):
    await store._write(lambda tx: tx.execute("SELECT ?", (object(),)))


async def refuse_overflow(store):
    await store._write(lambda tx: tx.execute("SELECT ?", (10**30,)))


_REFUSALS = {
    "a stale lease": (lambda store: store.commit(Lease(77, 1), step("s"), NOW), LeaseLost),
    "nobody": (lambda store: store.merge_metadata("nobody", []), InstanceNotFound),
    "an integrity error": (refuse_integrity, sqlite3.IntegrityError),
    "a value that SQLite cannot hold": (refuse_value, sqlite3.Error),
    "a number that SQLite cannot hold": (refuse_overflow, OverflowError),
}


@pytest.mark.parametrize("refusal", _REFUSALS)
async def test_one_callers_error_is_not_its_neighbours(store, refusal):
    wrong, kind = _REFUSALS[refusal]
    async with Gate(store) as gate:
        first = asyncio.ensure_future(store.create(new("a"), NOW))
        bad = asyncio.ensure_future(wrong(store))
        last = asyncio.ensure_future(store.create(new("b"), NOW))
        await asyncio.sleep(0)
        gate.open()
        assert await asyncio.gather(first, last) == [True, True]
        with pytest.raises(kind):
            await bad
    with pytest.raises(kind):  # alone it is the same error
        await wrong(store)
    assert [found.id for found in await store.find(name=None, status=None, limit=9, after=None)] == ["a", "b"]


async def test_what_one_caller_wrote_before_its_error_is_gone(store):
    async def half(tx=None):
        def write(tx):
            tx.execute("INSERT INTO paddock_schema VALUES (998)")
            raise KeyError("half way")

        await store._write(write)

    async with Gate(store) as gate:
        calls = [asyncio.ensure_future(call) for call in (half(), store.create(new("a"), NOW))]
        await asyncio.sleep(0)
        gate.open()
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[0], KeyError)
    assert found[1] is True
    assert await store._write(lambda tx: tx.execute("SELECT max(version) FROM paddock_schema").fetchone()[0]) < 998


async def test_a_cancelled_caller_does_not_cancel_its_commit(store):
    async with Gate(store):
        call = asyncio.ensure_future(store.create(new("a"), NOW))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await store.merge_metadata("a", [])  # the writer's queue is in order: what it was asked before is done


# --- strangers --------------------------------------------------------------------------------------------------------


async def test_a_strangers_lock_is_waited_for_however_long(store, path):
    """`busy_timeout` is 50 ms here; the stranger holds the lock for as long as it takes the store to complain of it."""
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN EXCLUSIVE")
    call = asyncio.ensure_future(store.create(new("a"), NOW))
    while "database" not in store.health():
        await asyncio.sleep(0.01)
    assert not call.done()
    stranger.execute("ROLLBACK")
    assert await call
    assert store.health() == {}
    stranger.close()


async def test_a_transaction_does_not_begin_before_it_may_write(store, path):
    """A deferred one would read first, and be refused at once when another has written meanwhile."""
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    entered = []
    call = asyncio.ensure_future(store._write(lambda tx: entered.append(tx.execute("SELECT 1").fetchone())))
    while "database" not in store.health():
        await asyncio.sleep(0.01)
    assert entered == []
    stranger.execute("COMMIT")
    await call
    assert entered == [(1,)]
    stranger.close()


async def test_a_closing_store_stops_waiting_for_a_stranger(path):
    store = SqliteStore.open(path, PRAGMAS)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN EXCLUSIVE")
    call = asyncio.ensure_future(store.create(new("a"), NOW))
    await asyncio.sleep(0)
    await asyncio.to_thread(store.close)
    with pytest.raises(DatabaseUnavailable):
        await call
    stranger.close()


# --- processes ---------------------------------------------------------------------------------------------------------


async def test_two_processes_write_in_turns_under_a_running_checkpointer(store, path, monkeypatch):
    commits = 150
    moving = []
    monkeypatch.setattr("paddock.runtime.store.checkpoint.reach", lambda _point: moving.append(time.monotonic()))
    leases = [await claimed(store, ident) for ident in "ab"]
    checkpointer = Checkpointer(path, PRAGMAS, LockFile.of(path))
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(program("write", path, lease.instance, lease.epoch, commits)) for lease in leases
        ]
        assert [await line(writer) for writer in writers] == ["ready", "ready"]
        with (lock := LockFile.of(path)):  # so that both wait in the queue before one of them writes
            for writer in writers:
                drawn = lock._read(0)
                go(writer)
                while lock._read(0) == drawn:
                    await asyncio.sleep(0.001)
        results = asyncio.gather(*(line(writer) for writer in writers))
        largest, longest = 0, 0.0
        while not results.done():
            if await asyncio.to_thread(checkpointer.run, 0):
                longest = max(longest, time.monotonic() - moving[-1])
            largest = max(largest, checkpointer.wal_bytes())
            await asyncio.sleep(0.005)
        waits = [json.loads(text) for text in await results]
    checkpointer.close()
    assert [len(found) for found in waits] == [commits, commits]
    # the busy handler alone starves a writer for many seconds; a disk that stands still holds up all alike
    assert max(max(found[1:]) for found in waits) < 2.0 + 3 * longest
    assert largest < 8 * 2**20
    found = [event for event in await store.events(Window(0, 10_000)) if event.name == "e"]
    assert len(found) == 2 * commits
    order = [event.instance_id for event in found]
    runs = max(len(run) for run in "".join(order).replace("ab", "a b").replace("ba", "b a").split())
    assert runs < commits  # neither waited for the other's end
    assert await store._write(lambda tx: tx.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"


async def test_a_writer_killed_in_its_transaction_holds_up_nobody_and_leaves_nothing(store, path):
    with program("hold", path) as holder:
        assert await line(holder) == "holding"
        call = asyncio.ensure_future(store.create(new("a"), NOW))
        await asyncio.sleep(0)
        assert not call.done()
        go(holder)
        assert await call
        assert holder.wait() == -signal.SIGKILL
    assert await store._write(lambda tx: tx.execute("SELECT max(version) FROM paddock_schema").fetchone()[0]) < 999


# --- one server -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lock(path) -> Iterator[LockFile]:
    found = LockFile.of(path)
    yield found
    found.leave()


def test_a_second_server_in_this_process_is_refused(path, lock):
    lock.serve(os.getpid())
    with pytest.raises(ServerAlreadyRunning, match=str(os.getpid())) as caught:
        LockFile.of(path).serve(os.getpid())
    assert caught.value.pid == os.getpid()
    assert path in str(caught.value)


@pytest.mark.parametrize("name", ["app.db", "link.db"])
async def test_a_second_server_in_another_process_is_refused(path, lock, tmp_path, name):
    (tmp_path / "link.db").symlink_to(path)
    lock.serve(os.getpid())
    with program("serve", tmp_path / name) as other:
        assert json.loads(await line(other))["refused"] == os.getpid()
    lock.leave()
    with program("serve", tmp_path / name) as other:
        assert json.loads(await line(other)) == {"serving": other.pid}


async def test_the_kernel_frees_a_killed_servers_lock(path, lock):
    with program("serve", path) as other:
        assert json.loads(await line(other)) == {"serving": other.pid}
        with pytest.raises(ServerAlreadyRunning) as caught:
            lock.serve(os.getpid())
        assert caught.value.pid == other.pid
        assert lock.holder() == {"pid": other.pid, "run_dir": "/run/x"}
        other.kill()
        other.wait()
        assert lock.holder() == {}
        lock.serve(os.getpid(), address="here")
        assert lock.holder() == {"pid": os.getpid(), "address": "here"}


async def test_turns_go_on_while_a_server_comes_and_goes(store, path, lock):
    """The writers' turn and the server's place are two bytes of one file: neither frees the other."""
    lock.serve(os.getpid())
    await store.create(new("a"), NOW)
    with program("serve", path) as other:
        assert "refused" in json.loads(await line(other))


def test_leaving_takes_the_file_along_and_the_next_makes_its_own(path):
    first = LockFile.of(path)
    first.serve(os.getpid())
    first.leave()
    assert not os.path.exists(path + "-paddock")
    second = LockFile.of(path)
    second.serve(os.getpid())
    assert second.holder() == {"pid": os.getpid()}
    second.leave()
    second.leave()


def test_threads_take_turns(path):
    lock, inside, most = LockFile.of(path), [], []

    def work():
        for _ in range(50):
            with lock:
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 200


async def test_a_writer_waits_for_its_turn(store, path):
    """Not at SQLite's lock, which starves whom it likes: that one is free here, and the turn is another's."""
    with LockFile.of(path):
        writing = asyncio.create_task(store.create(new("a"), NOW))
        await asyncio.wait({writing}, timeout=0.3)
        assert not writing.done()
        assert await store.get("a") is None
    assert await writing is True


@contextlib.asynccontextmanager
async def queue(path, log, names, patience=_STANDS_STILL):
    """Let processes wait for a turn, in their order, behind one of ours; they get theirs at the end of the block."""
    with contextlib.ExitStack() as stack:
        waiting = {name: stack.enter_context(program("turn", path, log, name, patience)) for name in names}
        assert [await line(process) for process in waiting.values()] == ["ready"] * len(waiting)
        with (lock := LockFile.of(path)):
            for process in waiting.values():
                drawn = lock._read(0)
                go(process)
                while lock._read(0) == drawn:
                    await asyncio.sleep(0.001)
            yield waiting
            assert log.read_text() == ""
        assert [await line(process) for process in waiting.values()] == ["done"] * len(waiting)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").write_text("")
    return tmp_path / "log"


async def test_who_comes_late_does_not_go_first(path, log):
    async with queue(path, log, "abcdefg", patience=60):  # on a busy machine those at the lock may take a while to wake
        pass
    found = log.read_text()
    LockFile.of(path).tidy()
    assert sorted(found) == list("abcdefg")
    assert found[0] in "abcd"  # the few that wait at the lock itself


async def test_who_dies_in_the_queue_holds_up_nobody(path, log):
    async with queue(path, log, "abcdefg") as waiting:
        for name in "abcde":
            waiting[name].kill()
            await asyncio.to_thread(waiting.pop(name).wait)
    LockFile.of(path).tidy()
    assert sorted(log.read_text()) == ["f", "g"]


async def test_who_stands_still_in_the_queue_holds_up_nobody(path, log):
    """A stopped process, a frozen group: whoever waits behind it may not wait for it."""
    async with queue(path, log, "abcdefg") as waiting:
        stopped = {name: waiting.pop(name) for name in "abcde"}
        for process in stopped.values():
            os.kill(process.pid, signal.SIGSTOP)
            await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        await asyncio.sleep(2 * _STANDS_STILL)  # a long turn is no sign that those at the lock stand still
        free_since = time.monotonic()
    assert time.monotonic() - free_since >= _STANDS_STILL
    assert sorted(log.read_text()) == ["f", "g"]
    for process in stopped.values():
        process.kill()
        await asyncio.to_thread(process.wait)
    LockFile.of(path).tidy()


async def test_who_had_the_last_turn_lets_another_go_first(path, log, monkeypatch):
    # on a busy machine nobody may come for a while
    monkeypatch.setattr("paddock.runtime.store.turn._STANDS_STILL", 60.0)
    lock = LockFile.of(path)

    def ask() -> str:
        with lock:
            return log.read_text()

    async with queue(path, log, "ab"):
        asking = asyncio.create_task(asyncio.to_thread(ask))
    assert await asking
    lock.tidy()


async def test_an_emitted_flood_is_joined(store):
    lease = await claimed(store)
    await asyncio.gather(*(store.commit(lease, [Emitted("e", {"n": n})], NOW) for n in range(500)))
    assert [event.data["n"] for event in await store.events(Window(0, 999), pattern="e")] == list(range(500))
