"""What every store promises of instances: made once, claimed in order, held by one, settled, moved by the table."""

import asyncio

import pytest
from storekit import NOW, again, began, claimed, crash, ended, ids, names, new, rows, step, wanted

from paddock import (
    ConcurrencyLimitReached,
    ErrorInfo,
    InstanceIdConflict,
    InstanceNotFound,
    InvalidTransition,
    LeaseLost,
    Status,
)
from paddock.runtime.base.records import TERMINAL
from paddock.runtime.store import instances
from paddock.runtime.store.admission import Death
from paddock.runtime.store.lifecycle import ENDING_EVENT, TRANSITIONS
from paddock.runtime.store.ops import Ended, Lease, StepBegun, StepCounted, StepRetrying, StepWaiting, Suspended
from paddock.stores import Window

_BOOM = ErrorInfo(type="ValueError", message="boom", step="s")

# --- made -------------------------------------------------------------------------------------------------------------


async def test_the_same_id_again_makes_nothing(store):
    assert await store.create(new("a", value='{"x": 1, "y": [2]}'), NOW)
    assert not await store.create(new("a", value='{"y":[2],"x":1}'), NOW + 9)  # the same JSON, written otherwise
    found = await store.get("a")
    assert (found.status, found.input, found.created_at.timestamp()) == (Status.PENDING, {"x": 1, "y": [2]}, NOW)


@pytest.mark.parametrize(("change", "word"), [({"value": "2"}, "input"), ({"name": "other"}, "workflow")])
async def test_the_same_id_for_something_else_is_a_conflict(store, change, word):
    await store.create(new("a"), NOW)
    with pytest.raises(InstanceIdConflict, match=f"a exists already, with another {word}"):
        await store.create(new("a", **change), NOW)
    assert rows(store)["paddock_instances"] == 1


async def test_the_same_id_is_the_same_instance_after_its_end(store):
    await ended(store, "a")
    assert not await store.create(new("a"), NOW)
    assert (await store.get("a")).status is Status.COMPLETED


async def test_racing_creators_of_one_id_make_one(store):
    made = await asyncio.gather(*(store.create(new("a"), NOW) for _ in range(20)))
    assert made.count(True) == 1


async def test_metadata_comes_with_the_instance(store):
    await store.create(new("a", metadata=(("k", '{"v":[1]}'), ("n", "null"))), NOW)
    assert (await store.get("a")).metadata == {"k": {"v": [1]}, "n": None}


async def test_reject_at_counts_what_runs_and_what_queues(store):
    lease = await claimed(store, "a", reject_at=2)
    await store.create(new("b", reject_at=2), NOW)
    with pytest.raises(ConcurrencyLimitReached, match="'wf' is at its limit of 2"):
        await store.create(new("c", reject_at=2), NOW)
    assert await store.get("c") is None
    await store.commit(lease, [Ended(Status.COMPLETED, output="1")], NOW)
    assert await store.create(new("c", reject_at=2), NOW)  # its process lives on for a moment: "c" queues for that long
    assert ids(await store.claim(wanted({"wf": 2}), NOW)) == ["b"]  # the limit holds for processes too
    assert not await store.create(new("a", reject_at=1), NOW)  # known already: never refused


async def test_reject_at_counts_each_key_by_itself(store):
    assert await store.create(new("a", limit_key="x", reject_at=1), NOW)
    with pytest.raises(ConcurrencyLimitReached):
        await store.create(new("b", limit_key="x", reject_at=1), NOW)
    assert await store.create(new("b", limit_key="y", reject_at=1), NOW)


# --- claimed ------------------------------------------------------------------------------------------------------------


async def test_claims_are_in_order_within_a_priority(store):
    for ident, priority in [("n1", 0), ("low", -1), ("n2", 0), ("high", 5), ("n3", 0)]:
        await store.create(new(ident, priority=priority), NOW)
    order = []
    for _ in range(5):
        [claim] = await store.claim(wanted({"wf": len(order) + 1}), NOW)
        order.append(claim.id)
    assert order == ["high", "n1", "n2", "n3", "low"]


async def test_one_claim_keeps_that_order_too(store):
    for ident, priority in [("n1", 0), ("n2", 0), ("high", 5)]:
        await store.create(new(ident, priority=priority), NOW)
    assert ids(await store.claim(wanted({"wf": 0}), NOW)) == ["high", "n1", "n2"]


