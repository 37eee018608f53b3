"""Code first: signals, other instances, streams, plain functions as flows."""

import asyncio
import os
import threading
from datetime import timedelta

import pytest
from contractkit import DEADLINE, until
from flowkit import ended, outputs, run, suspended
from pydantic import BaseModel

import paddock.testing
from paddock import (
    Context,
    InstanceNotFound,
    InvalidInput,
    InvalidSignal,
    StepFailed,
    WaitTimeout,
    WorkflowCancelled,
    WorkflowFailed,
    action,
    flow,
)


class Verdict(BaseModel):
    ok: bool
    by: str = "nobody"


def double(x: int) -> int:
    return x * 2


# --- signals ---


async def test_an_interrupt_takes_a_typed_signal_and_refuses_others_at_the_door():
    seen = []

    @flow("approval")
    async def approval(ctx):
        verdict = await ctx.interrupt("approve", Verdict, timeout="7d")
        seen.append(verdict)
        await ctx.sleep("pause", "1h")
        return verdict.ok

    async with paddock.testing.server(register=[approval]) as server:
        ident = await server.workflows.start(approval)
        instance = await suspended(server, ident, "waiting")
        assert instance.current_step == "approve"
        for bad, told in (({"ok": "perhaps"}, "ok"), ({}, "ok"), (None, "Verdict"), (3, "Verdict")):
            with pytest.raises(InvalidSignal) as caught:
                await server.workflows.signal(ident, "approve", bad)
            assert "Verdict" in str(caught.value)
            assert told in str(caught.value)
        assert (await server.workflows.get_instance(ident)).status == "waiting"
        await server.workflows.signal(ident, "approve", Verdict(ok=True, by="eve"))
        instance = await ended(server, ident)
        with pytest.raises(InvalidSignal, match="ended as completed"):
            await server.workflows.signal(ident, "approve", {"ok": True})
        with pytest.raises(InvalidSignal, match="ended as completed"):
            await server.workflows.signal(ident, "nobody waits for this", 1)
        with pytest.raises(InstanceNotFound):
            await server.workflows.signal("nobody", "approve", {"ok": True})
    assert instance.output is True
    assert seen == [Verdict(ok=True, by="eve")] * 2


async def test_builtin_types_and_generic_types_are_checked_at_the_door_too():
    @flow("kinds")
    async def kinds(ctx):
        return [
            await ctx.wait_event("number", int),
            await ctx.wait_event("list", list[int]),
            await ctx.wait_event("any"),
        ]

    async with paddock.testing.server(register=[kinds]) as server:
        ident = await server.workflows.start(kinds)
        await suspended(server, ident, "waiting", "number")
        with pytest.raises(InvalidSignal, match="update_state"):
            await server.workflows.signal(ident, "paddock.update_state", {"any": "thing"})
        with pytest.raises(InvalidSignal, match="number"):
            await server.workflows.signal(ident, "number", "many")
        await server.workflows.signal(ident, "number", 5)
        await suspended(server, ident, "waiting", "list")
        with pytest.raises(InvalidSignal, match="list"):
            await server.workflows.signal(ident, "list", [1, "x"])
        await server.workflows.signal(ident, "list", [1, 2])
        await suspended(server, ident, "waiting", "any")
        await server.workflows.signal(ident, "any", {"what": ["ever"]})
        instance = await ended(server, ident)
    assert instance.output == [5, [1, 2], {"what": ["ever"]}]


async def test_early_signals_are_kept_in_order_and_bad_ones_dropped_with_a_warning():
    @flow("early")
    async def early(ctx):
        await ctx.sleep("pause", "1h")
        return [await ctx.wait_event("n", int) for _ in range(3)] + [await ctx.wait_event("other", str)]

    async with paddock.testing.server(register=[early]) as server:
        ident = await server.workflows.start(early, delay="1h")
        for payload in (1, "not a number", 2, None, 3):
            await server.workflows.signal(ident, "n", payload)
        await server.workflows.signal(ident, "other", "x")
        instance = await ended(server, ident)
        warnings = await server.logs.query(instance_id=ident, level="warning")
    assert instance.output == [1, 2, 3, "x"]
    assert len(warnings) == 2
    assert all("dropped" in line.message and line.source == "runtime" for line in warnings)
    assert [line.step_name for line in warnings] == ["n", "n"]


