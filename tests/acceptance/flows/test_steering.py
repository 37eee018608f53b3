"""What people do to instances from outside, in each state in which they can be."""

import asyncio
from datetime import timedelta

import pytest
from contractkit import DEADLINE, until
from flowkit import ended, outputs, suspended

import paddock.testing
from paddock import (
    ConfigError,
    Context,
    InstanceIdConflict,
    InstanceNotFound,
    InvalidInput,
    InvalidState,
    InvalidTransition,
    Retry,
    StepFailed,
    WorkflowCancelled,
    branch,
    flow,
    workflow,
)


def value(x=None):
    return x


class Patient:
    """A flow that is sick until it is healed, and that counts its steps."""

    def __init__(self, name="patient"):
        self.healthy = False
        self.calls = []

        def note(what):
            self.calls.append(what)
            return what

        def flaky(what):
            self.calls.append(what)
            if not self.healthy:
                raise ValueError("sick")
            return what

        @flow(name)
        async def patient(ctx):
            a = await ctx.step("a", note, "a")
            try:
                await ctx.step("caught", flaky, "caught")
            except StepFailed:
                await ctx.step("instead", note, "instead")
            b = await ctx.step("b", flaky, "b", retry=Retry(max_attempts=2, interval="1h"))
            return [a, b, await ctx.step("c", note, "c")]

        self.flow = patient


# --- retry ---


async def test_retry_goes_on_from_the_failed_step_and_reruns_nothing_else():
    patient = Patient()
    async with paddock.testing.server(register=[patient.flow]) as server:
        ident = await server.workflows.start(patient.flow)
        failed = await ended(server, ident)
        assert (failed.status, failed.error.step) == ("failed", "b")
        assert patient.calls == ["a", "caught", "instead", "b", "b"]
        patient.calls.clear()
        await server.workflows.retry(ident)
        again = await ended(server, ident)
        assert (again.status, again.error.step) == ("failed", "b"), "a fresh count of attempts"
        assert patient.calls == ["b", "b"]
        assert again.step_results["b"].attempts == 4, "their numbers go on"
        patient.healthy = True
        patient.calls.clear()
        await server.workflows.retry(ident)
        instance = await ended(server, ident)
        events = await server.events.history("workflow.*", instance_id=ident, limit=200)
    assert (instance.status, instance.output, instance.error) == ("completed", ["a", "b", "c"], None)
    assert patient.calls == ["b", "c"]
    tried = [
        event.data["attempt"] for event in events if event.name == "workflow.step.started" and event.data["step"] == "b"
    ]
    assert tried == [1, 2, 3, 4, 5]
    assert instance.step_results["caught"].status == "failed", "what the code has caught stays as it was"
    assert instance.completed_at >= failed.completed_at
    names = [event.name for event in events]
    assert names.count("workflow.failed") == 2
    assert names.count("workflow.completed") == 1


async def test_every_try_of_a_step_has_a_number_of_its_own_and_the_same_idempotency_key():
    seen = []

    def charge(ctx: Context):
        seen.append((ctx.attempt, ctx.idempotency_key))
        if len(seen) < 4:
            raise ConnectionError("no answer")

    @flow("charging")
    async def charging(ctx):
        await ctx.step("charge", charge, retry={"max_attempts": 2, "interval": 0})

    async with paddock.testing.server(register=[charging]) as server:
        ident = await server.workflows.start(charging)
        await ended(server, ident)
        await server.workflows.retry(ident)
        assert (await ended(server, ident)).status == "completed"
    assert [attempt for attempt, _ in seen] == [1, 2, 3, 4]
    assert {key for _, key in seen} == {f"{ident}:charge"}


@pytest.mark.parametrize("change", ["gone", "another kind"])
async def test_a_failed_step_may_be_changed_away_before_a_retry(change):
    """It ended badly and is to be run anew: its row holds no way that the code would have to take."""
    code = []

    @flow("mending")
    async def mending(ctx):
        await ctx.step("first", code.append, "first") if not code else await ctx.step("first", len, code)
        if len(code) == 1:
            await ctx.step("bad", lambda: 1 / 0)
        elif change == "another kind":
            await ctx.sleep("bad", "1d")
        return await ctx.step("good", len, code)

    async with paddock.testing.server(register=[mending]) as server:
        ident = await server.workflows.start(mending)
        assert (await ended(server, ident)).error.step == "bad"
        code.append("changed")
        await server.workflows.retry(ident)
        instance = await ended(server, ident)
    assert (instance.status, instance.output) == ("completed", 2), instance.error
    assert instance.executions == (2 if change == "gone" else 3)


