"""Code first: steps, their types, their failures, and what a replay makes of them."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from contractkit import DEADLINE
from flowkit import ended, outputs, run, suspended
from pydantic import BaseModel

import paddock.testing
from paddock import (
    Context,
    InterruptError,
    NotSerializable,
    PayloadTooLarge,
    Poll,
    Retry,
    StepFailed,
    WaitTimeout,
    WorkflowBlocked,
    WorkflowFailed,
    action,
    flow,
)


class User(BaseModel):
    name: str
    born: datetime = datetime(2000, 1, 1, tzinfo=UTC)


class Account(BaseModel):
    id: int
    owner: User


async def create(user: User) -> Account:
    return Account(id=7, owner=user)


def double(x: int) -> int:
    return x * 2


async def test_a_name_may_be_used_more_than_once():
    calls = []

    def note(x):
        calls.append(x)
        return x

    @flow("again")
    async def again(ctx):
        found = [await ctx.step("note", note, n) for n in range(3)]
        await ctx.sleep("pause", "1h")
        return found + [await ctx.step("note", note, 3)]

    instance = await run(again)
    assert instance.output == [0, 1, 2, 3]
    assert calls == [0, 1, 2, 3]
    assert outputs(instance) == {"note": 0, "note#2": 1, "note#3": 2, "pause": None, "note#4": 3}
    assert [step.step_name for step in instance.step_results.values() if step.kind == "step"] == ["note"] * 4


async def test_results_are_typed_the_first_time_and_on_the_replay():
    seen = []

    @flow("typed")
    async def typed(user: User, ctx: Context) -> Account:
        account = await ctx.step("create", create, user)
        plain = await ctx.step("plain", lambda: (1, datetime(2020, 1, 1, tzinfo=UTC)))
        asked = await ctx.step("asked", lambda: {"id": 1, "owner": {"name": "x"}}, output=Account)
        seen.append((user, account, plain, asked))
        await ctx.sleep("pause", "1h")
        return account

    async with paddock.testing.server(register=[typed]) as server:
        result = await server.workflows.run(typed, {"name": "bob"})
    assert len(seen) == 2
    assert seen[0] == seen[1]
    user, account, plain, asked = seen[0]
    assert (type(user), type(account), type(asked)) == (User, Account, Account)
    assert account.owner.born == datetime(2000, 1, 1, tzinfo=UTC)
    assert plain == [1, "2020-01-01T00:00:00Z"]
    assert result == account


@pytest.mark.parametrize("value", [0, 0.0, "", False, None, [], {}])
async def test_a_falsy_result_is_a_result(value):
    calls = []

    def give():
        calls.append(1)
        return value

    @flow("falsy")
    async def falsy(ctx):
        found = await ctx.step("give", give)
        await ctx.sleep("pause", "1h")
        return found

    instance = await run(falsy)
    assert (instance.output, len(calls)) == (value, 1)
    assert instance.step_results["give"].output == value


async def test_except_exception_does_not_swallow_a_suspension():
    runs = []

    @flow("greedy")
    async def greedy(ctx):
        runs.append(1)
        try:
            await ctx.sleep("pause", "30d")
        except Exception:  # noqa: BLE001
            return "swallowed"
        try:
            await ctx.step("after", double, 2)
        except Exception:  # noqa: BLE001
            return "swallowed"
        return "slept"

    instance = await run(greedy)
    assert (instance.output, len(runs)) == ("slept", 2)
    assert issubclass(InterruptError, BaseException)
    assert not issubclass(InterruptError, Exception)


@pytest.mark.parametrize("how", ["wait", "gather", "broken"])
async def test_a_suspension_that_the_code_takes_for_a_result_is_one(how):
    @flow("taken")
    async def taken(ctx):
        work = [asyncio.create_task(ctx.sleep("long", "2d")), asyncio.create_task(ctx.sleep("longer", "3d"))]
        if how == "wait":
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            return len(done)
        found = await asyncio.gather(*work, return_exceptions=True)
        return found.count(None) if how == "gather" else sum(1 - bool(one) for one in found)

    instance = await run(taken)
    assert (instance.status, instance.output, instance.error) == ("completed", 1 if how == "wait" else 2, None)


@pytest.mark.parametrize("how", ["ends", "asks", "breaks"])
async def test_a_pause_that_the_code_takes_for_a_result_is_one(how):
    begun, gate = asyncio.Event(), asyncio.Event()

    async def hold():
        begun.set()
        await gate.wait()

    @flow("taken")
    async def taken(ctx):
        await ctx.step("hold", hold)
        found = await asyncio.gather(*(ctx.step(name, double, 2) for name in "ab"), return_exceptions=True)
        if how == "asks":
            await ctx.emit("found", len(found))
        return sum(found) if how == "breaks" else [str(one) for one in found]

    async with paddock.testing.server(register=[taken]) as server:
        ident = await server.workflows.start(taken)
        await begun.wait()
        await server.workflows.pause(ident)
        gate.set()
        instance = await suspended(server, ident, "paused")
        assert outputs(instance) == {"hold": None}
        await server.workflows.unpause(ident)
        instance = await ended(server, ident)
    assert (instance.output, instance.error) == (8 if how == "breaks" else ["4", "4"], None)


async def test_a_caught_step_failure_is_the_same_on_the_replay():
    seen, calls = [], []

    def broken():
        calls.append(1)
        raise KeyError("no such thing")

    @flow("caught")
    async def caught(ctx):
        try:
            await ctx.step("broken", broken, retry=Retry(max_attempts=3, interval="10s"))
        except StepFailed as error:
            seen.append((error.step, error.type, error.message, error.attempts, str(error)))
        await ctx.sleep("pause", "1h")
        return "went on"

    instance = await run(caught)
    assert instance.output == "went on"
    assert len(calls) == 3
    assert set(seen) == {seen[0]}
    assert seen[0][:4] == ("broken", "KeyError", "'no such thing'", 3)
    step = instance.step_results["broken"]
    assert (step.status, step.attempts, step.error.type) == ("failed", 3, "KeyError")


async def test_an_uncaught_step_failure_fails_the_instance_at_that_step():
    def broken():
        raise ValueError("no")

    @flow("uncaught")
    async def uncaught(ctx):
        await ctx.step("fine", double, 1)
        await ctx.step("broken", broken)

    async with paddock.testing.server(register=[uncaught]) as server:
        with pytest.raises(WorkflowFailed) as caught:
            await server.workflows.run(uncaught)
        (instance,) = await server.workflows.get_instances("uncaught")
    assert (instance.error.type, instance.error.message, instance.error.step) == ("ValueError", "no", "broken")
    assert "broken" in instance.error.traceback
    assert caught.value.error == instance.error


async def test_an_error_of_the_flow_itself_fails_it_without_a_step():
    @flow("own-error")
    async def own(ctx):
        await ctx.step("fine", double, 1)
        raise RuntimeError("mine")

    instance = await run(own)
    assert (instance.status, instance.error.type, instance.error.step) == ("failed", "RuntimeError", None)


async def test_a_wait_timeout_is_caught_and_the_same_on_the_replay():
    seen = []

    @flow("patient")
    async def patient(ctx):
        try:
            return await ctx.wait_event("go", int, timeout="7d")
        except TimeoutError as error:
            seen.append((type(error), str(error)))
        await ctx.sleep("pause", "1h")
        return "late"

    async with paddock.testing.server(register=[patient]) as server:
        ident = await server.workflows.start(patient)
        instance = await suspended(server, ident, "waiting", "go")
        assert instance.wake_at - instance.started_at >= timedelta(days=6.99)
        server.clock.advance("8d")
        instance = await ended(server, ident)
    assert instance.output == "late"
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][0] is WaitTimeout


async def test_an_uncaught_wait_timeout_fails_the_instance_at_the_wait():
    @flow("impatient")
    async def impatient(ctx):
        await ctx.wait_event("go", timeout="1d")

    async with paddock.testing.server(register=[impatient]) as server:
        ident = await server.workflows.start(impatient)
        await suspended(server, ident, "waiting")
        server.clock.advance("2d")
        instance = await ended(server, ident)
    assert (instance.status, instance.error.type, instance.error.step) == ("failed", "WaitTimeout", "go")


async def test_the_idempotency_key_is_constant_over_attempts_and_new_for_each_step():
    keys = []

    def flaky(ctx: Context):
        keys.append((ctx.idempotency_key, ctx.attempt))
        if ctx.attempt < 3:
            raise ValueError("not yet")

    @flow("keys")
    async def flow_of_keys(ctx):
        await ctx.step("flaky", flaky, retry=3)
        await ctx.step("flaky", flaky, retry=3)

    await run(flow_of_keys)
    first, second = keys[:3], keys[3:]
    assert [attempt for _, attempt in keys] == [1, 2, 3, 1, 2, 3]
    assert len({key for key, _ in first}) == len({key for key, _ in second}) == 1
    assert first[0][0] != second[0][0]


async def test_a_retry_with_a_long_delay_sleeps_without_a_process():
    tries = []

    def flaky(ctx):
        tries.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ConnectionError("down")
        return "up"

    @flow("persistent")
    async def persistent(ctx):
        return await ctx.step("call", flaky, retry=Retry(max_attempts=3, interval="6h", backoff_rate=2))

    async with paddock.testing.server(register=[persistent]) as server:
        ident = await server.workflows.start(persistent)
        instance = await ended(server, ident)
        events = await server.events.history("workflow.*", instance_id=ident, limit=100)
    assert instance.output == "up"
    assert tries == [1, 2, 3]
    assert instance.executions == 3
    retries = [event.data for event in events if event.name == "workflow.step.retry"]
    assert [(one["attempt"], one["delay"]) for one in retries] == [(1, 21600), (2, 43200)]
    assert [event.data["reason"] for event in events if event.name == "workflow.suspended"] == ["sleeping"] * 2
    assert instance.completed_at - instance.started_at >= timedelta(hours=18)


async def test_retry_on_and_the_default_of_one_attempt():
    tries = []

    def broken(kind):
        tries.append(kind.__name__)
        raise kind("no")

    @flow("choosy")
    async def choosy(ctx):
        for retry, kind in (
            (None, ValueError),
            (Retry(max_attempts=3, retry_on=[OSError]), ValueError),
            ({"max_attempts": 2, "interval": 1}, OSError),
        ):
            with pytest.raises(StepFailed):
                await ctx.step("broken", broken, kind, retry=retry)

    instance = await run(choosy)
    assert instance.status == "completed", instance.error
    assert tries == ["ValueError", "ValueError", "OSError", "OSError"]


async def test_poll_until_a_true_value_that_is_returned():
    found = iter([None, 0, "", {"at": 4}])
    counts = []

    def check(arg, ctx: Context):
        counts.append((arg, ctx.attempt))
        return next(found)

    @flow("polls")
    async def polls(ctx):
        return await ctx.poll("ready", check, "account", every="10min", timeout="1d")

    async with paddock.testing.server(register=[polls]) as server:
        ident = await server.workflows.start(polls)
        instance = await ended(server, ident)
        events = await server.events.history("workflow.step.poll", instance_id=ident)
    assert instance.output == {"at": 4}
    assert counts == [("account", n) for n in (1, 2, 3, 4)]
    assert instance.step_results["ready"].poll_count == len(events) == 4
    assert instance.executions == 4, "a long interval gives the process back"
    assert instance.completed_at - instance.started_at >= timedelta(minutes=30)


async def test_a_poll_is_typed_by_its_check_and_may_say_poll_done():
    seen = []

    async def check(ctx) -> Account | None:
        return None if ctx.attempt < 2 else Account(id=1, owner=User(name="x"))

    def said(ctx) -> Poll[Account]:
        return Poll.pending() if ctx.attempt < 3 else Poll.done(Account(id=0, owner=User(name="y")))

    @flow("typed-polls")
    async def typed_polls(ctx):
        seen.append((await ctx.poll("one", check, every="1h"), await ctx.poll("two", said, every="1h")))
        await ctx.sleep("pause", "1h")
        return [type(one).__name__ for one in seen[-1]]

    instance = await run(typed_polls)
    assert instance.output == ["Account", "Account"], instance.error
    assert seen[0] == seen[1]
    assert instance.step_results["two"].poll_count == 3


async def test_a_poll_that_finds_nothing_fails_and_the_flow_may_catch_it():
    @flow("in-vain")
    async def in_vain(ctx):
        found = []
        try:
            await ctx.poll("time", lambda: False, every="10min", timeout="25min")
        except StepFailed as error:
            found.append((error.step, error.type))
        try:
            await ctx.poll("count", lambda: None, every="10s", max_attempts=3)
        except StepFailed as error:
            found.append((error.step, "3 checks" in error.message))
        await ctx.sleep("pause", "1h")
        return found

    instance = await run(in_vain)
    assert instance.output == [["time", "StepTimeout"], ["count", True]]
    assert instance.step_results["count"].poll_count == 3


async def test_sleep_takes_every_form_of_a_duration_and_a_month():
    @flow("sleeper")
    async def sleeper(ctx):
        start = ctx.now()
        await ctx.sleep("month", "30d")
        await ctx.sleep("hour", timedelta(hours=1))
        await ctx.sleep("seconds", 1800.0)
        await ctx.sleep("nothing", 0)
        return (ctx.now() - start).total_seconds()

    async with asyncio.timeout(DEADLINE):
        instance = await run(sleeper)
    assert instance.output == pytest.approx(30 * 86400 + 5400, abs=DEADLINE)
    assert instance.executions == 4


async def test_journaled_values_are_the_same_on_every_replay():
    seen = []

    @flow("values")
    async def values(ctx):
        row = [
            ctx.now(),
            ctx.now(),
            ctx.random(),
            ctx.random(),
            ctx.uuid4(),
            ctx.rng.random(),
            ctx.rng.randint(0, 10**9),
            ctx.patched("a-change"),
        ]
        seen.append(row)
        await ctx.sleep("pause", "1h")
        seen[-1].append(ctx.rng.random())
        await ctx.sleep("pause", "1h")
        return ctx.random()

    instance = await run(values)
    assert instance.status == "completed"
    assert len(seen) == 3
    assert seen[0] == seen[1][:8] == seen[2][:8]
    assert seen[1] == seen[2]
    now, later, one, two, ident, *_ = seen[0]
    assert now.tzinfo == UTC
    assert now <= later
    assert one != two
    assert 0 <= one < 1
    assert isinstance(ident, uuid.UUID)
    assert ident.version == 4
    assert seen[0][7] is True


async def test_values_that_were_told_outside_before_a_crash_stay(monkeypatch):
    told = []

    @flow("told")
    async def told_flow(ctx):
        value = (ctx.random(), str(ctx.uuid4()), ctx.now().isoformat())
        await ctx.step("tell", lambda: told.append(value))
        return "done"

    report = await paddock.testing.crash_everywhere(told_flow)
    assert report, report.differences
    assert report.points >= 2
    # within one run the step may be in flight twice, but with the same values: the value is journaled before it is told
    assert len(told) > len(set(told))


async def test_metadata_events_and_log_lines_of_a_flow_happen_once():
    values = iter(range(100))

    async def change(ctx: Context):
        await ctx.set_metadata("stage", "by the step")

    @flow("once")
    async def once(ctx):
        ctx.log("info", "begins", n=next(values))
        ctx.logger.warning("again", n=1)
        await ctx.set_metadata("stage", "by the flow")
        await ctx.emit("begun", {"n": 1})
        await ctx.step("change", change)
        await ctx.sleep("pause", "1h")
        before = ctx.get_metadata("stage")
        await ctx.emit("begun", {"n": 2})
        ctx.log("info", "ends")
        await ctx.sleep("pause", "1h")
        return before

    async with paddock.testing.server(register=[once]) as server:
        ident = await server.workflows.start(once)
        instance = await ended(server, ident)
        logs = await server.logs.query(instance_id=ident)
        events = await server.events.history("workflow.event", instance_id=ident)
    assert instance.output == "by the step"
    assert instance.metadata == {"stage": "by the step"}
    assert [(line.message, line.level) for line in logs] == [("begins", "info"), ("again", "warning"), ("ends", "info")]
    assert logs[0].data == {"n": 0}
    assert [event.data["data"]["n"] for event in events] == [1, 2]


async def test_a_crash_anywhere_repeats_and_loses_no_line_of_the_flow(monkeypatch):
    @flow("chatty")
    async def chatty(ctx):
        ctx.log("info", "one")
        await ctx.step("a", double, 1)
        ctx.log("info", "two")
        await asyncio.sleep(0.002)  # time enough for a commit of its own
        ctx.log("info", "three")
        await asyncio.sleep(0.002)
        await ctx.emit("said")
        await ctx.sleep("pause", "1h")
        ctx.log("info", "four")
        await asyncio.sleep(0.002)
        return "said"

    from paddock.runtime.testing import crashes

    told = []
    stop = crashes.MemoryServer.stop

    async def stop_and_look(self):
        lines = [line.message for line in await self.logs.query() if line.source == "handler"]
        told.append((lines, len(await self.events.history("workflow.event"))))
        await stop(self)

    monkeypatch.setattr(crashes.MemoryServer, "stop", stop_and_look)
    report = await paddock.testing.crash_everywhere(chatty)
    assert report, report.differences
    assert len(told) == 1 + 2 * report.points
    assert all(one == (["one", "two", "three", "four"], 1) for one in told), told


async def test_at_most_once_fails_after_a_crash_and_not_otherwise():
    entered = []
    gate = asyncio.Event()

    async def charge(ctx: Context):
        entered.append(ctx.attempt)
        await gate.wait()
        return "charged"

    @flow("careful")
    async def careful(ctx):
        try:
            return await ctx.step("charge", charge, at_most_once=True, retry=3)
        except StepFailed as error:
            return [error.step, error.message]

    async with paddock.testing.server(register=[careful]) as server:
        ident = await server.workflows.start(careful)
        async with asyncio.timeout(DEADLINE):
            while not entered:
                await asyncio.sleep(0)
        task = next(one for one in asyncio.all_tasks() if one.get_name() == f"paddock-inline-{ident}")
        task.cancel()  # as a server does that stops in the middle of it
        instance = await ended(server, ident)
        assert instance.output[0] == "charge"
        assert "at most once" in instance.output[1]
        assert entered == [1]
        gate.set()
        assert await server.workflows.run(careful) == "charged"


async def test_what_has_no_json_form_or_is_too_large_fails_its_step():
    @flow("bad-values")
    async def bad_values(ctx):
        found = []
        for name, function in (("object", object), ("nan", lambda: float("nan")), ("large", lambda: "x" * 5_000_000)):
            try:
                await ctx.step(name, function)
            except StepFailed as error:
                found.append((error.step, error.type))
        return found

    instance = await run(bad_values)
    assert [name for name, _ in instance.output] == ["object", "nan", "large"]
    assert dict(instance.output)["object"] == NotSerializable.__name__
    assert dict(instance.output)["large"] == PayloadTooLarge.__name__


async def test_a_step_takes_arguments_context_and_actions():
    @action("shout")
    async def shout(text: str, ctx: Context) -> str:
        return f"{text}! {ctx.attempt}"

    def mixed(a, b, ctx: Context, *, c=0):
        return [a, b, c, ctx.attempt, ctx.input]

    @flow("arguments")
    async def arguments(x: int, ctx):
        return [
            await ctx.step("mixed", mixed, 1, b=2, c=3),
            await ctx.step("kinds", lambda *args, **kwargs: [args, kwargs], 1, k=2),
            await ctx.run_action(shout, "hey"),
            await ctx.run_action("shout", "you"),
        ]

    instance = await run(arguments, 5)
    assert instance.output == [[1, 2, 3, 1, 5], [[1], {"k": 2}], "hey! 1", "you! 1"], instance.error
    assert instance.step_results["shout"].kind == "action"
    assert json.loads(json.dumps(shout.describe()))["input"] == {"type": "string"}


# --- side by side ---


async def test_gather_returns_in_order_and_keeps_identity():
    order = []
    gates = [asyncio.Event(), asyncio.Event()]

    async def one(n):
        if n == 0:
            await gates[0].wait()
        else:
            gates[0].set()
        order.append(n)
        return n

    @flow("side-by-side")
    async def side(ctx):
        found = await ctx.gather(ctx.step("x", one, 0), ctx.step("x", one, 1), ctx.sleep("pause", "1h"))
        await ctx.sleep("pause", "1h")
        return found

    instance = await run(side)
    assert instance.output == [0, 1, None]
    assert order == [1, 0]
    assert outputs(instance)["x"] == 0
    assert outputs(instance)["x#2"] == 1


async def test_a_failure_in_gather_cancels_the_others_and_is_the_same_on_the_replay():
    seen, entered, cancelled = [], [], []

    async def slow():
        entered.append(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async def broken():
        while not entered:
            await asyncio.sleep(0)
        raise ValueError("no")

    @flow("half-broken")
    async def half(ctx):
        try:
            await ctx.gather(ctx.step("slow", slow), ctx.step("broken", broken), ctx.sleep("pause", "9d"))
        except StepFailed as error:
            seen.append((error.step, error.type, error.message))
        await ctx.sleep("after", "1h")
        return "went on"

    instance = await run(half)
    assert instance.output == "went on"
    assert seen == [("broken", "ValueError", "no")] * 2
    assert (entered, cancelled) == ([1], [1]), "what was cancelled is not begun again by the replay"
    assert {key: step.status for key, step in instance.step_results.items()} == {
        "slow": "failed",
        "broken": "failed",
        "pause": "failed",
        "after": "completed",
    }
    assert instance.step_results["slow"].error.type == "Stopped"


async def test_mixed_waits_suspend_only_when_nothing_can_go_on_and_come_back_for_the_first():
    gate, log = asyncio.Event(), []

    async def work():
        await gate.wait()
        log.append("work")

    @flow("mixed")
    async def mixed(ctx):
        async def after_signal():
            value = await ctx.wait_event("go", int)
            await ctx.step("after signal", lambda: log.append("signal"))
            return value

        async def after_sleep():
            await ctx.sleep("day", "1d")
            await ctx.step("after sleep", lambda: log.append("sleep"))

        return await ctx.gather(after_signal(), after_sleep(), ctx.step("work", work))

    async with paddock.testing.server(register=[mixed]) as server:
        ident = await server.workflows.start(mixed)
        async with asyncio.timeout(DEADLINE):
            async for event in server.events.subscribe("workflow.step.started", instance_id=ident, after=0):
                if event.data["step"] == "work":
                    break
        assert (await server.workflows.get_instance(ident)).status == "running"
        gate.set()
        instance = await suspended(server, ident, "waiting")
        assert instance.executions == 1, "it did not suspend while a step ran"
        assert log == ["work"]
        assert instance.wake_at is not None
        server.clock.advance("2d")
        events = await server.events.history("workflow.suspended", instance_id=ident)
        await suspended(server, ident, "waiting", after=events[-1].id)
        assert log == ["work", "sleep"], "it came back for the first that could go on"
        await server.workflows.signal(ident, "go", 5)
        instance = await ended(server, ident)
    assert instance.output == [5, None, None]
    assert log == ["work", "sleep", "signal"]


async def test_a_strand_that_computes_while_the_others_wait_is_not_forgotten():
    """A wait beside code that is busy without the runtime's knowledge: the instance suspends, and comes back at once."""

    @flow("busy-beside")
    async def busy(ctx):
        async def own_waiting():
            for n in range(3):
                await asyncio.sleep(0.06)  # longer than the runtime looks at a quiet instance
                await ctx.step(f"s{n}", double, n)
            return "done"

        return await ctx.gather(ctx.wait_event("go"), own_waiting())

    async with paddock.testing.server(register=[busy]) as server:
        ident = await server.workflows.start(busy)
        async with asyncio.timeout(DEADLINE):
            async for event in server.events.subscribe("workflow.step.completed", instance_id=ident, after=0):
                if event.data["step"] == "gather/1/s2":
                    break
        await server.workflows.signal(ident, "go", 1)
        instance = await ended(server, ident)
    assert instance.output == [1, "done"]