async def test_order_holds_across_workflows(store):
    for ident, name, priority in [("1", "x", 0), ("2", "y", 0), ("3", "x", 1), ("4", "y", 0)]:
        await store.create(new(ident, name, priority=priority), NOW)
    got = await store.claim(wanted({"x": 0, "y": 0}, isolated={"x", "y"}, capacity=3), NOW)
    assert ids(got) == ["3", "1", "2"]


async def test_a_limit_counts_leases_whatever_their_status(store):
    for ident in "abc":
        await store.create(new(ident), NOW)
    [first] = await store.claim(wanted({"wf": 1}), NOW)
    assert await store.claim(wanted({"wf": 1}), NOW) == []
    await store.commit(first.lease, [began(), Ended(Status.COMPLETED, output="1")], NOW)
    assert await store.claim(wanted({"wf": 1}), NOW) == []  # its process has not been seen dead
    await crash(store, first.lease)
    assert ids(await store.claim(wanted({"wf": 1}), NOW)) == ["b"]


async def test_racing_claims_never_pass_the_limit(store):
    for number in range(20):
        await store.create(new(f"i{number:02}"), NOW)
    claims = await asyncio.gather(*(store.claim(wanted({"wf": 3}), NOW) for _ in range(10)))
    assert [claim.id for found in claims for claim in found] == ["i00", "i01", "i02"]
    assert len(await store.held()) == 3


async def test_capacity_bounds_isolated_instances_over_all_workflows(store):
    for ident, name in [("1", "x"), ("2", "y"), ("3", "x"), ("4", "inline")]:
        await store.create(new(ident, name), NOW)
    limits = {"x": 0, "y": 0, "inline": 0}
    first = await store.claim(wanted(limits, isolated={"x", "y"}, capacity=2), NOW)
    assert sorted(ids(first)) == ["1", "2", "4"]
    assert [claim.isolated for claim in sorted(first, key=lambda c: c.id)] == [True, True, False]
    assert await store.claim(wanted(limits, isolated={"x", "y"}, capacity=2), NOW) == []
    assert ids(await store.claim(wanted(limits, isolated={"x", "y"}, capacity=3), NOW)) == ["3"]


async def test_after_leaves_older_instances_alone(store):
    await store.create(new("old"), NOW)
    mark = await store.newest_instance()
    await store.create(new("young"), NOW)
    assert ids(await store.claim(wanted(after=mark), NOW)) == ["young"]
    assert ids(await store.claim(wanted(), NOW)) == ["old"]


async def test_unknown_workflows_are_not_claimed(store):
    await store.create(new("a", "other"), NOW)
    assert await store.claim(wanted({"wf": 0}), NOW) == []


async def test_an_instance_whose_last_process_lives_is_not_claimed(store):
    lease = await claimed(store)
    await store.commit(lease, [Suspended(Status.SLEEPING, wake_at=NOW)], NOW)
    assert await store.release_due(NOW) == (1, None)
    assert await store.claim(wanted(), NOW) == []
    await crash(store, lease)
    assert (await again(store)).epoch == lease.epoch + 1


async def test_a_claim_says_running_and_no_event_yet(store):
    await claimed(store, begin=False)
    assert (await store.get("a")).status is Status.RUNNING
    assert await names(store) == []


async def test_an_instance_without_its_limit_key_waits_for_it(store):
    """A child or a fork is queued without one: taken then, it would count for no key."""
    by_key = wanted({"wf": 1}, keyed=frozenset({"wf"}))
    await store.create(new("a", limit_key="z"), NOW)
    await store.create(new("b"), NOW)
    assert ids(await store.claim(by_key, NOW)) == ["a"]
    assert ids(await store.claim(by_key, NOW)) == []
    await store.fill_keys("wf", lambda _input: "z")
    assert ids(await store.claim(by_key, NOW)) == [], "the key's one slot is taken"
    await store.create(new("c"), NOW)
    await store.fill_keys("wf", lambda _input: "y")
    assert ids(await store.claim(by_key, NOW)) == ["c"]


# --- leases ---------------------------------------------------------------------------------------------------------------


async def test_a_stale_epoch_writes_nothing(store):
    old = await claimed(store)
    await crash(store, old)
    young = await again(store)
    await store.commit(young, [began()], NOW)
    for lease in (old, Lease(old.instance, young.epoch + 1), Lease(999, 1)):
        with pytest.raises(LeaseLost):
            await store.commit(lease, step("s"), NOW)
        with pytest.raises(LeaseLost):
            await store.load(lease)
    assert (await store.get("a")).step_results == {}
    await store.commit(young, step("s"), NOW)


