"""Awaits of the user's own beside durable waits: they are work, so nothing suspends under them; and nothing else holds a process."""

import asyncio
import threading

import pytest
from contractkit import DEADLINE, until
from flowkit import ended, run, suspended

import paddock.testing
from paddock import flow


def value(x):
    return x


async def in_task_group(*work):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]


async def by_wait(*work):
    tasks = [asyncio.ensure_future(one) for one in work]
    await asyncio.wait(tasks)
    return [task.result() for task in tasks]


async def one_by_one(*work):
    tasks = [asyncio.create_task(one) for one in work]
    return [await task for task in tasks]


async def shielded(*work):
    return await asyncio.shield(asyncio.gather(*work))


async def as_they_come(*work):
    return sorted([await one for one in asyncio.as_completed(work)])


async def with_limit(*work):
    return await asyncio.wait_for(in_task_group(*work), 60)


WAYS = [in_task_group, by_wait, one_by_one, shielded, as_they_come, with_limit, asyncio.gather]


@pytest.mark.parametrize("together", WAYS, ids=lambda way: way.__name__)
async def test_an_own_await_beside_a_durable_wait_is_never_cut_off(together):
    begun = []

    async def own(ctx):
        begun.append(1)
        await asyncio.sleep(0.3)  # a request, say; longer than any look of the runtime's
        return await ctx.step("own", value, 2)

    @flow("beside")
    async def beside(ctx):
        async def slow():
            await ctx.sleep("long", "30d")
            return 1

        return await together(slow(), own(ctx))

    async with paddock.testing.server(register=[beside]) as server:
        ident = await server.workflows.start(beside)
        instance = await ended(server, ident)
        events = await server.events.history("workflow.*", instance_id=ident, limit=100)
    told = [(event.name, event.data.get("step")) for event in events]
    suspensions = [name for name, _ in told].count("workflow.suspended")
    assert told.index(("workflow.step.completed", "own")) < told.index(("workflow.suspended", None))
    assert list(instance.output) == [1, 2]
    assert (suspensions, instance.executions, begun) == (1, 2, [1, 1]), "once, and once more on the replay"


async def first_by_wait(works):
    done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
    return done.pop()


async def first_as_completed(works):
    return await next(iter(asyncio.as_completed(works)))


@pytest.mark.parametrize("first", [first_by_wait, first_as_completed])
async def test_what_a_library_does_beside_a_durable_wait_is_never_cut_off(first):
    """A future that no task of the flow resolves: a client's, say, with a connection of its own."""

    @flow("beside")
    async def beside(ctx):
        found = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.3, found.set_result, "answered")
        await first([asyncio.create_task(ctx.wait_event("go")), found])
        return found.result()

    instance = await run(beside)
    assert (instance.output, instance.executions) == ("answered", 1)


@pytest.mark.parametrize("asks", [True, False])
async def test_an_instance_that_takes_its_suspension_for_a_result_rests_until_it_is_woken(asks):
    begun = []

    @flow("taken")
    async def taken(ctx):
        begun.append(1)
        await asyncio.gather(ctx.wait_event("go"), ctx.wait_event("on"), return_exceptions=True)
        return await ctx.gather(ctx.step("then", value, 1)) if asks else [1]

    async with paddock.testing.server(register=[taken]) as server:
        ident = await server.workflows.start(taken)
        await suspended(server, ident, "waiting")
        for name in ("go", "on"):
            await server.workflows.signal(ident, name)
        instance = await ended(server, ident)
        events = await server.events.history("workflow.suspended", instance_id=ident, limit=100)
    assert (instance.output, len(begun)) == ([1], len(events) + 1)
    assert len(events) in (1, 2), "it has waited twice where the signals came one by one"


@pytest.mark.parametrize("failing", [False, True], ids=["results", "failures"])
async def test_a_race_of_recorded_steps_comes_out_as_the_first_time(failing):
    """Of tasks that race, a replay lets each come back when it came the first time, alone; also where the clock was set back since."""
    gates = {name: asyncio.Event() for name in ("a", "b", "c")}
    seen = []

    async def contend(name):
        await gates[name].wait()
        if failing:
            raise ValueError(name)
        return name

    @flow("race")
    async def race(ctx):
        pending = {asyncio.create_task(ctx.step(name, contend, name), name=name) for name in gates}
        order = []
        while pending:
            gates["cab"[len(order)]].set()
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            order.append(sorted(task.get_name() for task in done if (task.exception() is not None) is failing))
            server.clock._ahead -= 60
        seen.append(order)
        await ctx.wait_event("go")
        return order

    async with paddock.testing.server(register=[race]) as server:
        ident = await server.workflows.start(race)
        await suspended(server, ident, "waiting", "go")
        await server.workflows.signal(ident, "go")
        instance = await ended(server, ident)
    assert instance.output == [["c"], ["a"], ["b"]]
    assert seen == [instance.output, instance.output]


