"""What every store promises of what it holds: events in commit order, history, logs, pages, deletes that leave nothing."""

import asyncio

import pytest
from storekit import NOW, again, began, claimed, crash, ended, names, new, references, rows, step

from paddock import ErrorInfo, InstanceNotFound, InvalidTransition, Status
from paddock.runtime.store.ops import (
    Emitted,
    Ended,
    Logged,
    MetadataSet,
    Progress,
    StepBegun,
    StepCompleted,
    StepCounted,
    StepFailed,
    StepRetrying,
    StepWaiting,
    Suspended,
)
from paddock.stores import Window

_BOOM = ErrorInfo(type="ValueError", message="boom", step="s", traceback="…")


def logged(level: int, name: str, message: str = "m", **more):
    return Logged(level, name, message, {"n": 1}, "s", 2, more.pop("source", "handler"), NOW, **more)


# --- events ------------------------------------------------------------------------------------------------------------


async def test_ids_have_no_gap_and_follow_the_commits(store):
    leases = [await claimed(store, f"i{n}") for n in range(5)]
    await asyncio.gather(*(store.commit(lease, step(f"s{n}"), NOW) for n in range(20) for lease in leases))
    found = await store.events(Window(0, 10_000))
    assert [event.id for event in found] == list(range(1, len(found) + 1))
    assert await store.last_event_id() == len(found)
    for n in range(5):
        own = [event.data.get("step") for event in found if event.instance_id == f"i{n}" and "step" in event.data]
        assert own == [f"s{m}" for m in range(20) for _ in "bc"]


async def test_a_commit_that_fails_leaves_no_gap(store):
    lease = await claimed(store)
    with pytest.raises(TypeError):
        await store.commit(lease, [*step("s"), object()], NOW)
    last = await store.commit(lease, step("s"), NOW)
    assert [event.id for event in await store.events(Window(0, 100))] == list(range(1, last + 1))


async def test_ids_are_never_used_again(store):
    await ended(store, "a")
    last = await store.last_event_id()
    await store.remove("a")
    assert (await store.events(Window(0, 100)), await store.last_event_id()) == ([], last)
    await ended(store, "a")
    assert min(event.id for event in await store.events(Window(0, 100))) == last + 1


async def test_a_cursor_misses_nothing_and_repeats_nothing(store):
    lease = await claimed(store)
    for n in range(30):
        await store.commit(lease, [Emitted("workflow.event", {"n": n}, ("alias",))], NOW)
    seen, cursor = [], 0
    while page := await store.events(Window(cursor, 7)):
        seen += page
        cursor = page[-1].id
    assert [event.id for event in seen] == [event.id for event in await store.events(Window(0, 10_000))]
    assert [event.data["n"] for event in seen if event.name == "alias"] == list(range(30))


async def test_reading_on_finds_what_a_page_finds_and_tells_whether_there_is_more(store):
    lease = await claimed(store)
    await store.commit(lease, [*step("s", '"small"'), Emitted("workflow.event", {"n": 1}, ("alias",))], NOW)
    everything = await store.events(Window(0, 10_000))
    assert await store.read_on(0, 10_000) == (everything, everything[-1].id, False, False)
    assert await store.read_on(everything[2].id, 2) == (everything[3:5], everything[4].id, True, False)
    assert await store.read_on(everything[-1].id, 2) == ([], everything[-1].id, False, False)


async def test_reading_on_goes_past_what_nobody_wants(store):
    lease = await claimed(store)
    await store.commit(lease, step("s", f'"{"x" * 300_000}"'), NOW)
    everything = await store.events(Window(0, 10_000))

    def wanted(name, instance_id):
        assert instance_id == "a"
        return name == "workflow.step.started"

    [started] = [event for event in everything if event.name == "workflow.step.started"]
    assert await store.read_on(0, 10_000, wanted=wanted) == ([started], everything[-1].id, False, False)
    assert await store.read_on(0, 1, wanted=wanted) == ([], everything[0].id, True, False)