async def test_nothing_is_written_after_the_end(store):
    lease = await claimed(store)
    await store.commit(lease, [Ended(Status.COMPLETED, output="1")], NOW)
    before = await store.last_event_id()
    for ops in (step("late"), [Ended(Status.FAILED, error=_BOOM)], [Suspended(Status.SLEEPING, wake_at=1)]):
        with pytest.raises(LeaseLost, match="has ended"):
            await store.commit(lease, ops, NOW)
    assert (await store.last_event_id(), (await store.get("a")).output) == (before, 1)


async def test_an_end_from_outside_fences_the_executor_at_once(store):
    lease = await claimed(store)
    assert await store.end("a", Status.CANCELLED, NOW) == (True, [lease])
    with pytest.raises(LeaseLost):
        await store.commit(lease, step("s"), NOW)
    assert await names(store) == ["workflow.started", "workflow.cancelled"]


async def test_a_commit_is_all_or_nothing(store):
    lease = await claimed(store)
    before = (rows(store), await store.last_event_id())
    with pytest.raises(TypeError, match="no operation"):
        await store.commit(lease, [*step("s", "1"), "no operation"], NOW)  # type: ignore[list-item]
    with pytest.raises(InvalidTransition):
        await store.commit(lease, [*step("s", "1"), Suspended(Status.RUNNING)], NOW)
    assert (rows(store), await store.last_event_id()) == before
    await store.commit(lease, step("s", "1"), NOW)  # and the store works on


async def test_held_names_who_holds(store):
    lease = await claimed(store)
    [held] = await store.held()
    assert (held.lease, held.id, held.pid, held.pid_start, held.boot_id) == (lease, "a", 4711, 1, "boot")
    assert (await store.get("a")).pid == 4711
    await crash(store, lease)
    assert await store.held() == []
    assert (await store.get("a")).pid is None


# --- deaths ---------------------------------------------------------------------------------------------------------------


async def test_crashes_without_progress_back_off_and_end_as_a_crash_loop(store):
    lease = await claimed(store)
    await store.commit(lease, [StepBegun("s", "s", "task", 1)], NOW)
    died = ErrorInfo(type="ProcessDied", message="killed by SIGKILL", signal="SIGKILL", output="tail", max_rss=7)
    waits = []
    for _ in range(3):
        settled = await crash(store, lease, error=died)
        assert settled.status is Status.PENDING
        waits.append(settled.wake_at and settled.wake_at - NOW)
        assert await store.claim(wanted(), NOW) == [] or settled.wake_at is None
        await store.release_due(NOW + 1000)
        if settled.wake_at is None:
            [held] = await store.held()  # the claim above took it
            lease = held.lease
        else:
            lease = await again(store)
        await store.commit(lease, [began()], NOW)
    assert waits == [None, 0.25, 0.5]
    settled = await crash(store, lease, error=died)
    assert (settled.status, settled.crashes) == (Status.FAILED, 4)
    error = (await store.get("a")).error
    assert (error.type, error.step, error.signal, error.output, error.max_rss) == (
        "CrashLoop",
        "s",
        "SIGKILL",
        "tail",
        7,
    )
    assert "died 4 times at step 's'" in error.message
    assert (await names(store))[-1] == "workflow.failed"


async def test_the_back_off_has_an_end(store):
    lease = await claimed(store)
    for _ in range(12):
        settled = await crash(store, lease, resumes=100)
        await store.release_due(NOW + 1000)
        lease = await again(store)
    assert settled.wake_at == NOW + 60


@pytest.mark.parametrize("max_resumes", [0, 1])
async def test_max_resumes_counts_resumes(store, max_resumes):
    lease = await claimed(store)
    for _ in range(max_resumes):
        assert (await crash(store, lease, resumes=max_resumes)).status is Status.PENDING
        await store.release_due(NOW + 1000)
        lease = await again(store)
    assert (await crash(store, lease, resumes=max_resumes)).status is Status.FAILED
    assert (await store.get("a")).error.step is None


