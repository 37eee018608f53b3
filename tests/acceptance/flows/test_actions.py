"""Actions in processes of their own, from a flow and as jobs of a graph: how they are tried, what they see, how they fail."""

import asyncio

import pytest
from contractkit import until
from flowkit import ended, outputs, run

import paddock.testing
from paddock import Context, InvalidWorkflow, Retry, StepFailed, action, branch, flow, workflow

TRIES: list[tuple[int, str]] = []


@pytest.fixture(autouse=True)
def _forget():
    TRIES.clear()


class Busy(ConnectionError):
    pass


@action("third-time")
def third_time(n: int, ctx: Context) -> int:
    """Work at the third try."""
    TRIES.append((ctx.attempt, ctx.idempotency_key.partition(":")[2]))
    if ctx.attempt < 3:
        raise Busy(f"try {ctx.attempt}")
    return n * 2


@action("no-input")
def no_input(ctx: Context) -> str:
    return ctx.idempotency_key.partition(":")[2]


@pytest.mark.parametrize("isolated", [False, True])
async def test_an_action_is_tried_as_its_caller_says(isolated):
    @flow("caller")
    async def caller(n: int, ctx):
        policy = Retry(max_attempts=3, interval="1h", retry_on=[ConnectionError])
        return await ctx.run_action(third_time, n, isolated=isolated, retry=policy)

    instance = await run(caller, 4)
    assert instance.output == 8, instance.error
    assert TRIES == [(1, "third-time"), (2, "third-time"), (3, "third-time")]
    assert (instance.completed_at - instance.started_at).total_seconds() >= 3 * 3600


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("retry_on", [[TimeoutError], ["no such text"]])
async def test_an_error_that_the_policy_does_not_name_is_final(isolated, retry_on):
    @flow("caller")
    async def caller(n: int, ctx):
        await ctx.run_action(third_time, n, isolated=isolated, retry={"max_attempts": 3, "retry_on": retry_on})

    instance = await run(caller, 4)
    assert (instance.status, instance.error.type, instance.error.message) == ("failed", "Busy", "try 1")
    assert len(TRIES) == 1


@pytest.mark.parametrize("isolated", [False, True])
async def test_a_flow_catches_the_action_s_own_failure_and_a_replay_the_same(isolated):
    @flow("caller")
    async def caller(ctx):
        try:
            await ctx.run_action(third_time, 1, isolated=isolated, retry=2)
        except StepFailed as failed:
            caught = [failed.step, failed.type, failed.message, failed.attempts]
        await ctx.sleep("so that it replays", "1d")
        return caught

    instance = await run(caller)
    assert instance.output == ["third-time", "Busy", "try 2", 2], instance.error


