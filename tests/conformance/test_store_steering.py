"""What every store promises of signals, holding, running on and forking."""

import pytest
from storekit import NOW, again, began, claimed, crash, ended, names, new, rows, step, wanted

from paddock import ErrorInfo, InstanceNotFound, InvalidSignal, InvalidTransition, LeaseLost, Status
from paddock.runtime.store.ops import (
    ChildStarted,
    Ended,
    MetadataSet,
    SignalTaken,
    StepBegun,
    StepCompleted,
    StepCounted,
    StepFailed,
    StepWaiting,
    Suspended,
)

_BOOM = ErrorInfo(type="ValueError", message="boom", step="s")


def waits(key: str = "w", event: str = "go", **more):
    return StepWaiting(key, key, "wait_event", more.pop("wake_at", None), event, **more)


# --- signals ------------------------------------------------------------------------------------------------------------


async def test_signals_of_one_name_are_taken_in_their_order(store):
    lease = await claimed(store)
    for payload in "123":
        await store.put_signal("a", "go", payload, NOW)
    await store.put_signal("a", "other", "9", NOW)
    taken = []
    while (kept := await store.next_signal(lease, "go")) is not None:
        taken.append(kept.payload)
        await store.commit(lease, [SignalTaken(kept.id, f"w#{len(taken)}")], NOW)
    assert taken == ["1", "2", "3"]
    assert (await store.next_signal(lease, "other")).payload == "9"


async def test_a_signal_wakes_who_waits_for_it_and_nobody_else(store):
    lease = await claimed(store)
    await store.commit(lease, [waits(), Suspended(Status.WAITING)], NOW)
    await crash(store, lease)
    assert await store.put_signal("a", "other", "1", NOW) is None
    assert (await store.get("a")).status is Status.WAITING
    await store.put_signal("a", "go", "1", NOW)
    assert (await store.get("a")).status is Status.PENDING
    lease = await again(store)
    assert (await store.next_signal(lease, "go")).payload == "1"


async def test_a_signal_to_a_running_instance_names_who_must_be_told(store):
    lease = await claimed(store)
    assert await store.put_signal("a", "go", "1", NOW) == lease


async def test_a_signal_that_comes_right_before_the_suspension_is_not_slept_over(store):
    lease = await claimed(store)
    await store.commit(lease, [waits()], NOW)
    await store.put_signal("a", "go", "1", NOW)  # the executor has looked already, and found nothing
    await store.commit(lease, [Suspended(Status.WAITING)], NOW)
    assert (await store.get("a")).status is Status.PENDING


async def test_an_early_signal_is_kept_over_a_crash(store):
    await store.create(new("a"), NOW)
    await store.put_signal("a", "go", "1", NOW)
    lease = await again(store)
    await crash(store, lease)
    assert (await store.next_signal(await again(store), "go")).payload == "1"


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED])
async def test_nobody_takes_a_signal_after_the_end(store, status):
    await ended(store, "a") if status is Status.COMPLETED else await store.create(new("a"), NOW)
    await store.end("a", status, NOW)
    before = rows(store)
    for call in (store.put_signal("a", "go", "1", NOW), store.awaited("a", "go")):
        with pytest.raises(InvalidSignal, match=f"has ended as {status.value}"):
            await call
    with pytest.raises(InstanceNotFound):
        await store.put_signal("nobody", "go", "1", NOW)
    assert rows(store) == before


async def test_open_waits_are_known_with_what_they_accept(store):
    lease = await claimed(store)
    await store.commit(lease, [waits("w", schema="{}"), *step("x"), waits("v")], NOW)
    assert [(wait.key, wait.schema) for wait in await store.awaited("a", "go")] == [("w", "{}"), ("v", None)]
    await store.commit(lease, [StepCompleted("w", "w", "wait_event", "1")], NOW)
    assert [wait.key for wait in await store.awaited("a", "go")] == ["v"]


# --- children -----------------------------------------------------------------------------------------------------------