async def test_reading_on_stops_where_events_are_large(store):
    lease, large = await claimed(store), f'"{"x" * 300_000}"'
    for key in "abc":
        await store.commit(lease, step(key, large), NOW)
    everything = await store.events(Window(0, 10_000))
    cursor, found, looks = 0, [], 0
    while (page := await store.read_on(cursor, 10_000)).more:
        found += page[0]
        cursor, looks = found[-1].id, looks + 1
        assert sum(len(str(event.data)) for event in page[0]) < 400_000
    assert (found + page[0], looks) == (everything, 3)


async def test_history_backwards(store):
    lease = await claimed(store)
    for n in range(150):
        await store.commit(lease, [Emitted("even" if n % 2 == 0 else "odd", {"n": n})], NOW)
    newest = await store.events(Window(0, 3, backwards=True))
    assert [event.data["n"] for event in newest] == [149, 148, 147]
    assert [e.data["n"] for e in await store.events(Window(0, 2, before=newest[-1].id, backwards=True))] == [146, 145]
    assert [e.data["n"] for e in await store.events(Window(0, 70, backwards=True), pattern="[e]ven")] == [
        *range(148, 8, -2)
    ]
    assert [e.data["n"] for e in await store.events(Window(newest[-1].id, 9, backwards=True), instance_id="a")] == [
        149,
        148,
    ]
    assert [e.data["n"] for e in await store.events(Window(newest[-1].id, 9, before=newest[0].id))] == [148]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", 6),
        ("workflow.started", 2),
        ("workflow.step.*", 2),
        ("workflow.*", 5),
        ("*.event", 2),
        ("workflow.[sx]*", 4),
        ("workflow.?vent", 1),
        ("WORKFLOW.*", 0),
        ("nothing", 0),
    ],
)
async def test_history_by_pattern(store, pattern, expected):
    lease = await claimed(store)
    await store.commit(lease, [*step("s"), Emitted("workflow.event", {}, ("other.event",))], NOW)
    await claimed(store, "b")
    assert len(await store.events(Window(0, 100), pattern=pattern)) == expected


async def test_history_of_one_instance_and_a_limit_that_skips_others(store):
    first, second = await claimed(store, "a"), await claimed(store, "b")
    for n in range(200):
        await store.commit(first, [Emitted("noise", {})], NOW)
        if n % 50 == 0:
            await store.commit(second, [Emitted("rare", {"n": n})], NOW)
    assert [e.data["n"] for e in await store.events(Window(0, 3), pattern="r*")] == [0, 50, 100]
    assert await names(store, instance_id="b") == ["workflow.started", *["rare"] * 4]
    with pytest.raises(InstanceNotFound):
        await store.events(Window(0, 1), instance_id="nobody")