async def test_an_exception_type_that_stands_in_a_function_goes_by_its_name():
    class Local(Exception):
        pass

    @action("local-failure")
    def local_failure(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise Local("once")
        return ctx.attempt

    @flow("caller")
    async def caller(ctx):
        return await ctx.run_action(local_failure, isolated=True, retry=Retry(max_attempts=2, retry_on=[Local]))

    assert (await run(caller)).output == 2


async def test_an_isolated_action_without_input_and_its_key():
    @flow("caller")
    async def caller(ctx):
        return await ctx.run_action("no-input", isolated=True)

    assert (await run(caller)).output == "no-input"


async def test_an_action_may_run_by_itself():
    async with paddock.testing.server() as server:
        server.workflows.registry.add_actions()  # as a round of the dispatcher does
        server.workflows.register(third_time, max_concurrent=1)
        ident = await server.workflows.start(third_time, 3)
        instance = await ended(server, ident)
    assert (instance.workflow_name, instance.status, instance.error.type) == ("action:third-time", "failed", "Busy")


# --- as jobs of a graph ---


async def test_a_job_is_tried_by_its_own_policy_or_the_default():
    built = (
        workflow("jobs")
        .default_retry(max_attempts=3, interval="1h")
        .task("by default", job="third-time", input=lambda prev, given: given)
        .parallel("side", branches=[branch("in branch").task("job", job="third-time")])
        .task("own", job="third-time", input=lambda prev, given: given, retry={"interval": "1s"})
        .build()
    )
    instance = await run(built, 5)
    assert outputs(instance) == {
        "by default": 10,
        "side": {"in branch": 10},
        "side/in branch/job": 10,
        "own": 10,
    }, instance.error
    assert len(TRIES) == 9


async def test_a_job_without_a_retry_fails_at_once():
    built = workflow("jobs").task("once", job="third-time").build()
    instance = await run(built, 5)
    assert (instance.status, instance.error.step, instance.error.type) == ("failed", "once", "Busy")
    with pytest.raises(InvalidWorkflow, match="jobs.*once"):
        workflow("jobs").task("once", job="third-time", retry={"max_attempts": 0}).build()


async def test_a_job_s_input_comes_from_the_context_and_its_output_is_transformed():
    def given(ctx: Context) -> int:
        return ctx.steps["first"] + ctx.input

    built = (
        workflow("jobs")
        .task("first", lambda n: n + 1)
        .pass_("between", result="not this")
        .task(
            "job",
            job="third-time",
            retry=3,
            input=given,
            output=lambda result, ctx: {"result": result, "first": ctx.steps["first"]},
        )
        .task("plain", job="third-time", retry=3, input=lambda prev, ctx: prev["result"], output=lambda result: -result)
        .task("after", lambda value: value, input=lambda prev: prev)
        .build()
    )
    instance = await run(built, 2)
    assert outputs(instance)["job"] == {"result": 10, "first": 3}, instance.error
    assert instance.output == -20


async def test_a_crash_anywhere_around_a_job_changes_nothing():
    built = workflow("jobs").task("job", job="third-time", retry=3, output=lambda result: [result]).build()
    report = await paddock.testing.crash_everywhere(built, 2)
    assert report, report.differences
    assert report.outcome == [4]


async def test_a_transformation_that_raises_fails_the_job():
    built = workflow("jobs").task("job", job="no-input", output=lambda result: result["nothing"]).build()
    instance = await run(built)
    assert (instance.status, instance.error.step, instance.error.type) == ("failed", "job", "TypeError")


async def test_a_timeout_holds_for_an_action_elsewhere():
    @action("forever")
    async def forever() -> None:
        await asyncio.Event().wait()

    @flow("caller")
    async def caller(ctx):
        await ctx.run_action(forever, isolated=True, timeout="10ms")

    instance = await run(caller)
    assert (instance.status, instance.error.step, instance.error.type) == ("failed", "forever", "StepTimeout")


async def test_retry_of_the_caller_runs_the_action_anew():
    @flow("caller")
    async def caller(n: int, ctx):
        return await ctx.run_action(third_time, n, isolated=True, retry=2)

    async with paddock.testing.server(register=[caller]) as server:
        ident = await server.workflows.start(caller, 1)
        assert (await ended(server, ident)).status == "failed"
        last = await until(server, "workflow.failed", ident)
        await server.workflows.retry(ident)
        await until(server, "workflow.failed", ident, after=last.id)
    assert len(TRIES) == 4


# --- streams ---


@action("talks")
async def talks(n: int, ctx: Context) -> int:
    for word in ("one", "two")[:n]:
        await ctx.stream(word)
    if ctx.attempt == 1:
        raise Busy("once more")
    await ctx.stream("again")
    return n


async def test_an_action_elsewhere_streams_to_its_caller():
    @flow("caller")
    async def caller(ctx):
        await ctx.stream("before")
        await ctx.run_action(talks, 2, isolated=True, retry=Retry(max_attempts=2, interval="1h"))
        await ctx.stream("between")
        await ctx.sleep("so that it replays", "1d")
        await ctx.run_action(talks, 0, isolated=True, retry=2)
        await ctx.stream("after")

    async with paddock.testing.server(register=[caller]) as server:
        stream = server.workflows.stream(caller)
        chunks = [chunk async for chunk in stream]
        told = await server.events.history("workflow.stream", instance_id=await stream.id())
        (inner, _) = await server.workflows.get_instances("action:talks")
        own = [chunk async for chunk in server.workflows.follow(inner.id)]
    assert chunks == ["before", "one", "two", "again", "between", "again", "after"]
    assert [event.data["index"] for event in told] == list(range(7))
    assert [event.data.get("step") for event in told] == [None, *["talks"] * 3, None, "talks#2", None]
    assert own == ["one", "two", "again"]


async def test_a_job_streams_too_and_a_child_workflow_does_not():
    @flow("other")
    async def other(ctx):
        await ctx.stream("not for you")

    built = workflow("jobs").task("job", job="talks", retry=2, input=lambda: 1).child("child", other).build()
    async with paddock.testing.server(register=[built, other]) as server:
        stream = server.workflows.stream(built)
        assert [chunk async for chunk in stream] == ["one", "again"]
        await stream.result()


async def test_chunks_of_an_action_come_once_wherever_it_crashes():
    @flow("caller")
    async def caller(ctx):
        await ctx.run_action(talks, 1, isolated=True, retry=2)
        await ctx.stream("after")

    report = await paddock.testing.crash_everywhere(caller)
    assert report, report.differences


@pytest.mark.parametrize("step", ["job", "child"])
async def test_a_schema_on_a_step_elsewhere_checks_the_workflows_input(step):
    kid = workflow("checked-kid").task("k", lambda given: given).build()
    made = workflow("checked").pass_("first", result=None)
    made = (
        made.child("c", kid, input=list[int]) if step == "child" else made.task("c", job="never-run", input=list[int])
    )
    instance = await run(made.build(), ["one"], kid)
    assert (instance.status, instance.error.type, instance.error.step) == ("failed", "InvalidInput", "c")


# --- side by side ---


async def test_the_chunks_of_actions_side_by_side_have_numbers_of_their_own():
    @flow("choir")
    async def choir(ctx):
        await ctx.stream("first")
        await ctx.gather(*(ctx.run_action(sings, n, isolated=True) for n in range(3)), hums(ctx))
        await ctx.stream("last")

    async def hums(ctx):
        for _ in range(4):
            await ctx.stream("hum")
            await ctx.step("breathe", asyncio.sleep, 0)

    async with paddock.testing.server(register=[choir]) as server:
        ident = await server.workflows.start(choir)
        assert (await ended(server, ident)).status == "completed"
        told = await server.events.history("workflow.stream", instance_id=ident)
    assert [event.data["index"] for event in told] == list(range(1 + 3 * 3 + 4 + 1))
    assert (told[0].data["chunk"], told[-1].data["chunk"]) == ("first", "last")


@action("sings")
async def sings(n: int, ctx: Context) -> None:
    for note in range(3):
        await ctx.stream([n, note])


# --- what nobody has registered ---


async def test_a_workflow_that_is_not_registered_is_refused_where_it_is_started():
    @flow("lonely")
    async def lonely(ctx):
        try:
            await ctx.start("nobody-knows-it", 1)
        except StepFailed as error:
            return [error.type, error.message]

    graph = workflow("lonely-graph").child("kid", "nobody-knows-it").build()
    async with paddock.testing.server(register=[lonely, graph]) as server:
        kind, message = await server.workflows.run(lonely)
        assert kind == "WorkflowNotFound"
        assert "no workflow 'nobody-knows-it' is registered" in message
        instance = await ended(server, await server.workflows.start(graph))
        assert (instance.status, instance.error.type, instance.error.step) == ("failed", "WorkflowNotFound", "kid")
        assert await server.workflows.get_instances("nobody-knows-it") == []