async def test_a_child_starts_with_the_commit_that_journals_it(store):
    lease = await claimed(store)
    with pytest.raises(TypeError):
        await store.commit(lease, [ChildStarted("c", "wf", "1", "s"), object()], NOW)
    assert await store.get("c") is None
    await store.commit(lease, [ChildStarted("c", "wf", "[1]", "s", priority=4)], NOW)
    found = await store.get("c")
    assert (found.status, found.parent_id, found.input, found.priority) == (Status.PENDING, "a", [1], 4)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.TIMED_OUT])
async def test_an_end_from_outside_takes_along_what_was_started(store, status):
    """Children's children too, whatever they do; what has ended before keeps its end."""
    lease = await claimed(store)
    await store.commit(lease, [ChildStarted("b", "other", "1", "s")], NOW)
    inner = await again(store, "other")
    await store.commit(inner, [began(), ChildStarted("c", "third", "1", "s")], NOW)
    await store.commit(lease, [ChildStarted("done", "other", "1", "s")], NOW)
    done = await again(store, "other")
    await store.commit(done, [began(), Ended(Status.COMPLETED, output="1")], NOW)
    assert await store.end("a", status, NOW) == (True, [lease, inner])
    found = [(await store.get(name)).status for name in ("a", "b", "c", "done")]
    assert found == [status, Status.CANCELLED, Status.CANCELLED, Status.COMPLETED]
    with pytest.raises(LeaseLost):
        await store.commit(inner, [Ended(Status.COMPLETED, output="1")], NOW)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT])
async def test_a_parent_that_waits_wakes_at_its_childs_end(store, status):
    lease = await claimed(store)
    await store.commit(
        lease, [ChildStarted("c", "other", "1", "s"), StepWaiting("w", "w", "wait_for", None, child_id="c")], NOW
    )
    await store.commit(lease, [Suspended(Status.WAITING)], NOW)
    await crash(store, lease)
    child = await again(store, "other")
    await store.commit(child, [began(), Ended(status, output="5" if status is Status.COMPLETED else None)], NOW)
    assert (await store.get("a")).status is Status.PENDING
    outcome = await store.outcome_of("c")
    assert (outcome.status, outcome.workflow_name) == (status, "other")
    assert await store.outcome_of("nobody") is None


# --- holding ------------------------------------------------------------------------------------------------------------


async def test_what_does_not_run_is_held_at_once(store):
    await store.create(new("a"), NOW)
    assert await store.pause("a", NOW) is None
    assert (await store.get("a")).status is Status.PAUSED
    assert await store.claim(wanted(), NOW) == []
    assert await store.pause("a", NOW) is None
    await store.unpause("a", NOW)
    assert (await store.get("a")).status is Status.PENDING
    with pytest.raises(InvalidTransition, match="not paused"):
        await store.unpause("a", NOW)


async def test_what_runs_is_held_when_it_gives_its_process_back(store):
    lease = await claimed(store)
    assert await store.pause("a", NOW) == lease
    assert (await store.get("a")).status is Status.RUNNING
    await crash(store, lease, planned=True)
    assert (await store.get("a")).status is Status.PAUSED
    await store.unpause("a", NOW)
    lease = await again(store)
    await crash(store, lease, planned=True)
    assert (await store.get("a")).status is Status.PENDING  # one wish, one hold


async def test_a_wish_to_hold_outlives_a_crash(store):
    lease = await claimed(store)
    await store.pause("a", NOW)
    assert (await crash(store, lease, error=_BOOM)).status is Status.PAUSED
    assert await store.claim(wanted(), NOW) == []
    assert (await store.get("a")).error == _BOOM


async def test_a_delay_outlives_a_hold(store):
    await store.create(new("a", wake_at=NOW + 100), NOW)
    await store.pause("a", NOW)
    await store.unpause("a", NOW + 1)
    assert await store.claim(wanted(), NOW + 1) == []
    assert (await store.get("a")).wake_at.timestamp() == NOW + 100