async def test_a_retry_that_begins_to_wait_while_the_instance_suspends_is_not_forgotten():
    gate = asyncio.Event()

    async def flaky(ctx: Context):
        if ctx.attempt == 1:
            await gate.wait()
            raise ValueError("first")
        return ctx.attempt

    @flow("late-retry")
    async def late(ctx):
        return await ctx.gather(
            ctx.wait_event("go"), ctx.step("flaky", flaky, retry=Retry(max_attempts=2, interval="2h"))
        )

    async with paddock.testing.server(register=[late]) as server:
        ident = await server.workflows.start(late)
        gate.set()
        instance = await suspended(server, ident, "waiting")
        assert instance.wake_at - instance.started_at >= timedelta(hours=1.9)
        server.clock.advance("3h")
        async with asyncio.timeout(DEADLINE):
            async for event in server.events.subscribe("workflow.step.completed", instance_id=ident, after=0):
                if event.data["step"] == "flaky":
                    break
        await server.workflows.signal(ident, "go", "now")
        instance = await ended(server, ident)
    assert instance.output == ["now", 2]


async def test_gather_of_users_own_coroutines_and_task_groups():
    @flow("groups")
    async def groups(ctx):
        async def part(n):
            a = await ctx.step(f"a{n}", double, n)
            await ctx.sleep(f"s{n}", f"{n + 1}h")
            return a + await ctx.step(f"b{n}", double, n)

        first = await ctx.gather(*(part(n) for n in range(3)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part(n)) for n in range(3, 6)]
        return first + [task.result() for task in tasks]

    instance = await run(groups)
    assert instance.output == [0, 4, 8, 12, 16, 20], instance.error
    assert len(instance.step_results) == 18


