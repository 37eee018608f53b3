"""A state class alone: tries of its actions, pauses at times, and data that others change between and during its runs."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, Field

import paddock.testing
from paddock import Context, InvalidState, InvalidWorkflow, Retry, StateMachine, StepFailed, StepTimeout, state

TRIES: list[tuple[int, str]] = []


@pytest.fixture(autouse=True)
def _forget():
    TRIES.clear()


class Data(BaseModel):
    amount: int = Field(default=1, gt=0)
    paid: list[int] = []
    caught: str = ""


def third_time(amount: int, ctx: Context) -> int:
    TRIES.append((ctx.attempt, ctx.idempotency_key.partition(":")[2]))
    ctx.log("info", "tried")
    if ctx.attempt < 3:
        raise ConnectionError("busy")
    return amount


class Payer(StateMachine[Data], name="payer", start="pay", tags=["money"]):
    @state
    async def pay(self):
        policy = Retry(max_attempts=3, interval="1ms", retry_on=[ConnectionError])
        paid = await self.action("charge", third_time, self.data.amount, retry=policy)
        self.data.paid.append(paid)
        self.log("paid", amount=paid)
        return self.rest if len(self.data.paid) < 2 else None

    @state
    async def rest(self):
        self.log("rests")
        await self.sleep("1ms")
        return self.pay


async def go(machine, **options):
    return [(transition.source, transition.target) async for transition in machine.run(**options)]


async def patiently(machine):
    """Run a machine as one does who holds nothing but its text, and looks now and then."""
    way = []
    while machine.state is not None:
        way += await go(machine, wait=False)
        if machine.wake_at is not None:
            assert machine.wake_at.tzinfo is UTC
            await asyncio.sleep(max(0, (machine.wake_at - datetime.now(UTC)).total_seconds()))
        machine = type(machine).from_json(machine.to_json())
    return machine, way


WAY = [("pay", "rest"), ("rest", "pay"), ("pay", None)]
KEYS = [(n, f"{visit}/charge") for visit in ("pay", "pay#2") for n in (1, 2, 3)]


async def test_actions_are_tried_again_alone_too():
    machine = Payer(Data(amount=5))
    assert await go(machine) == WAY
    assert machine.data.paid == [5, 5]
    assert TRIES == KEYS


async def test_a_run_that_does_not_wait_ends_at_times_and_goes_on_after_them():
    machine, way = await patiently(Payer(Data(amount=5)))
    assert way == WAY
    assert machine.data.paid == [5, 5]
    assert TRIES == KEYS
    assert [entry["message"] for entry in machine.audit_log] == ["paid", "rests", "paid"]
    assert (machine.wake_at, machine.waits_for) == (None, None)


async def test_it_is_the_same_class_on_a_server():
    async with paddock.testing.server(register=[Payer]) as server:
        ident = await server.workflows.start(Payer, Data(amount=5))
        assert (await server.workflows.result(ident)).paid == [5, 5]
    assert TRIES == KEYS
    assert Payer.__paddock_definition__.tags == ("money",)


async def test_spent_tries_are_a_failure_that_a_state_may_catch():
    class Catcher(StateMachine[Data], name="catcher", start="a"):
        @state
        async def a(self):
            for options in (
                {"retry": {"max_attempts": 2, "interval": "1ms"}},
                {"retry": {"max_attempts": 3, "retry_on": ["no such"]}},
            ):
                try:
                    await self.action("charge", third_time, 1, **options)
                except StepFailed as failed:
                    self.data.caught += f"{failed.type} {failed.message} {failed.attempts};"
            await self.wait_event("go")

    machine = Catcher()
    assert await go(machine, wait=False) == []
    while machine.wake_at is not None:
        await asyncio.sleep(max(0, (machine.wake_at - datetime.now(UTC)).total_seconds()))
        assert await go(machine, wait=False) == []
    assert machine.waits_for == "go"
    machine = Catcher.from_json(machine.to_json())
    assert machine.waits_for == "go"
    machine.send("go")
    assert await go(machine) == [("a", None)]
    assert machine.data.caught == "ConnectionError busy 2;ConnectionError busy 1;"
    assert len(TRIES) == 3
    with pytest.raises(InvalidWorkflow, match="max_attempts"):
        await go(_asks_for(retry=0))


def _asks_for(function=third_time, *args, **options):
    class Asks(StateMachine[Data], name="asks", start="a"):
        @state
        async def a(self):
            await self.action("ask", function, *args, **options)

    return Asks()


async def test_a_timeout_ends_a_try():
    cancelled = asyncio.Event()

    async def for_ever():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(StepFailed, match="took longer") as caught:
        await go(_asks_for(for_ever, timeout="10ms"))
    assert caught.value.type == StepTimeout.__name__
    assert cancelled.is_set()


async def test_an_action_s_own_keywords_and_the_type_that_is_asked_for():
    class Keeps(StateMachine[Data], name="keeps", start="a"):
        @state
        async def a(self):
            found = await self.action("divide", divmod_of, 7, by=2, output=tuple[int, int])
            self.data.paid = list(found)
            assert isinstance(found, tuple)

    def divmod_of(value, *, by):
        return list(divmod(value, by))

    machine = Keeps()
    await go(machine)
    assert machine.data.paid == [3, 1]


async def test_a_context_alone_says_what_it_has_not():
    def asks(ctx: Context):
        ctx.heartbeat(progress=1)
        return ctx.plugins

    with pytest.raises(StepFailed, match="ctx.plugins needs a server"):
        await go(_asks_for(asks))


# --- changes from outside ---


class Waiter(StateMachine[Data], name="waiter", start="first"):
    @state
    async def first(self):
        self.data.paid.append(self.data.amount)
        await self.wait_event("go", timeout="1d")
        self.data.paid.append(self.data.amount)
        return self.second

    @state
    async def second(self):
        self.data.paid.append(self.data.amount)


async def test_what_is_assigned_between_two_runs_counts():
    machine = Waiter()
    assert await go(machine) == []
    assert machine.wake_at - datetime.now(UTC) > timedelta(hours=23)
    machine.data.amount = 2
    machine = Waiter.from_json(machine.to_json())
    machine.send("go")
    async for transition in machine.run():
        if transition.target is not None:
            machine.data.amount = 3
    assert machine.data.paid == [2, 2, 3]


async def test_an_update_is_validated_and_bad_ones_change_nothing():
    machine = Waiter()
    await go(machine)
    machine.update_state({"amount": 4})
    before = machine.to_json()
    for bad, match in (({"amount": -1}, "amount"), ({"nothing": 1}, "nothing")):
        with pytest.raises(InvalidState, match=match):
            machine.update_state(bad)
    assert machine.to_json() == before
    machine.send("go")
    await go(machine)
    assert machine.data.paid == [4, 4, 4]
    with pytest.raises(InvalidState, match="ended"):
        machine.update_state({"amount": 5})


async def test_what_was_assigned_and_does_not_fit_is_refused_by_the_run():
    machine = Waiter()
    await go(machine)
    machine.data.amount = -1
    with pytest.raises(InvalidState, match="amount"):
        await go(machine)
    machine.data.amount = 6
    machine.send("go")
    await go(machine)
    assert machine.data.paid == [6, 6, 6]


class Holder(StateMachine[Data], name="holder", start="hold"):
    @state
    async def hold(self):
        self.data.paid.append(await self.action("wait", hold_on))  # the list is looked up before the wait
        self.data.paid.append(self.data.amount)


HOLDS: list[asyncio.Event] = []


async def hold_on() -> int:
    begun, may_end = HOLDS
    begun.set()
    await may_end.wait()
    return 7


@pytest.fixture
def holds():
    HOLDS[:] = [asyncio.Event(), asyncio.Event()]
    yield HOLDS
    HOLDS.clear()


async def test_an_update_while_it_runs_loses_nothing(holds):
    machine = Holder()
    running = asyncio.create_task(go(machine))
    await holds[0].wait()
    machine.update_state({"amount": 9})
    holds[1].set()
    assert await running == [("hold", None)]
    assert machine.data.paid == [7, 9]


async def test_an_update_on_a_server_loses_nothing_either(holds):
    async with paddock.testing.server(register=[Holder]) as server:
        ident = await server.workflows.start(Holder)
        await asyncio.wait_for(holds[0].wait(), 8)
        await server.workflows.update_state(ident, {"amount": 9})
        holds[1].set()
        assert (await server.workflows.result(ident, timeout=8)).paid == [7, 9]


async def test_a_text_of_the_first_version_is_still_read():
    saved = json.loads(Waiter().to_json())
    for key in ("id", "visits", "tries", "wake_at", "waits_for"):
        del saved[key]
    machine = Waiter.from_json(json.dumps(saved))
    machine.send("go")
    await go(machine)
    assert machine.state is None


class SideBySide(StateMachine[Data], name="side-by-side", start="hold"):
    @state
    async def hold(self):
        await asyncio.gather(self._one("a"), self._one("b"))

    async def _one(self, name):
        await self.action(name, hold_on)
        self.data.paid.append(self.data.amount)
        self.data.amount = 1


async def test_an_update_is_applied_once_by_actions_that_end_side_by_side(holds):
    async with paddock.testing.server(register=[SideBySide]) as server:
        ident = await server.workflows.start(SideBySide)
        await asyncio.wait_for(holds[0].wait(), 8)
        await server.workflows.update_state(ident, {"amount": 9})
        holds[1].set()
        assert (await server.workflows.result(ident, timeout=8)).paid.count(9) == 1