@pytest.mark.parametrize("call", ["pause", "unpause", "reopen"])
async def test_what_has_completed_is_left_alone(store, call):
    await ended(store, "a")
    with pytest.raises(InvalidTransition, match="is completed|as completed"):
        await getattr(store, call)("a", NOW)
    with pytest.raises(InstanceNotFound):
        await getattr(store, call)("nobody", NOW)


# --- running on ---------------------------------------------------------------------------------------------------------


async def test_a_failed_instance_runs_on_from_its_failed_step(store):
    lease = await claimed(store)
    failed = [StepBegun("s", "s", "task", 1), StepFailed("s", "s", "task", _BOOM, 1), Ended(Status.FAILED, error=_BOOM)]
    await store.commit(lease, [*step("done", "1"), *failed], NOW)
    await crash(store, lease)
    await store.reopen("a", NOW + 5)
    found = await store.get("a")
    assert (found.status, found.error, found.completed_at) == (Status.PENDING, None, None)
    journal = await store.load(await again(store))
    assert list(journal.steps) == ["done", "s"]
    again_s = journal.steps["s"]
    assert (again_s.status, again_s.attempts, again_s.failures, again_s.error) == ("retrying", 1, 0, None)
    assert "workflow.retried" in await names(store)


async def test_a_crash_loop_runs_on_with_a_fresh_count(store):
    lease = await claimed(store)
    await store.commit(lease, [StepBegun("s", "s", "task", 1)], NOW)
    assert (await crash(store, lease, resumes=0)).status is Status.FAILED
    await store.reopen("a", NOW)
    lease = await again(store)
    settled = await crash(store, lease, resumes=1)
    assert (settled.status, settled.crashes) == (Status.PENDING, 1)


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING])
async def test_what_has_not_failed_does_not_run_on(store, status):
    await (store.create(new("a"), NOW) if status is Status.PENDING else claimed(store))
    with pytest.raises(InvalidTransition, match=f"is {status.value}"):
        await store.reopen("a", NOW)


# --- forking ------------------------------------------------------------------------------------------------------------


async def test_a_fork_shares_the_journal_before_a_step(store):
    lease = await claimed(store, "a", value='{"x":1}')
    ops = [*step("one", "1"), StepCounted("l", "l", "loop", loop_count=1), *step("two", "2"), *step("three", "3")]
    await store.commit(lease, [*ops, MetadataSet("k", "1"), Ended(Status.COMPLETED, output="9")], NOW)
    await crash(store, lease)
    assert await store.fork("a", "b", "two", None, NOW) == "wf"
    found = await store.get("b")
    assert (found.status, found.input, found.output, found.metadata) == (Status.PENDING, {"x": 1}, None, {"k": 1})
    assert list((await store.load(await again(store))).steps) == ["one", "l"]
    assert [step.output for step in (await store.get("a")).step_results.values()] == [1, None, 2, 3]


async def test_a_fork_from_the_beginning_with_another_input(store):
    await ended(store, "a")
    await store.fork("a", "b", None, "[2]", NOW)
    found = await store.get("b")
    assert (found.input, found.step_results, found.metadata) == ([2], {}, {})
    with pytest.raises(InvalidTransition, match="'nowhere'"):
        await store.fork("a", "c", "nowhere", None, NOW)
    assert await store.get("c") is None


async def test_what_failed_before_it_could_be_held_is_not_held_when_it_runs_on(store):
    lease = await claimed(store)
    await store.commit(lease, [StepBegun("s", "s", "task", 1)], NOW)
    assert await store.pause("a", NOW) == lease
    await store.commit(lease, [StepFailed("s", "s", "task", _BOOM, 1), Ended(Status.FAILED, error=_BOOM)], NOW)
    await crash(store, lease)
    await store.reopen("a", NOW)
    lease = await again(store)
    await store.commit(lease, [StepBegun("s", "s", "task", 2, boundary=True)], NOW)
    assert (await store.get("a")).status is Status.RUNNING