async def test_payloads_of_the_contract(store):
    lease = await claimed(store, "a", value='{"in": 1}')
    await store.commit(
        lease,
        [
            StepBegun("p/b/s", "s", "task", 1),
            StepRetrying("p/b/s", "s", "task", 1, 1, 3, _BOOM, 2.5, NOW + 2.5),
            StepBegun("p/b/s", "s", "task", 2),
            StepCompleted("p/b/s", "s", "task", '{"out":[1]}', Progress(50.0, 1, 2, "p/b/s")),
            StepBegun("t", "t", "task", 1),
            StepFailed("t", "t", "task", _BOOM, 3),
            StepCounted("q", "q", "poll", poll_count=2, data={"done": False}),
            StepCounted("l", "l", "loop", loop_count=1, data={"max_iterations": 3}),
            StepWaiting("w", "w", "wait_event", NOW + 5, "go"),
            Suspended(Status.WAITING, wake_at=NOW + 5),
        ],
        NOW,
    )
    found = [(event.name, event.data) for event in await store.events(Window(0, 100))]
    who = {"instance_id": "a", "workflow_name": "wf"}
    s = {**who, "step": "p/b/s", "step_name": "s", "step_type": "task"}
    error = {"type": "ValueError", "message": "boom", "step": "s", "traceback": "…"}
    assert found[0] == ("workflow.started", {**who, "pid": 4711, "input": {"in": 1}})
    assert found[1] == ("workflow.step.started", {**s, "attempt": 1})
    assert found[2] == ("workflow.step.retry", {**s, "attempt": 1, "max_attempts": 3, "delay": 2.5, "error": error})
    assert found[3] == ("workflow.step.started", {**s, "attempt": 2})
    assert found[4][0] == "workflow.step.completed"
    assert {**found[4][1], **s, "output": {"out": [1]}} == found[4][1]
    progress = {"progress": 50.0, "current_step": "p/b/s", "completed_steps": 1, "total_steps": 2}
    assert found[5] == ("workflow.progress", {**who, **progress})
    assert found[7][0] == "workflow.step.failed"
    assert (found[7][1]["error"], found[7][1]["attempts"]) == (error, 1)
    assert (found[8][0], found[8][1]["poll_count"], found[8][1]["done"]) == ("workflow.step.poll", 2, False)
    assert (found[9][0], found[9][1]["loop_count"], found[9][1]["max_iterations"]) == ("workflow.step.loop", 1, 3)
    assert (found[10][0], found[10][1]["wake_at"]) == ("workflow.step.started", NOW + 5)
    assert found[11][0] == "workflow.suspended"
    assert (found[11][1]["reason"], found[11][1]["wake_at"]) == ("waiting", NOW + 5)
    assert len(found) == 12


async def test_a_resumed_instance_says_so_once(store):
    lease = await claimed(store)
    await crash(store, lease)
    lease = await again(store)
    await store.commit(lease, [began()], NOW)
    await store.commit(lease, [Ended(Status.FAILED, error=_BOOM)], NOW)
    events = await store.events(Window(0, 100))
    assert [event.name for event in events] == [
        "workflow.started",
        "workflow.crashed",
        "workflow.resumed",
        "workflow.failed",
    ]
    assert events[2].data["executions"] == 2
    assert events[3].data["error"]["message"] == "boom"


# --- steps --------------------------------------------------------------------------------------------------------------


async def test_a_step_is_one_row_as_it_goes(store):
    lease = await claimed(store)
    await store.commit(lease, [StepBegun("s", "s", "task", 1, input='{"x":1}')], NOW)
    [(key, found)] = (await store.get("a")).step_results.items()
    assert (key, found.status, found.attempts, found.input) == ("s", "running", 1, {"x": 1})
    await store.commit(lease, [StepRetrying("s", "s", "task", 1, 1, 3, _BOOM, 1, NOW + 1)], NOW)
    found = (await store.get("a")).step_results["s"]
    assert (found.status, found.error) == ("retrying", _BOOM)
    await store.commit(lease, [StepBegun("s", "s", "task", 2), StepCompleted("s", "s", "task", "[1]")], NOW + 9)
    found = (await store.get("a")).step_results["s"]
    assert (found.status, found.attempts, found.output, found.error) == ("completed", 2, [1], None)
    assert (found.started_at.timestamp(), found.completed_at.timestamp()) == (NOW, NOW + 9)
    assert rows(store)["paddock_steps"] == 1


async def test_a_journal_loads_whole(store):
    lease = await claimed(store, "a", value='"in"', metadata=(("m", "1"),), priority=3)
    await store.commit(
        lease,
        [
            *step("done", "7"),
            StepBegun("open", "open", "task", 2, deadline=NOW + 5),
            StepRetrying("again", "again", "task", 1, 1, 3, _BOOM, 4, NOW + 4),
            StepCounted("poll", "poll", "poll", poll_count=3, wake_at=NOW + 3),
            StepWaiting("wait", "wait", "wait_event", None, "go", child_id="c"),
        ],
        NOW,
    )
    await crash(store, lease)
    journal = await store.load(await again(store))
    assert (journal.id, journal.input, journal.metadata, journal.priority, journal.executions) == (
        "a",
        '"in"',
        {"m": 1},
        3,
        1,
    )
    steps = journal.steps
    assert list(steps) == ["done", "open", "poll", "wait"]  # a retry of what never began is of nothing
    assert (steps["done"].status, steps["done"].output) == ("completed", "7")
    assert (steps["open"].status, steps["open"].attempts, steps["open"].deadline_at) == ("running", 2, NOW + 5)
    assert (steps["poll"].poll_count, steps["poll"].wake_at) == (3, NOW + 3)
    assert (steps["wait"].event_name, steps["wait"].child_id) == ("go", "c")