async def test_two_waits_of_one_name_take_signals_in_their_order():
    @flow("pair")
    async def pair(ctx):
        return await ctx.gather(ctx.wait_event("n", int), ctx.wait_event("n", int))

    async with paddock.testing.server(register=[pair]) as server:
        ident = await server.workflows.start(pair)
        await suspended(server, ident, "waiting")
        for n in (1, 2):
            await server.workflows.signal(ident, "n", n)
        instance = await ended(server, ident)
    assert sorted(instance.output) == [1, 2]


async def test_a_signal_that_races_with_the_suspension_wakes_the_instance():
    @flow("racing")
    async def racing(ctx):
        return [await ctx.wait_event("n", int) for _ in range(40)]

    async with paddock.testing.server(register=[racing]) as server:
        ident = await server.workflows.start(racing)
        for n in range(40):  # now and then right when it gives its process back
            await asyncio.sleep(0.001 * (n % 30))
            await server.workflows.signal(ident, "n", n)
        instance = await ended(server, ident)
    assert instance.output == list(range(40))


# --- other instances ---


@flow("doubled")
async def doubled(x: int, ctx: Context) -> int:
    await ctx.sleep("a while", "1h")
    return x * 2


@flow("sick")
async def sick(ctx):
    await ctx.step("break", lambda: 1 / 0)


async def test_start_and_wait_for_one_a_list_and_an_id():
    @flow("parent")
    async def parent(ctx):
        first = await ctx.start(doubled, 1)
        many = [await ctx.start("doubled", n) for n in (2, 3)]
        named = await ctx.start(doubled, 4, id="a-name", delay="2h", priority=3)
        return {
            "one": await ctx.wait_for(first),
            "many": await ctx.wait_for(many),
            "id": await ctx.wait_for("a-name"),
            "mixed": await ctx.wait_for([first, named.id]),
            "ids": [first.id, named.id],
        }

    async with paddock.testing.server(register=[parent, doubled]) as server:
        ident = await server.workflows.start(parent, priority=1)
        instance = await ended(server, ident)
        children = await server.workflows.get_instances("doubled")
        named = await server.workflows.get_instance("a-name")
    assert instance.status == "completed", instance.error
    assert instance.output["one"] == 2
    assert instance.output["many"] == [4, 6]
    assert instance.output["id"] == 8
    assert instance.output["mixed"] == [2, 8]
    assert len(children) == 4
    assert {child.parent_id for child in children} == {ident}
    assert sorted(child.priority for child in children) == [1, 1, 1, 3]
    assert named.completed_at - named.created_at >= timedelta(hours=3)


async def test_a_child_of_a_typed_flow_gives_a_typed_result():
    seen = []

    @flow("judge")
    async def judge(x: int) -> Verdict:
        return Verdict(ok=bool(x))

    @flow("court")
    async def court(ctx):
        handle = await ctx.start(judge, 1)
        seen.append(await ctx.wait_for(handle))
        await ctx.sleep("pause", "1h")
        return handle.id

    instance = await run(court, None, judge)
    assert instance.status == "completed", instance.error
    assert seen == [Verdict(ok=True)] * 2


async def test_a_failed_child_raises_the_same_at_every_replay():
    seen = []

    @flow("parent-of-sick")
    async def parent(ctx):
        child = await ctx.start(sick)
        try:
            await ctx.wait_for(child)
        except WorkflowFailed as error:
            seen.append((error.instance_id == child.id, error.workflow_name, error.error.type, error.error.step))
        await ctx.sleep("pause", "1h")
        return "went on"

    instance = await run(parent, None, sick)
    assert instance.output == "went on", instance.error
    assert seen == [(True, "sick", "ZeroDivisionError", "break")] * 2


async def test_a_failed_child_that_nobody_catches_fails_its_parent():
    @flow("careless-parent")
    async def parent(ctx):
        return await ctx.wait_for([await ctx.start(sick), await ctx.start(doubled, 1)])

    instance = await run(parent, None, sick, doubled)
    assert instance.status == "failed"
    assert instance.error.type == "WorkflowFailed"
    assert "ZeroDivisionError" in instance.error.message
    assert instance.error.step == "wait for sick"


async def test_a_cancelled_child_and_a_child_that_is_not_there():
    @flow("bereft")
    async def bereft(ctx):
        found = []
        child = await ctx.start(doubled, 1, id="the-child", delay="300d")
        try:
            await ctx.wait_for(child)
        except WorkflowCancelled as error:
            found.append(error.instance_id)
        try:
            await ctx.wait_for("nobody")
        except StepFailed as error:
            found.append(error.type)
        return found

    async with paddock.testing.server(register=[bereft, doubled]) as server:
        server.clock.advance(0)
        ident = await server.workflows.start(bereft)
        await until(server, "workflow.step.started", ident, where=lambda event: event.data["step_type"] == "wait_for")
        await server.workflows.cancel("the-child")
        instance = await ended(server, ident)
    assert instance.output == ["the-child", "InvalidInput"]


