"""What every store must promise, as one call: for those who bring a store of their own.

Each promise is a coroutine that gets an empty database, and breaks with an `AssertionError` that names it. Paddock's own stores go through
these and through some four hundred more tests of their parts (`tests/conformance`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..base.config import SqlitePragmas
from ..base.errors import (
    ConcurrencyLimitReached,
    InstanceIdConflict,
    InvalidTransition,
    LeaseLost,
    ServerAlreadyRunning,
)
from ..base.records import ErrorInfo, Status
from ..store import browse
from ..store.admission import Death, Wanted
from ..store.database import Database
from ..store.instances import NewInstance
from ..store.ops import Began, Emitted, Ended, Lease, Op, StepBegun, StepCompleted, StepWaiting, Suspended
from ..store.schedules import ScheduleRow
from ..store.sql_store import SqlStore
from ..store.window import Window

__all__ = ["exercise_store"]

Promise = Callable[[SqlStore], Awaitable[None]]

_NOW = 1_700_000_000.0
_PRAGMAS = SqlitePragmas()
_HARD_TEXT = '"æøå 🐎 \\u0000 \\" %_?1 $1 \\\\"'
_LARGE = 2 * 2**20
_COMMITS = 5
_PAGE = 100


async def exercise_store(make: Callable[[], Database]) -> list[str]:
    """Hold a store to what the runtime relies on.

    Args:
        make: returns an empty database, another one at each call.

    Returns:
        The promises that were kept.

    Raises:
        AssertionError: one is broken; it is named.
    """
    kept = []
    for promise in (*_OF_A_STORE, *_OF_A_DATABASE):
        database = make()
        name = promise.__name__.strip("_").replace("_", " ")
        try:
            if promise in _OF_A_DATABASE:
                await promise(database)
            else:
                store = database.open(_PRAGMAS)
                try:
                    await promise(store)
                finally:
                    store.close()
        except AssertionError as error:
            raise AssertionError(f"{database.name} breaks the promise {name!r}: {error}") from error
        kept.append(name)
    return kept


def _new(ident: str, name: str = "wf", value: str = "1", **more: Any) -> NewInstance:
    return NewInstance(id=ident, workflow_name=name, input=value, **more)


def _wanted(limit: int = 0, name: str = "wf") -> Wanted:
    return Wanted(limits={name: limit}, isolated=frozenset(), capacity=100)


def _step(key: str, output: str = "null") -> list[Op]:
    return [StepBegun(key, key, "task", 1), StepCompleted(key, key, "task", output)]


async def _running(store: SqlStore, ident: str = "a", **more: Any) -> Lease:
    await store.create(_new(ident, **more), _NOW)
    leases = {claim.id: claim.lease for claim in await store.claim(_wanted(), _NOW)}
    await store.commit(leases[ident], [Began(4711, 1, "boot", "v1", None)], _NOW)
    return leases[ident]


def _must(holds: object, what: object) -> None:
    if not holds:
        raise AssertionError(str(what))


async def _refuses(kind: type[Exception], call: Awaitable[Any]) -> None:
    try:
        await call
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


# --- of a store ---


async def _an_id_is_made_once(store: SqlStore) -> None:
    made = await asyncio.gather(*(store.create(_new("a", value='{"x": 1}'), _NOW) for _ in range(8)))
    _must(made.count(True) == 1, f"made {made.count(True)} times")
    await _refuses(InstanceIdConflict, store.create(_new("a", value="2"), _NOW))
    _must(len(await store.find(name=None, status=None, limit=9, after=None)) == 1, "there are two")


async def _texts_come_back_as_they_were(store: SqlStore) -> None:
    large = '"' + "x" * _LARGE + '"'
    lease = await _running(store, value=_HARD_TEXT, metadata=(("naïve 🐎 key", _HARD_TEXT),))
    await store.commit(lease, [*_step("hard", _HARD_TEXT), *_step("large", large)], _NOW)
    journal = await store.load(lease)
    _must(journal.input == _HARD_TEXT, "the input differs")
    _must((journal.steps["hard"].output, journal.steps["large"].output) == (_HARD_TEXT, large), "an output differs")
    _must("naïve 🐎 key" in journal.metadata, "the metadata differs")


async def _a_commit_is_all_or_nothing(store: SqlStore) -> None:
    lease = await _running(store)
    before = await store.last_event_id()
    await _refuses(TypeError, store.commit(lease, [*_step("s"), object()], _NOW))  # type: ignore[list-item]
    _must(await store.last_event_id() == before, "events of a commit that failed")
    _must(not (await store.load(lease)).steps, "a step of a commit that failed")
    _must(await store.commit(lease, _step("s"), _NOW) == before + 2, "the ids of events have a gap")


async def _only_the_holder_of_the_lease_writes(store: SqlStore) -> None:
    lease = await _running(store)
    await _refuses(LeaseLost, store.commit(Lease(lease.instance, lease.epoch + 1), _step("s"), _NOW))
    await store.settle(lease, Death(planned=True), 3, _NOW)
    [claim] = await store.claim(_wanted(), _NOW)
    _must(claim.lease.epoch > lease.epoch, "the epoch does not rise")
    await _refuses(LeaseLost, store.commit(lease, _step("s"), _NOW))
    await store.commit(claim.lease, _step("s"), _NOW)


async def _a_limit_is_never_passed_and_the_order_holds(store: SqlStore) -> None:
    for n in range(11):
        await store.create(_new(f"i{n:02}"), _NOW)
    await store.create(_new("i11", priority=1), _NOW)
    found = await asyncio.gather(*(store.claim(_wanted(3), _NOW) for _ in range(6)))
    claims = [claim for each in found for claim in each]
    _must([claim.id for claim in claims] == ["i11", "i00", "i01"], [claim.id for claim in claims])
    await store.commit(claims[0].lease, [Began(1, 1, "b", None, None), Ended(Status.COMPLETED, output="1")], _NOW)
    _must(not await store.claim(_wanted(3), _NOW), "its process has not been seen dead")
    await store.settle(claims[0].lease, Death(), 3, _NOW)
    _must([claim.id for claim in await store.claim(_wanted(3), _NOW)] == ["i02"], "the free slot is not used")
    await _refuses(ConcurrencyLimitReached, store.create(_new("x", reject_at=1), _NOW))


async def _events_come_once_and_in_order(store: SqlStore) -> None:
    leases = [await _running(store, f"i{n}") for n in range(4)]
    first = await store.last_event_id()
    seen: list[int] = []
    writing = 1

    async def follow() -> None:
        while True:
            last = not writing
            found, _, more, _ = await store.read_on(seen[-1] if seen else first, _PAGE)
            seen.extend(event.id for event in found)
            _must(more == (len(found) == _PAGE), "more is told of than there is, or less")
            if last and not found:
                return
            await asyncio.sleep(0)  # it may have been read in this thread

    async def write(lease: Lease) -> None:
        for n in range(_COMMITS):
            await store.commit(lease, [Emitted("x", {"n": n}, ("y",))], _NOW)

    reader = asyncio.create_task(follow())
    await asyncio.gather(*(write(lease) for lease in leases))
    writing = 0
    await reader
    _must(seen == list(range(first + 1, first + 1 + 4 * _COMMITS * 2)), "an event is missing, double or late")
    _must(
        [event.id for event in await store.events(Window(first, len(seen)))] == seen,
        "events come otherwise than they came",
    )
    found = await store.events(Window(0, 99), pattern="y", instance_id="i1")
    _must(len(found) == _COMMITS, "a pattern or an instance lets others through")


async def _an_end_is_final(store: SqlStore) -> None:
    lease = await _running(store)
    await store.commit(lease, [Ended(Status.COMPLETED, output="1")], _NOW)
    _must((await store.end("a", Status.CANCELLED, _NOW))[0] is False, "cancelled after its end")
    await _refuses(LeaseLost, store.commit(lease, _step("s"), _NOW))
    await store.settle(lease, Death(error=ErrorInfo(type="X", message="x")), 3, _NOW)
    names = [event.name for event in await store.events(Window(0, 99))]
    _must(names.count("workflow.completed") == 1 and "workflow.failed" not in names, names)


async def _a_crash_goes_back_to_the_queue_and_not_for_ever(store: SqlStore) -> None:
    lease, now = await _running(store), _NOW
    for expected in (Status.PENDING, Status.PENDING, Status.FAILED):
        settled = await store.settle(lease, Death(error=ErrorInfo(type="ProcessDied", message="x")), 2, now)
        _must(settled is not None and settled.status is expected, f"{settled} instead of {expected}")
        now += 1000.0
        await store.release_due(now)
        for claim in await store.claim(_wanted(), now):
            lease = claim.lease
    found = await store.get("a")
    _must(found is not None and found.error is not None and found.error.type == "CrashLoop", "its error says otherwise")


async def _what_sleeps_wakes_when_it_is_due(store: SqlStore) -> None:
    lease = await _running(store)
    wait = StepWaiting("w", "w", "sleep", _NOW + 9)
    await store.commit(lease, [wait, Suspended(Status.SLEEPING, _NOW + 9)], _NOW)
    await store.settle(lease, Death(), 3, _NOW)
    _must(await store.release_due(_NOW + 8) == (0, _NOW + 9), "it wakes too early, or nobody knows when")
    _must((await store.release_due(_NOW + 9))[0] == 1, "it does not wake")


async def _signals_are_kept_in_their_order(store: SqlStore) -> None:
    lease = await _running(store)
    for payload in ("1", "2"):
        await store.put_signal("a", "go", payload, _NOW)
    kept = await store.next_signal(lease, "go")
    _must(kept is not None and kept.payload == "1", kept)
    await store.commit(lease, [StepWaiting("w", "w", "wait_event", None, "go"), Suspended(Status.WAITING)], _NOW)
    found = await store.get("a")
    _must(found is not None and found.status is Status.PENDING, "it sleeps over a signal that came before")


async def _a_schedule_fires_once(store: SqlStore) -> None:
    row = ScheduleRow("s", "wf", None, 60.0, "UTC", "one", "1", _NOW, _NOW + 60)
    await store.put_schedule(row)
    fired = await asyncio.gather(*(store.fire(row, [_new(f"i{n}")], _NOW + 120, _NOW + 60) for n in range(4)))
    _must(fired.count(True) == 1, f"fired {fired.count(True)} times")
    _must((await store.due_schedules(_NOW + 60))[1] == _NOW + 120, "it was not moved on")


async def _what_is_removed_is_gone_and_its_numbers_too(store: SqlStore) -> None:
    lease = await _running(store)
    await _refuses(InvalidTransition, store.remove("a"))
    last = await store.commit(lease, [*_step("s"), Ended(Status.COMPLETED, output="1")], _NOW)
    await store.settle(lease, Death(), 3, _NOW)
    await store.remove("a")
    _must(await store.get("a") is None and not await store.events(Window(0, 9)), "something is left")
    await _running(store, "b")
    _must(min(event.id for event in await store.events(Window(0, 9))) > last, "the id of an event came twice")


async def _a_failed_one_is_retried_and_forked(store: SqlStore) -> None:
    lease = await _running(store)
    error = ErrorInfo(type="X", message="x")
    await store.commit(lease, [*_step("s", "7"), Ended(Status.FAILED, error=error)], _NOW)
    await store.settle(lease, Death(), 3, _NOW)
    await store.fork("a", "b", "s", None, _NOW)
    await store.reopen("a", _NOW)
    claims = {claim.id: claim.lease for claim in await store.claim(_wanted(), _NOW)}
    _must(claims.keys() == {"a", "b"}, claims)
    _must((await store.load(claims["a"])).steps["s"].output == "7", "what was completed is not there")


async def _people_see_it(store: SqlStore) -> None:
    lease = await _running(store, "Tree-1", metadata=(("note", '"100%_sure"'),))
    await store.commit(lease, _step("s"), _NOW)
    page = await store.view(browse.instances_page, browse.Filter(text="100%_"), 9)
    _must([row["id"] for row in page.rows] == ["Tree-1"], page.rows)
    page = await store.view(browse.instances_page, browse.Filter(text="TREE"), 9)
    _must([row["id"] for row in page.rows] == ["Tree-1"], "a search minds the case")
    _must((await store.view(browse.steps, lease.instance))[0]["key"] == "s", "its steps")
    _must(await store.count_by_status() == {"wf": {"running": 1}}, "its counts")


# --- of a database ---


async def _one_server_at_a_time(database: Database) -> None:
    lock = database.lock(_PRAGMAS)
    lock.serve(os.getpid())
    try:
        database.open(_PRAGMAS, lock).close()
        if not database.in_process:
            try:
                database.lock(_PRAGMAS).serve(os.getpid())
            except ServerAlreadyRunning as error:
                _must(error.pid == os.getpid(), f"the pid {error.pid} is named")
            else:
                raise AssertionError("a second server gets the lock")
    finally:
        lock.leave()
    again = database.lock(_PRAGMAS)
    again.serve(os.getpid())
    again.leave()


async def _a_child_writes_what_a_server_reads(database: Database) -> None:
    if database.in_process:
        return
    _must(type(database)(database.address).identity == database.identity, "its address leads to another database")
    store = database.open(_PRAGMAS)
    child = type(database)(database.address).open_child(_PRAGMAS)
    try:
        await store.create(_new("a"), _NOW)
        [claim] = await store.claim(_wanted(), _NOW)
        child.load_now(claim.lease, (4711, 1, "boot"))
        last = child.commit_now(claim.lease, [Began(4711, 1, "boot", None, None), *_step("s", '"é"')], time.time())
        _must(await store.last_event_id() == last, "the server does not see the child's events")
        found = await store.get("a")
        _must(found is not None and found.step_results["s"].output == "é", "the server does not see the child's step")
        _must([held.pid for held in await store.held()] == [4711], "the lease does not name its process")
    finally:
        child.close()
        store.close()
    store = database.open(_PRAGMAS)
    try:
        _must(await store.last_event_id() == last, "it is gone with the process that had it open")
    finally:
        store.close()


_OF_A_STORE: tuple[Any, ...] = (
    _an_id_is_made_once,
    _texts_come_back_as_they_were,
    _a_commit_is_all_or_nothing,
    _only_the_holder_of_the_lease_writes,
    _a_limit_is_never_passed_and_the_order_holds,
    _events_come_once_and_in_order,
    _an_end_is_final,
    _a_crash_goes_back_to_the_queue_and_not_for_ever,
    _what_sleeps_wakes_when_it_is_due,
    _signals_are_kept_in_their_order,
    _a_schedule_fires_once,
    _what_is_removed_is_gone_and_its_numbers_too,
    _a_failed_one_is_retried_and_forked,
    _people_see_it,
)
_OF_A_DATABASE: tuple[Any, ...] = (_one_server_at_a_time, _a_child_writes_what_a_server_reads)