async def test_current_step_is_the_open_one(store):
    lease = await claimed(store)
    await store.commit(lease, [*step("a"), StepBegun("b", "b", "task", 1)], NOW)
    assert (await store.get("a")).current_step == "b"
    await store.commit(lease, [StepFailed("b", "b", "task", _BOOM, 1), Ended(Status.FAILED, error=_BOOM)], NOW)
    assert (await store.get("a")).current_step == "s"  # the error's


# --- logs ---------------------------------------------------------------------------------------------------------------


async def test_logs_by_level_instance_and_page(store):
    levels = [(10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "critical")]
    lease, other = await claimed(store), await claimed(store, "b")
    await store.commit(lease, [logged(number, name, name) for number, name in levels], NOW)
    await store.commit(other, [logged(20, "info", "elsewhere")], NOW)
    assert [log.message for log in await store.logs(Window(0, 99), instance_id="a")] == [name for _, name in levels]
    assert [log.level for log in await store.logs(Window(0, 99), level="warning")] == ["warning", "error", "critical"]
    first = (await store.logs(Window(0, 2)))[-1]
    assert [log.level for log in await store.logs(Window(first.id, 2))] == ["warning", "error"]
    [found] = await store.logs(Window(0, 1), level="critical")
    assert (found.step_name, found.attempt, found.data, found.source, found.workflow_name) == (
        "s",
        2,
        {"n": 1},
        "handler",
        "wf",
    )
    assert found.created_at.timestamp() == NOW


async def test_logs_backwards(store):
    lease, other = await claimed(store), await claimed(store, "b")
    for n in range(6):
        await store.commit(lease if n % 2 else other, [logged(20 + 10 * (n % 3), "x", str(n))], NOW)
    newest = await store.logs(Window(0, 2, backwards=True))
    assert [log.message for log in newest] == ["5", "4"]
    assert [log.message for log in await store.logs(Window(0, 9, before=newest[-1].id, backwards=True))] == [*"3210"]
    assert [log.message for log in await store.logs(Window(0, 9, backwards=True), level="warning")] == [*"5421"]
    assert [log.message for log in await store.logs(Window(0, 2, backwards=True), instance_id="a")] == ["5", "3"]


async def test_a_log_is_an_event_under_two_names(store):
    await store.commit(await claimed(store), [logged(20, "info", "hello")], NOW)
    found = await store.events(Window(0, 9), pattern="log.*")
    assert [event.name for event in found] == ["log.workflow", "log.workflow.a"]
    assert [event.data["message"] for event in found] == ["hello", "hello"]


async def test_what_was_read_of_the_output_is_known_to_the_next(store):
    lease = await claimed(store)
    lines = [logged(20, "info", source="stdout", position=100), logged(30, "warning", source="stderr", position=7)]
    await store.commit(lease, lines, NOW)
    [held] = await store.held()
    assert (held.out_position, held.err_position) == (100, 7)


# --- metadata -----------------------------------------------------------------------------------------------------------


async def test_concurrent_writers_of_metadata_lose_nothing(store):
    lease = await claimed(store)
    inside = [store.commit(lease, [MetadataSet(f"in{n}", str(n))], NOW) for n in range(20)]
    outside = [store.merge_metadata("a", [(f"out{n}", str(n)), ("both", "1")]) for n in range(20)]
    await asyncio.gather(*inside, *outside)
    expected = {f"in{n}": n for n in range(20)} | {f"out{n}": n for n in range(20)} | {"both": 1}
    assert (await store.get("a")).metadata == expected
    with pytest.raises(InstanceNotFound):
        await store.merge_metadata("nobody", [("k", "1")])