async def test_a_child_id_that_is_taken_is_a_step_failure_unless_it_is_the_same_start():
    @flow("second-parent")
    async def parent(ctx):
        same = await ctx.start(doubled, 1, id="taken")
        try:
            await ctx.start(doubled, 2, id="taken")
        except StepFailed as error:
            return [same.id, error.type]
        return "no error"

    async with paddock.testing.server(register=[parent, doubled]) as server:
        await server.workflows.start(doubled, 1, id="taken")
        instance = await ended(server, await server.workflows.start(parent))
    assert instance.status == "completed", instance.error
    assert instance.output == ["taken", "InstanceIdConflict"]


async def test_start_refuses_what_cannot_be():
    @flow("wrong-starts")
    async def wrong(ctx):
        found = []
        for what, value in ((doubled, "no number"), (3, None)):
            try:
                await ctx.start(what, value)
            except InvalidInput as error:
                found.append(str(error)[:30])
        return len(found)

    instance = await run(wrong, None, doubled)
    assert instance.output == 2, instance.error


async def test_an_isolated_action_is_an_instance_of_its_own():
    calls = []

    @action("crunch")
    def crunch(n: int) -> Verdict:
        calls.append(n)
        return Verdict(ok=True, by=str(n))

    @flow("cruncher")
    async def cruncher(ctx):
        found = await ctx.gather(*(ctx.run_action(crunch, n, isolated=True) for n in range(3)))
        assert all(isinstance(one, Verdict) for one in found)
        return [one.by for one in found]

    async with paddock.testing.server(register=[cruncher]) as server:
        ident = await server.workflows.start(cruncher)
        instance = await ended(server, ident)
        inner = await server.workflows.get_instances("action:crunch")
    assert instance.output == ["0", "1", "2"], instance.error
    assert sorted(calls) == [0, 1, 2]
    assert {one.parent_id for one in inner} == {ident}
    assert list(outputs(instance)) == ["crunch", "crunch#2", "crunch#3"]


# --- streams ---


async def _read(stream):
    return [chunk async for chunk in stream]


async def test_chunks_come_in_order_to_every_reader_and_no_replay_repeats_them():
    async def talk(ctx: Context):
        for n in range(3):
            await ctx.stream({"step": n})

    @flow("talker")
    async def talker(ctx):
        await ctx.stream("first")
        await ctx.step("talk", talk)
        await ctx.sleep("pause", "1h")
        for n in range(2):
            await ctx.stream(n)
        await ctx.sleep("pause", "1h")
        await ctx.stream(None)
        return "said"

    async with paddock.testing.server(register=[talker]) as server:
        stream = server.workflows.stream(talker)
        ident = await stream.id()
        async with asyncio.timeout(DEADLINE):
            first, second = await asyncio.gather(_read(stream), _read(server.workflows.follow(ident)))
            late = await _read(server.workflows.follow(ident))
            assert await stream.result() == "said"
        events = await server.events.history("workflow.stream", instance_id=ident)
    assert first == ["first", {"step": 0}, {"step": 1}, {"step": 2}, 0, 1, None]
    assert second == late == first
    assert [event.data["index"] for event in events] == list(range(7))


async def test_a_crash_repeats_no_chunk(monkeypatch):
    async def talk(ctx: Context):
        for n in range(3):
            await ctx.stream(n)

    @flow("crashing-talker")
    async def talker(ctx):
        await ctx.stream("a")
        await ctx.step("talk", talk)
        await ctx.stream("b")
        return "said"

    from paddock.runtime.testing import crashes

    found = []
    essence = crashes._essence
    monkeypatch.setattr(crashes, "_essence", lambda instance: found.append(instance.id) or essence(instance))
    stop = crashes.MemoryServer.stop

    async def stop_and_look(self):
        events = await self.events.history("workflow.stream", limit=100)
        chunks.append([(event.data["index"], event.data["chunk"]) for event in events])
        await stop(self)

    chunks = []
    monkeypatch.setattr(crashes.MemoryServer, "stop", stop_and_look)
    report = await paddock.testing.crash_everywhere(talker)
    assert report, report.differences
    assert len(chunks) == 1 + 2 * report.points
    assert all(one == list(enumerate(["a", 0, 1, 2, "b"])) for one in chunks), chunks


