"""The state class: on a server and alone, saved to text between any two steps and loaded elsewhere."""

import asyncio
import json
from datetime import timedelta

import flowflows
import pytest
from contractkit import DEADLINE, until
from flowflows import Guess, GuessData
from flowkit import ended, suspended
from pydantic import BaseModel, model_validator

import paddock.testing
from paddock import (
    ConfigError,
    InvalidInput,
    InvalidState,
    InvalidWorkflow,
    StateMachine,
    StepFailed,
    Transition,
    WaitTimeout,
    state,
)


@pytest.fixture(autouse=True)
def _forget():
    flowflows.CALLS.clear()


# --- on a server ---


async def test_input_visits_actions_audit_log_and_output():
    async with paddock.testing.server(register=[Guess]) as server:
        ident = await server.workflows.start(Guess, GuessData(names=["bob"]))
        for guess in (1, 2, 7):
            await server.workflows.signal(ident, "guess", guess)
        instance = await ended(server, ident)
        result = await server.workflows.result(ident)
        logs = await server.logs.query(instance_id=ident)
    assert instance.status == "completed", instance.error
    assert result == GuessData(answer=7, tries=3, names=["bob"])
    states = {key: step.output for key, step in instance.step_results.items() if step.kind == "state"}
    assert list(states) == ["begin", "ask", "ask#2", "ask#3", "won"]
    assert [one["next"] for one in states.values()] == ["ask", "ask", "ask", "won", None]
    assert [one["data"]["tries"] for one in states.values()] == [0, 1, 2, 3, 3]
    assert instance.step_results["begin/pick"].output == 7
    assert [(line.message, line.data.get("guess")) for line in logs] == [
        ("picked", None),
        ("guessed", 1),
        ("guessed", 2),
        ("guessed", 7),
        ("won", None),
    ]
    assert flowflows.CALLS == ["pick"]


async def test_a_suspension_within_a_visit_repeats_no_action_and_no_line():
    calls = []

    class Data(BaseModel):
        seen: list[int] = []

    class Visitor(StateMachine[Data], name="visitor", start="work"):
        @state
        async def work(self):
            for n in range(3):
                self.data.seen.append(await self.action("count", self.count, n))
                self.log("counted", n=n)
                await self.sleep("1h")
            self.data.seen.append(await self.wait_event("go", int))
            return self.work if len(self.data.seen) < 8 else None

        def count(self, n):
            calls.append(n)
            return n

    async with paddock.testing.server(register=[Visitor]) as server:
        ident = await server.workflows.start(Visitor, {})
        for n in (10, 11):
            await server.workflows.signal(ident, "go", n)
        instance = await ended(server, ident)
        logs = await server.logs.query(instance_id=ident)
    assert instance.output == {"seen": [0, 1, 2, 10, 0, 1, 2, 11]}, instance.error
    assert calls == [0, 1, 2] * 2
    assert [line.data["n"] for line in logs] == [0, 1, 2] * 2
    assert {"work/count", "work/count#3", "work#2/count#2", "work#2/sleep#3", "work#2/go"} <= set(instance.step_results)


async def test_crashes_change_nothing():
    report = await paddock.testing.crash_everywhere(Guess, {}, signals={"guess": 7})
    assert report.outcome == {"answer": 7, "tries": 1, "names": []}
    assert report, report.differences


async def test_failures_of_actions_and_waits_are_caught_or_fail_the_instance():
    class Data(BaseModel):
        found: list[str] = []

    class Troubled(StateMachine[Data], name="troubled", start="first"):
        @state
        async def first(self):
            try:
                await self.action("break", self.break_it, retry=2)
            except StepFailed as error:
                self.data.found.append(f"{error.type} {error.attempts}")
            try:
                await self.wait_event("never", timeout="1min")
            except WaitTimeout:
                self.data.found.append("late")
            await self.sleep("1h")
            return "second"

        @state
        async def second(self):
            await self.action("break", self.break_it)

        def break_it(self):
            raise ValueError("no")

    async with paddock.testing.server(register=[Troubled]) as server:
        ident = await server.workflows.start(Troubled, {})
        await suspended(server, ident, "waiting")
        server.clock.advance("2min")
        instance = await ended(server, ident)
    assert (instance.status, instance.error.type, instance.error.step) == ("failed", "ValueError", "second/break")
    assert instance.step_results["first"].output["data"] == {"found": ["ValueError 2", "late"]}


async def test_a_state_that_leads_nowhere_fails_the_instance_and_says_what_there_is():
    class Data(BaseModel):
        x: int = 0

    class Lost(StateMachine[Data], name="lost", start="first"):
        @state
        async def first(self):
            return "nowhere"

    async with paddock.testing.server(register=[Lost]) as server:
        instance = await ended(server, await server.workflows.start(Lost, {}))
    assert (instance.status, instance.error.type, instance.error.step) == ("failed", "InvalidWorkflow", "first")
    assert "nowhere" in instance.error.message