async def test_a_race_has_the_same_winner_where_it_awaits_something_of_its_own_first():
    seen = []

    @flow("race")
    async def race(ctx):
        async def late():
            await asyncio.sleep(0.1)
            return await ctx.step("a", value, "a")

        async def later():
            await ctx.sleep("rest", "1h")
            return await ctx.step("b", value, "b")

        tasks = [asyncio.create_task(late()), asyncio.create_task(later())]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        seen.append([task.result() for task in done])
        await ctx.wait_event("go")
        return seen[-1]

    async with paddock.testing.server(register=[race]) as server:
        ident = await server.workflows.start(race)
        await suspended(server, ident, "waiting")
        server.clock.advance("2h")
        async with asyncio.timeout(DEADLINE):
            async for event in server.events.subscribe("workflow.step.completed", instance_id=ident, after=0):
                if event.data["step"] == "b":
                    break
        await suspended(server, ident, "waiting", after=event.id)
        await server.workflows.signal(ident, "go")
        instance = await ended(server, ident)
    assert instance.output == ["a"]
    assert seen == [["a"]] * 3


async def test_a_thread_of_a_plain_flow_beside_a_durable_wait_is_work():
    begun = []

    @flow("plain-part")
    def plain_part(ctx):
        begun.append(1)
        threading.Event().wait(0.3)
        return ctx.step("own", value, 2)

    @flow("around")
    async def around(ctx):
        return await ctx.gather(plain_part(None), ctx.sleep("long", "30d"))

    instance = await run(around)
    assert instance.output == [2, None]
    assert begun == [1, 1], "once, and once more on the replay"
    assert instance.executions == 2


async def test_what_a_handler_left_running_holds_no_process():
    """A client's background task, begun in a step, is not part of the flow."""
    left = []

    async def connect():
        left.append(asyncio.create_task(asyncio.sleep(3600)))

    @flow("leaves")
    async def leaves(ctx):
        await ctx.step("connect", connect)
        await ctx.wait_event("go")
        return "gone on"

    async with paddock.testing.server(register=[leaves]) as server:
        ident = await server.workflows.start(leaves)
        await suspended(server, ident, "waiting", "go")
        await server.workflows.signal(ident, "go")
        instance = await ended(server, ident)
        left[0].cancel()
    assert instance.output == "gone on"


async def test_a_replay_waits_for_an_own_await_before_it_calls_a_step_missing():
    """One strand comes to a new step while another is still on its way to what the journal holds."""
    gate = asyncio.Event()

    async def first(ctx):
        await asyncio.sleep(0.1)
        return await ctx.step("first", value, 1)

    async def second(ctx):
        await ctx.wait_event("go")
        return await ctx.step("second", value, 2)

    @flow("uneven")
    async def uneven(ctx):
        found = await in_task_group(first(ctx), second(ctx))
        gate.set()
        return found

    async with paddock.testing.server(register=[uneven]) as server:
        ident = await server.workflows.start(uneven)
        await suspended(server, ident, "waiting", "go")
        await server.workflows.signal(ident, "go")
        instance = await ended(server, ident)
    assert instance.output == [1, 2], instance.error
    assert gate.is_set()


async def test_an_await_of_its_own_in_a_wait_with_a_signal_goes_on_when_the_signal_comes():
    """While one strand works, another takes its signal in the same process."""
    release = asyncio.Event()

    @flow("mixed")
    async def mixed(ctx):
        async def own():
            await release.wait()
            return "released"

        return await in_task_group(ctx.wait_event("go"), own())

    async with paddock.testing.server(register=[mixed]) as server:
        ident = await server.workflows.start(mixed)
        await until(server, "workflow.step.started", ident)
        await server.workflows.signal(ident, "go", 1)
        await until(server, "workflow.step.completed", ident)
        release.set()
        instance = await ended(server, ident)
    assert instance.output == [1, "released"]
    assert instance.executions == 1