_PROGRESS = {
    "another step": step("t"),
    "a spent try": [StepRetrying("s", "s", "task", 1, 1, 9, _BOOM, 1.0, NOW)],
    "a check of a poll": [StepCounted("p", "p", "poll", poll_count=1), StepBegun("s", "s", "task", 2)],
    "a jump of a loop": [StepCounted("l", "l", "loop", loop_count=1), StepBegun("s", "s", "task", 2)],
}


@pytest.mark.parametrize("progress", _PROGRESS)
async def test_progress_resets_the_count(store, progress):
    lease = await claimed(store)
    await store.commit(lease, [StepBegun("s", "s", "task", 1)], NOW)
    assert (await crash(store, lease)).crashes == 1
    lease = await again(store)
    assert (await crash(store, lease)).crashes == 2
    await store.release_due(NOW + 1000)
    lease = await again(store)
    await store.commit(lease, [began(), *_PROGRESS[progress]], NOW)
    assert (await crash(store, lease)).crashes == 1


async def test_a_planned_end_is_no_crash(store):
    lease = await claimed(store)
    for _ in range(10):
        settled = await crash(store, lease, planned=True)
        assert (settled.status, settled.wake_at, settled.crashes) == (Status.PENDING, None, 0)
        lease = await again(store)


async def test_a_kill_for_a_steps_timeout_spends_a_try_and_no_resume(store):
    lease = await claimed(store)
    await store.commit(lease, [StepBegun("s", "s", "task", 1, deadline=NOW + 5), StepBegun("t", "t", "task", 1)], NOW)
    await crash(store, lease, planned=True, step_timed_out=True, now=NOW + 6)
    steps = (await store.load(await again(store))).steps
    assert [(steps[key].failures, steps[key].status) for key in "st"] == [(1, "running"), (0, "running")]


async def test_a_fatal_death_fails_the_instance(store):
    lease = await claimed(store)
    fatal = ErrorInfo(type="PluginSetupError", message="plugin 'x'")
    assert (await crash(store, lease, error=fatal, fatal=True)).status is Status.FAILED
    assert (await store.get("a")).error == fatal


async def test_settling_a_lease_that_another_holds_does_nothing(store):
    old = await claimed(store)
    await crash(store, old)
    young = await again(store)
    assert await crash(store, old) is None
    assert [held.lease for held in await store.held()] == [young]


async def test_what_the_dead_printed_is_kept(store):
    lease = await claimed(store)
    died = ErrorInfo(type="ProcessDied", message="exit 1")
    await crash(store, lease, error=died, leftover=(("stdout", "last"), ("stderr", "words")))
    found = [(log.source, log.level, log.message) for log in await store.logs(Window(0, 10))]
    assert found == [("stdout", "info", "last"), ("stderr", "warning", "words"), ("runtime", "error", "exit 1")]


async def test_the_error_of_a_crash_is_readable_until_the_next_change(store):
    lease = await claimed(store)
    await crash(store, lease, error=_BOOM)
    assert (await store.get("a")).error == _BOOM
    lease = await again(store)
    assert (await store.get("a")).error == _BOOM
    await store.commit(lease, [began(), Ended(Status.COMPLETED, output="1")], NOW)
    assert (await store.get("a")).error is None


# --- status ---------------------------------------------------------------------------------------------------------------


async def in_status(store, status: Status) -> int:
    """Bring instance "a" to a status by a way that the table allows; return its row."""
    lease = await claimed(store)
    if status in TERMINAL:
        await store.end("a", status, NOW)
    elif status in (Status.SLEEPING, Status.WAITING, Status.PAUSED, Status.BLOCKED):
        await store.commit(lease, [Suspended(status)], NOW)
    if status is not Status.RUNNING:
        await crash(store, lease)
        await store.release_due(NOW + 1000)
    return lease.instance


@pytest.mark.parametrize("source", Status)
async def test_the_table_decides_every_change(store, source):
    seq = await in_status(store, source)
    assert (await store.get("a")).status is source

    def attempt(tx, target):
        tx.execute("SAVEPOINT t")
        try:
            instances.move(tx, seq, source, target, NOW)
        except InvalidTransition:
            return False
        finally:
            tx.execute("ROLLBACK TO t")
        return True

    allowed = {target for target in Status if await store._write(attempt, target)}
    assert allowed == TRANSITIONS[source]