async def test_strands_that_use_the_same_names_keep_their_identity():
    """They finish in another order after a resume than the first time; each has its own steps, values and chunks all the same."""
    ran, seen = [], []

    @flow("same-names")
    async def same(ctx):
        async def strand(n):
            for turn in range(3):
                await ctx.sleep("nap", f"{(n * 7 + turn * 5) % 4 + 1}h")
                drawn = ctx.random()
                await ctx.step("work", lambda n=n, turn=turn: ran.append((n, turn)))
                await ctx.stream([n, turn])
                await ctx.emit("turned", [n, turn])
                seen.append((n, turn, drawn))
            return await inner(n)

        return await ctx.gather(*(strand(n) for n in range(4)))

    @flow("inner-names")
    async def inner(n: int, ctx):
        return await ctx.gather(*(part(ctx, n * 10 + m) for m in range(2)))

    async def part(ctx, n):
        await ctx.sleep("nap", f"{5 - n % 3}h")
        return await ctx.step("double", double, n)

    async with paddock.testing.server(register=[same]) as server:
        stream = server.workflows.stream(same)
        async with asyncio.timeout(DEADLINE):
            chunks = await _read(stream)
        instance = await ended(server, await stream.id())
        events = await server.events.history("workflow.event")
    turns = sorted((n, turn) for n in range(4) for turn in range(3))
    assert instance.output == [[n * 20, n * 20 + 2] for n in range(4)], instance.error
    assert sorted(ran) == turns
    assert sorted(map(tuple, chunks)) == turns
    assert sorted(tuple(event.data["data"]) for event in events) == turns
    assert len(set(seen)) == 12, "the same values at every replay"
    assert len(seen) > 12
    assert {"gather/2/work#3", "gather/3/inner-names/gather/1/double"} <= set(instance.step_results)


async def test_a_stream_of_a_failure_ends_and_its_result_raises():
    @flow("choking")
    async def choking(ctx):
        await ctx.stream(1)
        raise ValueError("no")

    async with paddock.testing.server(register=[choking]) as server:
        stream = server.workflows.stream(choking)
        async with asyncio.timeout(DEADLINE):
            assert await _read(stream) == [1]
            with pytest.raises(WorkflowFailed):
                await stream.result()


# --- plain functions as flows ---


async def test_a_plain_function_is_a_flow_whose_context_blocks():
    threads, seen, tries = set(), [], []

    async def slow(x):
        await asyncio.sleep(0)
        return x + 1

    def flaky(ctx: Context):
        tries.append(ctx.attempt)
        if ctx.attempt < 2:
            raise ValueError("no")
        return ctx.attempt

    @action("upper")
    def upper(text: str) -> str:
        return text.upper()

    @flow("plain")
    def plain(verdict: Verdict, ctx: Context) -> Verdict:
        threads.add(threading.current_thread() is threading.main_thread())
        values = [ctx.now(), ctx.random(), ctx.uuid4(), ctx.rng.random(), ctx.patched("x")]
        a = ctx.step("slow", slow, 1)
        b = ctx.step("double", double, a)
        c = ctx.step("flaky", flaky, retry={"max_attempts": 2, "interval": "2h"})
        ctx.sleep("pause", "30d")
        d = ctx.run_action(upper, "x")
        e = ctx.poll("ready", lambda ctx: ctx.attempt > 1 and ctx.attempt, every="1h")
        f = ctx.wait_event("go", Verdict)
        assert isinstance(f, Verdict)
        try:
            ctx.wait_event("never", timeout="1min")
        except WaitTimeout:
            pass
        g = ctx.wait_for(ctx.start(doubled, 5))
        h = ctx.gather(lambda: ctx.step("x", double, 1), lambda: ctx.step("x", double, 2), lambda: ctx.sleep("y", "1h"))
        ctx.stream(a)
        ctx.set_metadata("a", a)
        ctx.emit("said", a)
        ctx.log("info", "all done")
        try:
            ctx.step("broken", lambda: 1 / 0)
        except StepFailed as error:
            i = [error.type, error.attempts]
        seen.append(values)
        return Verdict(ok=verdict.ok, by=repr([a, b, c, d, e, f.by, g, h, i]))

    async with paddock.testing.server(register=[plain, doubled]) as server:
        ident = await server.workflows.start(plain, {"ok": True})
        await server.workflows.signal(ident, "go", {"ok": True, "by": "eve"})
        await suspended(server, ident, "waiting", "never")
        server.clock.advance("1h")
        instance = await ended(server, ident)
        chunks = await _read(server.workflows.follow(ident))
        logs = await server.logs.query(instance_id=ident)
        events = await server.events.history("workflow.event", instance_id=ident)
    assert instance.status == "completed", instance.error
    assert instance.output == {
        "ok": True,
        "by": repr([2, 4, 2, "X", 2, "eve", 10, [2, 4, None], ["ZeroDivisionError", 1]]),
    }
    assert threads == {False}
    assert tries == [1, 2]
    assert instance.executions >= 6
    assert chunks == [2]
    assert instance.metadata == {"a": 2}
    assert len(events) == 1
    assert [line.message for line in logs if line.source == "handler"] == ["all done"]