async def test_retry_of_a_gather_runs_the_failed_and_the_stopped_strands_only():
    calls, healthy = [], []

    async def part(name):
        calls.append(name)
        if name == "good":
            return name
        while "good" not in done:
            await asyncio.sleep(0)
        if not healthy and name == "bad":
            raise ValueError("sick")
        if not healthy:
            await asyncio.Event().wait()
        return name

    done = []

    @flow("gathering")
    async def gathering(ctx):
        async def good():
            await ctx.step("good", part, "good")
            await ctx.step("note", done.append, "good")

        await ctx.gather(good(), ctx.step("slow", part, "slow"), ctx.step("bad", part, "bad"))
        return "all"

    async with paddock.testing.server(register=[gathering]) as server:
        ident = await server.workflows.start(gathering)
        failed = await ended(server, ident)
        assert failed.error.step == "bad"
        assert sorted(calls) == ["bad", "good", "slow"]
        healthy.append(1)
        calls.clear()
        await server.workflows.retry(ident)
        instance = await ended(server, ident)
    assert instance.output == "all", instance.error
    assert sorted(calls) == ["bad", "slow"]


async def test_retry_of_a_parallel_runs_every_branch_that_failed():
    healthy, calls = [], []

    def part(ctx):
        calls.append(ctx.instance.current_step)
        if not healthy and "good" not in ctx.instance.current_step:
            raise ValueError("sick")

    built = (
        workflow("branches")
        .parallel(
            "all",
            branches=[branch(name).task("one", part).build() for name in ("good", "bad", "worse")],
            on_error="wait-all",
        )
        .end("done")
        .build()
    )
    async with paddock.testing.server(register=[built]) as server:
        ident = await server.workflows.start(built)
        assert (await ended(server, ident)).status == "failed"
        healthy.append(1)
        calls.clear()
        await server.workflows.retry(ident)
        instance = await ended(server, ident)
    assert instance.status == "completed", instance.error
    assert sorted(calls) == ["all/bad/one", "all/worse/one"]


async def test_retry_of_a_wait_that_timed_out_and_of_a_child_that_failed():
    healthy = []

    def check():
        if not healthy:
            raise ValueError("sick")
        return "well"

    @flow("child")
    async def child(ctx):
        return await ctx.step("check", check)

    @flow("two-troubles")
    async def two(ctx):
        handle = await ctx.start(child, id="the-child")
        found = await ctx.wait_for(handle)
        return [found, await ctx.wait_event("go", timeout="1h")]

    async with paddock.testing.server(register=[two, child]) as server:
        ident = await server.workflows.start(two)
        failed = await ended(server, ident)
        assert failed.error.type == "WorkflowFailed"
        healthy.append(1)
        await server.workflows.retry("the-child")
        await ended(server, "the-child")
        await server.workflows.retry(ident)
        await suspended(server, ident, "waiting", "go")
        server.clock.advance("2h")
        assert (await ended(server, ident)).error.type == "WaitTimeout"
        await server.workflows.retry(ident)
        await server.workflows.signal(ident, "go", "at last")
        instance = await ended(server, ident)
    assert instance.output == ["well", "at last"]


async def test_retry_refuses_what_has_not_failed():
    @flow("fine")
    async def fine(ctx):
        await ctx.wait_event("go")

    async with paddock.testing.server(register=[fine]) as server:
        ident = await server.workflows.start(fine)
        await suspended(server, ident, "waiting")
        with pytest.raises(InvalidTransition, match="waiting"):
            await server.workflows.retry(ident)
        await server.workflows.signal(ident, "go")
        before = await ended(server, ident)
        with pytest.raises(InvalidTransition, match="Fork"):
            await server.workflows.retry(ident)
        with pytest.raises(InstanceNotFound):
            await server.workflows.retry("nobody")
        assert await server.workflows.get_instance(ident) == before


# --- fork ---