async def test_updates_from_outside_are_validated_and_taken_at_journaled_places():
    class Data(BaseModel):
        limit: int = 5
        notes: dict[str, int] = {}
        seen: list[int] = []

    class Updated(StateMachine[Data], name="updated", start="look"):
        @state
        async def look(self):
            self.data.seen.append(self.data.limit)
            await self.wait_event("go")
            self.data.seen.append(self.data.limit)
            await self.sleep("1h")
            self.data.seen.append(self.data.limit)
            return self.look if len(self.data.seen) < 6 else None

    async with paddock.testing.server(register=[Updated]) as server:
        ident = await server.workflows.start(Updated, {})
        waiting = await suspended(server, ident, "waiting")
        for bad, field in (({"limit": "many"}, "limit"), ({"nope": 1}, "nope"), ({"notes": {"a": "b"}}, "notes")):
            with pytest.raises(InvalidState, match=field):
                await server.workflows.update_state(ident, bad)
        await server.workflows.update_state(ident, {"limit": 6})
        await server.workflows.update_state(ident, {"limit": 7, "notes": {"a": 1}})
        assert (await server.workflows.get_instance(ident)).status == "waiting", "an update answers no wait"
        await server.workflows.signal(ident, "go")
        await until(server, "workflow.step.started", ident, where=lambda event: event.data["step"] == "look#2/go")
        await server.workflows.signal(ident, "go")
        instance = await ended(server, ident)
        with pytest.raises(InvalidState, match="ended"):
            await server.workflows.update_state(ident, {"limit": 9})
    assert instance.output == {"limit": 7, "notes": {"a": 1}, "seen": [5, 7, 7, 7, 7, 7]}, instance.error
    assert waiting.current_step == "go"


async def test_no_update_is_lost_in_a_crash(monkeypatch):
    class Data(BaseModel):
        limit: int = 5

    class Crashing(StateMachine[Data], name="crashing", start="first"):
        @state
        async def first(self):
            await self.wait_event("go")
            return self.second

        @state
        async def second(self):
            return None

    from paddock.runtime.testing import crashes

    start = crashes.MemoryServer.start

    async def start_and_update(self):
        await start(self)
        signal = self.workflows.signal

        async def signal_after_updates(ident, name, payload=None):
            for n in (6, 7, 8):
                await self.workflows.update_state(ident, {"limit": n})
            await signal(ident, name, payload)

        self.workflows.signal = signal_after_updates

    monkeypatch.setattr(crashes.MemoryServer, "start", start_and_update)
    report = await paddock.testing.crash_everywhere(Crashing, {}, signals={"go": None})
    assert report.outcome == {"limit": 8}
    # where an update is taken hangs on when it came; that it is taken does not
    assert [one for one in report.differences if not one.what.endswith(":update")] == []


async def test_an_update_that_fits_no_more_is_dropped_with_a_warning():
    class Data(BaseModel):
        low: int = 0
        high: int = 10

        @model_validator(mode="after")
        def _ordered(self):
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    class Bounds(StateMachine[Data], name="bounds", start="first"):
        @state
        async def first(self):
            await self.wait_event("go")

    async with paddock.testing.server(register=[Bounds]) as server:
        ident = await server.workflows.start(Bounds, {})
        await suspended(server, ident, "waiting")
        await server.workflows.update_state(ident, {"high": 5})
        await server.workflows.update_state(ident, {"low": 8})  # fits what is known: high is 10 still
        await server.workflows.signal(ident, "go")
        instance = await ended(server, ident)
        (warning,) = await server.logs.query(instance_id=ident, level="warning")
    assert instance.output == {"low": 0, "high": 5}, instance.error
    assert "dropped" in warning.message


async def test_a_class_that_cannot_work_is_refused():
    class Data(BaseModel):
        x: int = 0

    with pytest.raises(InvalidWorkflow, match="no states"):

        class Empty(StateMachine[Data], name="empty", start="first"):
            pass

    with pytest.raises(InvalidWorkflow, match="is no state"):

        class NoStart(StateMachine[Data], name="no-start", start="second"):
            @state
            async def first(self):
                return None

    with pytest.raises(InvalidWorkflow, match="pydantic"):

        class NoModel(StateMachine[dict], name="no-model", start="first"):
            @state
            async def first(self):
                return None

    with pytest.raises(InvalidWorkflow, match="async def"):

        @state
        def plain(self):
            return None

    async with paddock.testing.server(register=[Guess]) as server:
        with pytest.raises(InvalidInput, match="tries"):
            await server.workflows.start(Guess, {"tries": "many"})


# --- alone ---


async def through(machine):
    """Run as far as it goes; return the transitions."""
    async with asyncio.timeout(DEADLINE):
        return [transition async for transition in machine.run()]


async def test_alone_it_runs_until_it_waits_for_what_was_not_sent():
    machine = Guess(GuessData(names=["bob"]))
    assert await through(machine) == [Transition("begin", "ask")]
    assert machine.state == "ask"
    assert await through(machine) == []
    machine.send("guess", 3)
    machine.send("guess", 7)
    assert await through(machine) == [Transition("ask", "ask"), Transition("ask", "won"), Transition("won", None)]
    assert machine.state is None
    assert machine.data == GuessData(answer=7, tries=2, names=["bob"])
    assert [(line["state"], line["message"]) for line in machine.audit_log] == [
        ("begin", "picked"),
        ("ask", "guessed"),
        ("ask", "guessed"),
        ("won", "won"),
    ]
    assert flowflows.CALLS == ["pick"]
    assert await through(machine) == []