async def test_a_plain_flow_can_be_cancelled_and_called_and_nested():
    entered = asyncio.Event()

    async def forever():
        entered.set()
        await asyncio.Event().wait()

    swallowed = []

    @flow("stubborn")
    def stubborn(ctx):
        while True:
            try:
                ctx.step("forever", forever)
            except Exception as error:  # noqa: BLE001
                swallowed.append(error)

    @flow("inner-plain")
    def inner(x: int, ctx) -> int:
        return ctx.step("double", double, x)

    @flow("inner-async")
    async def inner_async(x: int, ctx) -> int:
        return await ctx.step("double", double, x)

    @flow("outer-plain")
    def outer(x: int, ctx) -> list[int]:
        return [inner(x), inner_async(x + 1), ctx.step("double", double, 0)]

    @flow("outer-async")
    async def outer_async(x: int, ctx):
        return [await inner(x), await inner_async(x), *await ctx.gather(inner(5), inner_async(6))]

    async with paddock.testing.server(register=[stubborn, outer, outer_async]) as server:
        ident = await server.workflows.start(stubborn)
        async with asyncio.timeout(DEADLINE):
            await entered.wait()
            assert await server.workflows.cancel(ident)
        assert await server.workflows.run(outer, 3, timeout=DEADLINE) == [6, 8, 0]
        assert await server.workflows.run(outer_async, 1, timeout=DEADLINE) == [2, 2, 10, 12]
    assert swallowed == []
    assert await inner(4) == 8
    assert await outer(4) == [8, 10, 0]


async def test_a_plain_flow_refuses_a_gather_that_cannot_work():
    @flow("bad-gather")
    def bad(ctx):
        found = []
        for parts in ([1], [lambda: 1], [lambda: [ctx.step("a", double, 1), ctx.step("b", double, 1)]]):
            try:
                ctx.gather(*parts)
            except InvalidInput:
                found.append("refused")
        return found

    instance = await run(bad)
    assert instance.output == ["refused"] * 3, instance.error


async def test_crashes_of_a_plain_flow_change_nothing():
    @flow("plain-crashes")
    def plain(ctx):
        first = ctx.step("a", double, 1)
        both = ctx.gather(lambda: ctx.step("b", double, first), lambda: ctx.step("c", double, 3))
        ctx.sleep("pause", "1h")
        return [first, both, ctx.step("d", os.path.basename, "/x/y")]

    report = await paddock.testing.crash_everywhere(plain)
    assert report.outcome == [2, [4, 6], "y"]
    assert report, report.differences


async def test_chunks_have_the_type_that_the_flow_names():
    async def talk(ctx: Context):
        await ctx.stream(Verdict(ok=False))

    @flow("inner")
    async def inner(ctx):
        await ctx.stream({"ok": True, "by": "inner"})

    @flow("typed", stream=Verdict)
    async def typed(ctx):
        await ctx.stream({"ok": True, "by": "eve"})
        await ctx.step("talk", talk)
        await inner()
        for wrong in ({"ok": "perhaps"}, "text", None):
            try:
                await ctx.stream(wrong)
            except InvalidInput as error:
                ctx.log("info", str(error))
        return "done"

    async with paddock.testing.server(register=[typed]) as server:
        stream = server.workflows.stream(typed)
        chunks = await _read(stream)
        logs = await server.logs.query(instance_id=await stream.id())
        followed = await _read(server.workflows.follow(await stream.id()))
    assert chunks == followed == [Verdict(ok=True, by="eve"), Verdict(ok=False), Verdict(ok=True, by="inner")]
    assert [line.message.partition(":")[0] for line in logs] == ["a stream chunk does not fit Verdict"] * 3