async def test_fork_shares_the_journal_before_a_step():
    calls = []

    def note(what):
        calls.append(what)
        return what

    def broken():
        calls.append("broken")
        raise ValueError("no")

    @flow("forked")
    async def forked(x: str, ctx):
        a = await ctx.step("a", note, "a")
        try:
            await ctx.step("broken", broken)
        except StepFailed:
            pass
        twice = [await ctx.step("b", note, n) for n in range(2)]
        await ctx.set_metadata("stage", "late")
        return [x, a, twice, await ctx.step("c", note, "c")]

    async with paddock.testing.server(register=[forked]) as server:
        first = await server.workflows.start(forked, "one", metadata={"kept": 1})
        original = await ended(server, first)
        assert original.output == ["one", "a", [0, 1], "c"]

        async def fork(*args, **options):
            calls.clear()
            ident = await server.workflows.fork(first, *args, **options)
            instance = await ended(server, ident)
            assert instance.status == "completed", instance.error
            return instance, list(calls)

        instance, ran = await fork("b#2")
        assert (instance.output, ran) == (["one", "a", [0, 1], "c"], [1, "c"])
        assert instance.id != first
        instance, ran = await fork("b", input="two")
        assert (instance.output, ran) == (["two", "a", [0, 1], "c"], [0, 1, "c"])
        assert instance.metadata == {"kept": 1, "stage": "late"}
        instance, ran = await fork()
        assert ran == ["a", "broken", 0, 1, "c"]
        instance, ran = await fork("c", new_id="my-fork")
        assert (instance.id, ran) == ("my-fork", ["c"])
        for taken in ("my-fork", first):  # also with the same input
            with pytest.raises(InstanceIdConflict):
                await server.workflows.fork(first, "c", new_id=taken)
        with pytest.raises(InvalidTransition, match="never came to a step 'z'"):
            await server.workflows.fork(first, "z")
        with pytest.raises(InvalidInput):
            await server.workflows.fork(first, input={"not": "text"})
        with pytest.raises(InstanceIdConflict):
            await server.workflows.fork(first, "c", input="other", new_id="my-fork")
        with pytest.raises(InstanceNotFound):
            await server.workflows.fork("nobody")
        assert len(await server.workflows.get_instances("forked")) == 5, "what was refused left nothing behind"
        assert await server.workflows.get_instance(first) == original


async def test_fork_from_the_step_that_failed():
    patient = Patient()
    async with paddock.testing.server(register=[patient.flow]) as server:
        ident = await server.workflows.start(patient.flow)
        await ended(server, ident)
        patient.healthy = True
        patient.calls.clear()
        instance = await ended(server, await server.workflows.fork(ident, "b"))
        assert instance.output == ["a", "b", "c"], instance.error
        assert patient.calls == ["b", "c"]
        assert (await server.workflows.get_instance(ident)).status == "failed"


# --- pause and unpause ---


@flow("pausing")
async def pausing(ctx):
    await ctx.step("a", value)
    await ctx.sleep("nap", "5d")
    return await ctx.wait_event("go", int)


async def test_pause_and_unpause_of_one_that_waits_keep_its_signals():
    async with paddock.testing.server(register=[pausing]) as server:
        ident = await server.workflows.start(pausing)
        await suspended(server, ident, "waiting")
        await server.workflows.pause(ident)
        await server.workflows.pause(ident)  # it is what it is
        assert (await server.workflows.get_instance(ident)).status == "paused"
        await server.workflows.signal(ident, "go", 7)
        server.clock.advance("9d")
        assert (await server.workflows.get_instance(ident)).status == "paused"
        await server.workflows.unpause(ident)
        instance = await ended(server, ident)
        assert instance.output == 7
        for call in (server.workflows.pause, server.workflows.unpause):
            with pytest.raises(InvalidTransition):
                await call(ident)
            with pytest.raises(InstanceNotFound):
                await call("nobody")


async def test_pause_of_one_that_is_queued_or_delayed():
    gate = asyncio.Event()

    @flow("holding")
    async def holding(ctx):
        await ctx.step("hold", gate.wait)

    async with paddock.testing.server() as server:
        server.workflows.register(holding, max_concurrent=1)
        server.workflows.register(pausing)
        first = await server.workflows.start(holding)
        queued = await server.workflows.start(holding)
        await until(server, "workflow.step.started", first)
        await server.workflows.pause(queued)
        gate.set()
        await ended(server, first)
        assert (await server.workflows.get_instance(queued)).status == "paused"
        with pytest.raises(InvalidTransition):
            await server.workflows.unpause(first)
        await server.workflows.unpause(queued)
        assert (await ended(server, queued)).status == "completed"