# --- pages --------------------------------------------------------------------------------------------------------------


async def test_instances_by_page_name_and_status(store):
    for n in range(10):
        await store.create(new(f"i{n}", "x" if n % 2 else "y"), NOW)
    await store.end("i3", Status.CANCELLED, NOW)
    seen, cursor = [], None
    while page := await store.find(name=None, status=None, limit=3, after=cursor):
        seen += [found.id for found in page]
        cursor = seen[-1]
    assert seen == [f"i{n}" for n in range(10)]
    found = await store.find(name="x", status=Status.PENDING, limit=99, after="i1")
    assert [item.id for item in found] == ["i5", "i7", "i9"]
    assert await store.count_by_status() == {"x": {"pending": 4, "cancelled": 1}, "y": {"pending": 5}}
    assert await store.get("i") is None


_OF_AN_INSTANCE = [f"paddock_{name}" for name in ("instances", "payloads", "steps", "events", "metadata", "signals")]


# --- gone ---------------------------------------------------------------------------------------------------------------


async def filled(store, ident: str):
    """Give an instance rows in every table that hangs on one."""
    lease = await claimed(store, ident, metadata=(("k", "1"),))
    await store.commit(
        lease, [*step("s", "1"), logged(20, "info"), StepWaiting("w", "w", "wait_event", None, "go")], NOW
    )
    await store.put_signal(ident, "go", "1", NOW)
    await store.commit(lease, [Ended(Status.COMPLETED, output="2")], NOW)
    return lease


async def test_a_removed_instance_leaves_no_row_anywhere(store):
    await crash(store, await filled(store, "a"))
    assert [table for table in _OF_AN_INSTANCE if not rows(store)[table]] == []
    await store.remove("a")
    assert [table for table in _OF_AN_INSTANCE if rows(store)[table]] == []
    assert await store.get("a") is None
    with pytest.raises(InstanceNotFound):
        await store.remove("a")


async def test_every_table_that_refers_to_an_instance_cascades(store):
    found = {table: keys for table, keys in (await store._write(references)).items() if keys}
    assert set(found) == {*_OF_AN_INSTANCE, "paddock_leases"} - {"paddock_instances"}
    assert set(map(tuple, found.values())) == {(("paddock_instances", "CASCADE"),)}


@pytest.mark.parametrize("status", [Status.SLEEPING, Status.WAITING, Status.PAUSED, Status.BLOCKED])
async def test_only_what_has_ended_is_removed(store, status):
    lease = await claimed(store)
    with pytest.raises(InvalidTransition, match="is running"):
        await store.remove("a")
    await store.commit(lease, [Suspended(status)], NOW)
    await crash(store, lease)
    with pytest.raises(InvalidTransition, match=f"is {status.value}"):
        await store.remove("a")
    assert await store.get("a") is not None


async def test_a_living_process_keeps_its_slot_when_its_instance_is_removed(store):
    """A lease is a slot: deleted with the row, the limit would be passed by a process that has not exited yet."""
    lease = await filled(store, "a")
    assert await store.remove_older(NOW + 99, 10) == 0
    assert await store.remove("a") == lease
    assert await store.get("a") is not None
    await crash(store, lease)
    assert await store.remove("a") is None
    assert await store.get("a") is None


async def test_old_ends_are_removed_in_batches(store):
    for n in range(5):
        await ended(store, f"i{n}", now=NOW + n)
    await claimed(store, "alive")
    assert await store.remove_older(NOW + 3, 2) == 2
    assert [item.id for item in await store.find(name=None, status=None, limit=9, after=None)] == [
        "alive",
        "i2",
        "i3",
        "i4",
    ]
    assert await store.remove_older(NOW + 3, 2) == 1
    assert await store.remove_older(NOW + 3, 2) == 0