# --- plain calls ---


async def test_a_plain_call_outside_runs_inline_in_real_time():
    calls = []

    @action("shouted")
    def shouted(text: str) -> str:
        return text.upper()

    @flow("outside")
    async def outside(user: User, ctx: Context) -> Account:
        account = await ctx.step("create", create, user)
        start = ctx.now()
        await ctx.sleep("pause", "20ms")
        calls.append([ctx.now() - start, await ctx.run_action(shouted, "x")])
        calls.append(await ctx.gather(ctx.step("a", double, 1), ctx.step("b", double, 2)))
        calls.append(
            await ctx.step(
                "flaky",
                lambda ctx: ctx.attempt if ctx.attempt > 1 else 1 / 0,
                retry={"max_attempts": 2, "interval": 0.01},
            )
        )
        return account

    result = await outside({"name": "bob"})
    assert result == Account(id=7, owner=User(name="bob"))
    assert calls[0][0] >= timedelta(seconds=0.02)
    assert calls == [[calls[0][0], "X"], [2, 4], 2]


async def test_a_plain_call_that_fails_raises_what_a_server_would():
    def broken():
        raise ValueError("no")

    @flow("fails-outside")
    async def fails(ctx):
        await ctx.step("broken", broken)

    @flow("waits-outside")
    async def waits(ctx):
        await ctx.wait_event("never")

    with pytest.raises(WorkflowFailed) as caught:
        await fails()
    assert (caught.value.error.type, caught.value.error.step) == ("ValueError", "broken")
    with pytest.raises(WorkflowBlocked, match="server"):
        await waits()


async def test_a_nested_plain_call_becomes_a_part_of_the_flow():
    calls = []

    def note(x):
        calls.append(x)
        return x

    @flow("inner")
    async def inner(user: User, ctx) -> Account:
        assert isinstance(user, User)
        await ctx.step("note", note, user.name)
        await ctx.sleep("pause", "1h")
        return {"id": 1, "owner": user}

    @flow("outer")
    async def outer(ctx):
        a = await inner({"name": "a"})
        b = await inner(User(name="b"))
        assert isinstance(a, Account)
        return [a.owner.name, b.owner.name, await ctx.step("note", note, "outer")]

    instance = await run(outer)
    assert instance.output == ["a", "b", "outer"], instance.error
    assert calls == ["a", "b", "outer"]
    assert list(outputs(instance)) == ["inner/note", "inner/pause", "inner#2/note", "inner#2/pause", "note"]