async def test_pause_of_a_delayed_instance_does_not_shorten_its_delay():
    @flow("delayed")
    async def delayed(ctx):
        return (ctx.now() - ctx.instance.created_at).total_seconds()

    async with paddock.testing.server(register=[delayed]) as server:
        await server.workflows.start(delayed, delay="1d", id="never-mind")
        ident = await server.workflows.start(delayed, delay="20d")
        await server.workflows.pause(ident)
        await server.workflows.unpause(ident)
        instance = await ended(server, ident)
    assert instance.output >= timedelta(days=20).total_seconds()


async def test_pause_of_one_that_runs_acts_at_its_next_step_boundary():
    gate, calls = asyncio.Event(), []

    async def slow():
        calls.append("slow")
        await gate.wait()
        return "slow"

    @flow("running")
    async def running(ctx):
        return [await ctx.step("slow", slow), await ctx.step("next", calls.append, "next")]

    async with paddock.testing.server(register=[running]) as server:
        ident = await server.workflows.start(running)
        await until(server, "workflow.step.started", ident)
        await server.workflows.pause(ident)
        assert (await server.workflows.get_instance(ident)).status == "running"
        gate.set()
        instance = await suspended(server, ident, "paused")
        assert outputs(instance) == {"slow": "slow"}
        await server.workflows.unpause(ident)
        instance = await ended(server, ident)
    assert instance.status == "completed", instance.error
    assert calls == ["slow", "next"]


async def test_a_pause_that_is_taken_back_in_time_holds_nothing():
    gate = asyncio.Event()

    @flow("nearly-held")
    async def nearly(ctx):
        await ctx.step("slow", gate.wait)
        return await ctx.step("next", value, 1)

    async with paddock.testing.server(register=[nearly]) as server:
        ident = await server.workflows.start(nearly)
        await until(server, "workflow.step.started", ident)
        await server.workflows.pause(ident)
        await server.workflows.unpause(ident)
        gate.set()
        instance = await ended(server, ident)
        held = await server.events.history("workflow.suspended", instance_id=ident)
    assert instance.output == 1
    assert [event.data["reason"] for event in held] == []


# --- cancel ---


async def test_cancel_in_every_state_and_only_once():
    states = {}

    @flow("cancelled")
    async def cancelled(kind, ctx):
        if kind == "running":
            await ctx.step("hold", asyncio.Event().wait)
        if kind == "blocked" and kind in states:
            await ctx.step("new", value)
        await ctx.step("old", value)
        if kind == "sleeping":
            await ctx.gather(ctx.sleep("nap", "5d"), ctx.wait_event("go"))
        await ctx.wait_event("go")
        await ctx.step("later", value)

    async with paddock.testing.server() as server:
        server.workflows.register(cancelled)
        for kind in ("running", "sleeping", "waiting", "paused", "blocked", "pending"):
            ident = states[kind] = (
                await server.workflows.start(cancelled, kind, delay="5d" if kind == "pending" else None)
                if kind != "blocked"
                else None
            )
            if kind == "blocked":
                del states[kind]
                ident = await server.workflows.start(cancelled, kind)
                await suspended(server, ident, "waiting")
                states[kind] = ident
                await server.workflows.signal(ident, "go")
                await suspended(server, ident, "blocked")
            elif kind == "running":
                await until(server, "workflow.step.started", ident)
            elif kind != "pending":
                await suspended(server, ident, "waiting")
            if kind == "paused":
                await server.workflows.pause(ident)
            assert await server.workflows.cancel(ident) is True, kind
            instance = await server.workflows.get_instance(ident)
            assert instance.status == "cancelled", kind
            assert instance.completed_at is not None
            assert await server.workflows.cancel(ident) is False
            with pytest.raises(WorkflowCancelled):
                await server.workflows.result(ident)
            terminal = await server.events.history("workflow.cancelled", instance_id=ident)
            assert len(terminal) == 1, kind
        with pytest.raises(InstanceNotFound):
            await server.workflows.cancel("nobody")