def test_no_end_is_left_and_every_end_has_its_event():
    assert all(not TRANSITIONS[status] for status in TERMINAL)
    assert set(ENDING_EVENT) == TERMINAL
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize("source", Status)
async def test_cancel_works_in_every_status_and_sticks(store, source):
    await in_status(store, source)
    done, _ = await store.end("a", Status.CANCELLED, NOW)
    assert done is (source not in TERMINAL)
    assert await store.end("a", Status.FAILED, NOW, _BOOM) == (False, [])
    found = await store.get("a")
    assert found.status is (source if source in TERMINAL else Status.CANCELLED)
    assert found.completed_at is not None
    ends = [name for name in await names(store) if name in ENDING_EVENT.values()]
    assert ends == [ENDING_EVENT[found.status]]
    assert await store.claim(wanted(), NOW) == []


async def test_cancel_of_nobody(store):
    with pytest.raises(InstanceNotFound, match="'nobody'"):
        await store.end("nobody", Status.CANCELLED, NOW)


# --- time ---------------------------------------------------------------------------------------------------------------


async def test_what_is_due_is_queued(store):
    await store.create(new("later", wake_at=NOW + 10), NOW)
    await store.create(new("now"), NOW)
    await store.create(new("soon", wake_at=NOW + 5), NOW)
    assert ids(await store.claim(wanted(), NOW)) == ["now"]
    assert await store.release_due(NOW + 4.9) == (0, NOW + 5)
    assert await store.release_due(NOW + 5) == (1, NOW + 10)
    assert ids(await store.claim(wanted(), NOW)) == ["soon"]
    assert await store.release_due(NOW + 99) == (1, None)
    assert (await store.get("later")).wake_at is None


async def test_one_that_wakes_queues_before_younger_ones(store):
    lease = await claimed(store, "old")
    await store.commit(
        lease, [StepWaiting("s", "s", "sleep", NOW + 1), Suspended(Status.SLEEPING, wake_at=NOW + 1)], NOW
    )
    await crash(store, lease)
    await store.create(new("young"), NOW)
    await store.release_due(NOW + 1)
    assert ids(await store.claim(wanted({"wf": 1}), NOW + 1)) == ["old"]


async def test_the_deadline_counts_from_the_first_start(store):
    lease = await claimed(store, begin=False)
    assert await store.overdue(NOW + 1e9) == ([], None)
    await store.commit(lease, [began(timeout=60)], NOW)
    assert await store.overdue(NOW + 59) == ([], NOW + 60)
    await crash(store, lease)
    lease = await again(store)
    await store.commit(lease, [began(timeout=60)], NOW + 30)
    assert await store.overdue(NOW + 60) == (["a"], NOW + 60)
    await store.end("a", Status.TIMED_OUT, NOW + 60)
    assert await store.overdue(NOW + 61) == ([], None)
    found = await store.get("a")
    assert (found.executions, found.started_at.timestamp()) == (2, NOW)


async def test_instances_of_unknown_workflows_are_parked_and_come_back(store):
    await store.create(new("a"), NOW)
    await store.create(new("b", "gone"), NOW)
    await store.create(new("c", "gone", wake_at=NOW + 9), NOW)
    assert await store.block_unknown(frozenset({"wf"}), NOW) == 2
    found = await store.get("b")
    assert (found.status, found.error.type) == (Status.BLOCKED, "WorkflowNotFound")
    assert "'gone'" in found.error.message
    assert await store.unblock(NOW, "b") == 1
    assert await store.unblock(NOW, "a") == 0
    assert await store.unblock(NOW) == 1
    assert [(await store.get(i)).status for i in "abc"] == [Status.PENDING] * 3
    assert (await store.get("b")).error is None
    with pytest.raises(InstanceNotFound):
        await store.unblock(NOW, "nobody")


async def test_a_settlement_says_whether_the_queue_is_to_be_looked_at(store):
    """Not for an instance that has ended, where nobody waits for its slot."""

    async def over(ident: str, *, end: bool) -> bool:
        lease = await claimed(store, ident)
        if end:
            await store.commit(lease, [*step("only"), Ended(Status.COMPLETED, output="1")], NOW)
        return (await store.settle(lease, Death(), 3, NOW)).over

    assert await over("a", end=True)
    assert not await over("b", end=False)  # it goes on
    await store.end("b", Status.CANCELLED, NOW)
    await store.create(new("waits", "other"), NOW)
    assert not await over("c", end=True)
    await store.end("waits", Status.CANCELLED, NOW)
    await store.create(new("later", wake_at=NOW + 60), NOW)
    assert await over("d", end=True)  # time wakes it, not a slot