async def test_alone_it_is_saved_and_loaded_between_any_two_steps():
    """After every step and within every state: save, load elsewhere, go on; nothing is done or logged twice."""
    calls = []

    class Data(BaseModel):
        seen: list[int] = []

    class Walker(StateMachine[Data], name="walker", start="one"):
        @state
        async def one(self):
            for n in range(3):
                self.data.seen.append(await self.action("note", note, n))
                self.log("noted", n=n)
                await self.wait_event(f"go {n}")
            return self.two

        @state
        async def two(self):
            await self.sleep("1ms")
            self.data.seen.append(await self.wait_event("last", int))
            self.log("last")

    def note(n: int) -> int:
        calls.append(n)
        return n

    text = Walker().to_json()
    transitions = []
    for signal in (None, "go 0", "go 1", "go 2", "last"):
        machine = Walker.from_json(text)
        if signal is not None:
            machine.send(signal, 9)
        machine = Walker.from_json(machine.to_json())  # also with a signal that nobody has taken
        transitions += await through(machine)
        text = machine.to_json()
        assert json.loads(text)["machine"] == "walker"
    assert transitions == [Transition("one", "two"), Transition("two", None)]
    machine = Walker.from_json(text)
    assert machine.data == Data(seen=[0, 1, 2, 9])
    assert calls == [0, 1, 2]
    assert [(line["message"], line.get("data")) for line in machine.audit_log] == [
        ("noted", {"n": 0}),
        ("noted", {"n": 1}),
        ("noted", {"n": 2}),
        ("last", None),
    ]
    assert await through(machine) == []


async def test_alone_failures_look_like_those_on_a_server():
    tries = []

    class Data(BaseModel):
        found: str = ""

    class Alone(StateMachine[Data], name="alone", start="first"):
        @state
        async def first(self):
            try:
                await self.action("break", fails)
            except StepFailed as error:
                self.data.found = f"{error.step} {error.type}: {error.message}"
            return self.second

        @state
        async def second(self):
            await self.action("break", fails)

    def fails():
        tries.append(1)
        raise ValueError("no")

    machine = Alone()
    transitions = []
    with pytest.raises(StepFailed, match="no"):
        async for transition in machine.run():
            transitions.append(transition)
    assert transitions == [Transition("first", "second")]
    assert machine.data.found == "break ValueError: no"
    with pytest.raises(StepFailed):  # run again, it is tried again
        await through(machine)
    assert len(tries) == 3


async def test_alone_a_signal_that_does_not_fit_is_refused_and_a_wait_times_out():
    class Data(BaseModel):
        found: str = ""

    class Waits(StateMachine[Data], name="waits", start="first"):
        @state
        async def first(self):
            try:
                self.data.found = str(await self.wait_event("n", int, timeout="1ms"))
            except TimeoutError:
                self.data.found = "late"

    machine = Waits()
    await through(machine)
    await asyncio.sleep(0.002)
    assert await through(machine) == [Transition("first", None)]
    assert machine.data.found == "late"
    machine = Waits()
    machine.send("n", "x")
    machine.send("n", "5")
    assert await through(machine) == [Transition("first", None)], "what does not fit is dropped, and the wait goes on"
    assert machine.data.found == "5"
    assert "dropped" in machine.audit_log[0]["message"]


async def test_text_that_is_no_saved_machine_is_refused():
    text = Guess().to_json()
    for bad in (
        "",
        "[]",
        "{}",
        text.replace("guess-game", "other"),
        text.replace('"begin"', '"nowhere"'),
        text.replace('"tries": 0', '"tries": "many"'),
    ):
        with pytest.raises(InvalidState):
            Guess.from_json(bad)


async def test_outside_of_run_a_state_has_no_host():
    with pytest.raises(InvalidState, match="does not run"):
        await Guess().begin()


async def test_one_that_waits_on_a_server_shows_its_wait():
    async with paddock.testing.server(register=[Guess]) as server:
        ident = await server.workflows.start(Guess, {})
        await suspended(server, ident, "waiting", "guess")
        await server.workflows.cancel(ident)
        event = await until(server, "workflow.cancelled", ident)
    assert event.instance_id == ident


async def test_a_sleep_takes_its_name_on_either_side():
    class Data(BaseModel):
        n: int = 0

    class Naps(StateMachine[Data], name="naps", start="nap"):
        @state
        async def nap(self):
            await self.sleep("1h")
            await self.sleep("1h", "after lunch")
            await self.sleep("at night", timedelta(hours=8))
            await self.sleep(60.0)

    async with paddock.testing.server(register=[Naps]) as server:
        instance = await ended(server, await server.workflows.start(Naps))
    assert list(instance.step_results) == ["nap", "nap/sleep", "nap/after lunch", "nap/at night", "nap/sleep#2"]
    with pytest.raises(ConfigError, match="'soon' is no duration"):
        await Naps().sleep("soon")