async def test_cancel_of_a_parent_cancels_its_children_and_theirs():
    @flow("leaf")
    async def leaf(ctx):
        await ctx.wait_event("never")

    @flow("twig")
    async def twig(ctx):
        await ctx.wait_for(await ctx.start(leaf))

    @flow("root")
    async def root(ctx):
        await ctx.gather(*[ctx.wait_for(await ctx.start(twig)) for _ in range(2)], ctx.sleep("nap", "1d"))

    async with paddock.testing.server(register=[leaf, twig, root]) as server:
        ident = await server.workflows.start(root)
        waits = 0
        async with asyncio.timeout(DEADLINE):
            async for event in server.events.subscribe("workflow.suspended", after=0):
                waits += event.workflow_name == "leaf"
                if waits == 2:
                    break
        assert await server.workflows.cancel(ident)
        everybody = await server.workflows.get_all_instances()
    assert len(everybody) == 5
    assert {one.status for one in everybody} == {"cancelled"}


# --- many at once, metadata, cleanup ---


async def test_bulk_forms():
    patient = Patient()
    async with paddock.testing.server(register=[patient.flow, pausing]) as server:
        sick = [await server.workflows.start(patient.flow) for _ in range(3)]
        for ident in sick:
            await ended(server, ident)
        waiting = [await server.workflows.start(pausing) for _ in range(3)]
        for ident in waiting:
            await suspended(server, ident, "waiting")
        held = await server.workflows.start(pausing)
        await suspended(server, held, "waiting")
        await server.workflows.pause(held)
        patient.healthy = True
        assert await server.workflows.retry_all(name="pausing") == 0
        assert await server.workflows.retry_all() == 3
        for ident in sick:
            assert (await ended(server, ident)).status == "completed"
        assert await server.workflows.cancel_all(name="patient") == 0
        assert await server.workflows.cancel_all(status="waiting") == 3
        assert await server.workflows.cancel_all(name="pausing") == 1
        assert (await server.workflows.get_instance(held)).status == "cancelled"
        with pytest.raises(InvalidTransition):
            await server.workflows.cleanup_all(status="waiting")
        for unknown in (server.workflows.cleanup_all(status="nope"), server.workflows.cancel_all(status="nope")):
            with pytest.raises(ConfigError, match="completed"):
                await unknown
        assert await server.workflows.cleanup_all(older_than="1d") == 0
        assert await server.workflows.cleanup_all(name="patient", status="cancelled") == 0
        assert await server.workflows.cleanup_all(name="patient") == 3
        assert await server.workflows.cleanup_all() == 4
        assert await server.workflows.get_all_instances() == []
        assert await server.events.history("*") == []


async def test_cleanup_takes_everything_of_an_instance_that_has_ended():
    @flow("messy")
    async def messy(ctx):
        ctx.log("info", "x")
        await ctx.emit("x")
        await ctx.wait_event("go")

    async with paddock.testing.server(register=[messy]) as server:
        ident, other = [await server.workflows.start(messy) for _ in range(2)]
        await suspended(server, ident, "waiting")
        with pytest.raises(InvalidTransition):
            await server.workflows.cleanup(ident)
        await server.workflows.signal(ident, "go")
        await ended(server, ident)
        await server.workflows.cleanup(ident)
        assert await server.workflows.get_instance(ident) is None
        with pytest.raises(InstanceNotFound):
            await server.events.history("*", instance_id=ident)
        assert [line for line in await server.logs.query() if line.instance_id == ident] == []
        assert await server.logs.query(instance_id=other) != []
        with pytest.raises(InstanceNotFound):
            await server.workflows.cleanup(ident)


async def test_metadata_merges_and_is_validated():
    @flow("tagged")
    async def tagged(ctx):
        await ctx.step("set", lambda ctx: ctx.instance.metadata)
        await ctx.wait_event("go")
        return ctx.get_metadata("b")

    async with paddock.testing.server(register=[tagged]) as server:
        ident = await server.workflows.start(tagged, metadata={"a": 1})
        await suspended(server, ident, "waiting")
        await server.workflows.update_metadata(ident, {"b": [2], "c": None})
        with pytest.raises(InvalidInput):
            await server.workflows.update_metadata(ident, {"d": object()})
        with pytest.raises(InvalidInput):
            await server.workflows.update_metadata(ident, {3: 1})
        with pytest.raises(InstanceNotFound):
            await server.workflows.update_metadata("nobody", {})
        await server.workflows.signal(ident, "go")
        instance = await ended(server, ident)
    assert instance.output == [2]
    assert instance.metadata == {"a": 1, "b": [2], "c": None}


async def test_update_state_of_what_is_no_state_machine():
    async with paddock.testing.server(register=[pausing]) as server:
        ident = await server.workflows.start(pausing, delay="1000d", id="later")
        with pytest.raises(InvalidState, match="no state machine"):
            await server.workflows.update_state(ident, {"x": 1})
        with pytest.raises(InstanceNotFound):
            await server.workflows.update_state("nobody", {"x": 1})


# --- what is under way at the end ---


async def test_what_is_under_way_when_an_instance_ends_is_over():
    @flow("cut-short", timeout="1h")
    async def cut_short(kind, ctx):
        async def hang():
            await asyncio.sleep(600 if kind == "step" else 0)
            raise ValueError("once more")

        async def strand():
            await ctx.sleep("nap", "30d")

        beside = asyncio.create_task(strand())
        if kind == "loser":
            await ctx.step("winner", value)
            beside.cancel()
            return
        await ctx.step("work", hang, retry=Retry(max_attempts=9, interval="20d"))

    async with paddock.testing.server(register=[cut_short]) as server:
        held = await server.workflows.start(cut_short, "step")
        await until(server, "workflow.step.started", held, where=lambda event: event.data["step"] == "work")
        await server.workflows.cancel(held)
        instance = await ended(server, held)
        assert {key: step.status for key, step in instance.step_results.items()} == dict.fromkeys(
            ("nap", "work"), "cancelled"
        )
        assert all(step.completed_at for step in instance.step_results.values())
        late = await ended(server, await server.workflows.start(cut_short, "retry"))
        assert late.status == "timed_out"
        assert {step.status for step in late.step_results.values()} == {"cancelled"}
        race = await ended(server, await server.workflows.start(cut_short, "loser"))
        assert race.status == "completed"
        assert race.step_results["winner"].status == "completed"
        assert race.step_results["nap"].status == "cancelled"


async def test_a_retry_goes_on_with_what_was_under_way():
    sick = ["yes"]

    @flow("two-things")
    async def two_things(ctx):
        async def fail_once():
            if sick:
                raise ValueError(sick.pop())
            return "well"

        nap = asyncio.create_task(ctx.wait_event("go"))
        found = await ctx.step("fails", fail_once)
        return [found, await nap]

    async with paddock.testing.server(register=[two_things]) as server:
        ident = await server.workflows.start(two_things)
        assert (await ended(server, ident)).status == "failed"
        await server.workflows.retry(ident)
        await suspended(server, ident, "waiting", "go")
        await server.workflows.signal(ident, "go", 5)
        assert (await ended(server, ident)).output == ["well", 5]


async def test_a_retry_takes_along_what_the_instance_has_waited_for():
    sick, calls = ["inner", "inner"], []

    @flow("inner-part")
    async def inner_part(ctx):
        async def work():
            if sick:
                raise ValueError(sick.pop())
            return "well"

        calls.append("inner")
        return await ctx.step("work", work)

    @flow("outer-part")
    async def outer_part(ctx):
        first = await ctx.start(inner_part)
        return await ctx.wait_for(first)

    @flow("outermost")
    async def outermost(ctx):
        return await ctx.wait_for(await ctx.start(outer_part))

    async with paddock.testing.server(register=[inner_part, outer_part, outermost]) as server:
        ident = await server.workflows.start(outermost)
        assert (await ended(server, ident)).error.message.endswith("inner")
        last = await until(server, "workflow.failed", ident)
        await server.workflows.retry(ident)
        await until(server, "workflow.failed", ident, after=last.id)
        assert await server.workflows.retry_all() == 1, "the others were retried with it"
        assert (await ended(server, ident)).output == "well"
        everybody = await server.workflows.get_all_instances()
    assert [one.status for one in everybody] == ["completed"] * 3
