"""Who may run when: limits by default, by name and by registration, queue and reject, order, priority."""

import asyncio
from pathlib import Path

import contractflows as flows
import pytest
from contractkit import MODES, UNWATCHED, became, names, until
from contractnotes import notes

from paddock import AppServer, ConcurrencyLimitReached, ConfigError, Event, WorkflowsConfig
from paddock.runtime.server.bus import EventBus
from paddock.runtime.server.dispatcher import Dispatcher

both = pytest.mark.parametrize("mode", ["inline", "fork"])


def _server(tmp_path: Path, mode: str = "fork", **config) -> AppServer:
    return AppServer(tmp_path / "app.db", workflows=WorkflowsConfig(**MODES[mode], **config), watchdog=UNWATCHED)


def _given(tmp_path: Path, name: str) -> dict[str, str]:
    return {"log": str(tmp_path / "log"), "gate": str(tmp_path / "gate"), "name": name}


class _Load:
    """How many instances of each workflow ran at once, by their own events."""

    def __init__(self, server: AppServer) -> None:
        self.running: set[str] = set()
        self.most: dict[str, int] = {}
        self.order: list[str] = []
        self._of: dict[str, set[str]] = {}
        server.events.on("workflow.*", self._take)

    def _take(self, event: Event) -> None:
        running = self._of.setdefault(event.workflow_name, set())
        if event.name in ("workflow.started", "workflow.resumed"):
            running.add(event.instance_id)
            self.order.append(event.instance_id)
            self.most[event.workflow_name] = max(self.most.get(event.workflow_name, 0), len(running))
        elif event.name in ("workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.suspended"):
            running.discard(event.instance_id)


@both
async def test_a_queue_is_first_in_first_out_and_never_over_its_limit(tmp_path: Path, mode: str):
    server = _server(tmp_path, mode, concurrent_workflows_by_name={"one": 1})
    server.workflows.register(flows.one_flow)
    load = _Load(server)
    async with server:
        ids = await asyncio.gather(*(server.workflows.start("one", _given(tmp_path, str(n))) for n in range(8)))
        rows = await server.workflows.get_instances("one", "pending")
        assert len(rows) >= 7
        (tmp_path / "gate").touch()
        for ident in ids:
            assert (await server.workflows.wait(ident, timeout=30)).status == "completed"
        assert load.most == {"one": 1}
        assert load.order == [
            i.id for i in sorted(await server.workflows.get_instances("one"), key=lambda i: i.started_at)
        ]
        assert load.order == [
            i.id for i in sorted(await server.workflows.get_instances("one"), key=lambda i: i.created_at)
        ]
    assert len(notes(tmp_path / "log")) == 8


async def test_what_is_stored_while_a_slot_is_free_is_claimed_with_it(tmp_path: Path):
    server = _server(tmp_path, "inline")
    server.workflows.register(flows.one_flow)
    found = []
    async with server:
        for n in range(4):
            ident = await server.workflows.start("one", _given(tmp_path, str(n)))
            instance = await server.workflows.get_instance(ident)
            found.append(instance.status)
        (tmp_path / "gate").touch()
    assert "running" in found  # two commits would leave it pending for as long as the second takes


async def test_a_wake_up_that_is_lost_loses_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever has to act looks by himself as well: nothing hangs on a message."""
    for part in (Dispatcher, EventBus):
        monkeypatch.setattr(part, "poke", lambda _part: None)
    server = _server(tmp_path, "inline")
    server.workflows.register(flows.slim_flow)
    async with server:
        assert await server.workflows.run("slim", timeout=30) is None


async def test_a_blocked_one_holds_no_slot(tmp_path: Path):
    server = _server(tmp_path, "inline", kill_grace=0.1)
    server.workflows.register(flows.one_flow)
    server.workflows.register(flows.hold_flow)
    async with server:
        ident = await server.workflows.start("one", _given(tmp_path, "first"))
        await became(lambda: notes(tmp_path / "log"))
    again = _server(tmp_path, "inline", max_processes=1)
    again.workflows.register(flows.hold_flow)
    async with again:
        found = await again.workflows.get_instance(ident)
        assert found.status == "blocked"
        (tmp_path / "gate").touch()
        await again.workflows.run("hold", _given(tmp_path, "second"), timeout=30)


@both
async def test_a_higher_priority_runs_first_and_equal_ones_in_order(tmp_path: Path, mode: str):
    server = _server(tmp_path, mode)
    server.workflows.register(flows.one_flow, max_concurrent=1)
    async with server:
        first = await server.workflows.start("one", _given(tmp_path, "first"))
        await became(lambda: notes(tmp_path / "log"))
        waiting = [
            await server.workflows.start("one", _given(tmp_path, name), priority=priority)
            for name, priority in (("low", -1), ("a", 0), ("b", 0), ("top", 2**31), ("c", 0), ("high", 5))
        ]
        (tmp_path / "gate").touch()
        for ident in (first, *waiting):
            await server.workflows.wait(ident, timeout=30)
    assert [line.split()[0] for line in notes(tmp_path / "log")] == ["first", "top", "high", "a", "b", "c", "low"]


async def test_limits_by_default_by_name_and_by_registration(tmp_path: Path):
    server = _server(
        tmp_path, concurrent_workflows=1, concurrent_workflows_by_name={"two": 2, "reject": 1}, max_processes=20
    )
    server.workflows.register(flows.one_flow)  # the default: 1
    server.workflows.register(flows.two_flow)  # by name: 2
    server.workflows.register(flows.reject_flow, max_concurrent=3)  # by registration, over its name's: 3
    server.workflows.register(flows.hold_flow, max_concurrent=0)  # unlimited, over the default
    load = _Load(server)
    async with server:
        ids = [
            await server.workflows.start(name, _given(tmp_path, name))
            for name in ("one", "two", "reject", "hold")
            for _ in range(4)
        ]
        expected = {"one": 1, "two": 2, "reject": 3, "hold": 4}
        await became(lambda: load.most == expected and len(notes(tmp_path / "log")) == 10)
        statuses = [(await server.workflows.get_instance(i)).status for i in ids]
        assert statuses.count("running") == 10
        assert statuses.count("pending") == 6
        (tmp_path / "gate").touch()
        for ident in ids:
            await server.workflows.wait(ident, timeout=30)
        assert load.most == expected


async def test_max_processes_bounds_all_workflows_together(tmp_path: Path):
    server = _server(tmp_path, max_processes=2)
    for flow in (flows.one_flow, flows.two_flow):
        server.workflows.register(flow)
    async with server:
        ids = [await server.workflows.start(n, _given(tmp_path, n)) for n in ("one", "two", "one", "two")]
        await became(lambda: len(notes(tmp_path / "log")) == 2)
        children = [row for row in await server.processes() if row["role"] == "child"]
        assert len(children) == 2
        assert len(await server.workflows.get_all_instances("pending")) == 2
        (tmp_path / "gate").touch()
        for ident in ids:
            await server.workflows.wait(ident, timeout=30)


@both
async def test_reject_counts_each_key_by_itself(tmp_path: Path, mode: str):
    server = _server(tmp_path, mode)
    server.workflows.register(
        flows.reject_flow, max_concurrent=1, on_limit="reject", key=lambda given: given["name"][0]
    )
    async with server:
        first = await server.workflows.start("reject", _given(tmp_path, "a1"))
        with pytest.raises(ConcurrencyLimitReached):
            await server.workflows.start("reject", _given(tmp_path, "a2"))
        other = await server.workflows.start("reject", _given(tmp_path, "b1"))
        (tmp_path / "gate").touch()
        for ident in (first, other):
            await server.workflows.wait(ident, timeout=30)


@both
async def test_reject_raises_and_leaves_nothing(tmp_path: Path, mode: str):
    server = _server(tmp_path, mode)
    server.workflows.register(flows.reject_flow, max_concurrent=2, on_limit="reject")
    async with server:
        given = _given(tmp_path, "x")
        answers = await asyncio.gather(
            *(server.workflows.start("reject", given) for _ in range(10)), return_exceptions=True
        )
        ids = [a for a in answers if isinstance(a, str)]
        refused = [a for a in answers if not isinstance(a, str)]
        assert len(ids) == 2
        assert {type(a) for a in refused} == {ConcurrencyLimitReached}
        assert "reject" in str(refused[0])
        assert "2" in str(refused[0])
        with pytest.raises(ConcurrencyLimitReached):
            await server.workflows.start("reject", given, id="mine")
        with pytest.raises(ConcurrencyLimitReached):
            await server.workflows.run("reject", given)
        assert await server.workflows.get_instance("mine") is None
        assert len(await server.workflows.get_all_instances()) == 2
        assert {e.instance_id for e in await server.events.history()} <= set(ids)
        # the same id again is no new start, also at the limit
        assert await server.workflows.start("reject", given, id=ids[0]) == ids[0]
        (tmp_path / "gate").touch()
        for ident in ids:
            await server.workflows.wait(ident, timeout=30)
        again = await server.workflows.start("reject", given)  # what was waited for is no longer in the way
        await server.workflows.wait(again, timeout=30)
        assert names(await server.events.history("workflow.completed", instance_id=again)) == ["completed"]


@both
async def test_a_cancelled_one_frees_its_slot_and_a_queued_one_leaves_the_queue(tmp_path: Path, mode: str):
    server = _server(tmp_path, mode)
    server.workflows.register(flows.one_flow, max_concurrent=1)
    async with server:
        first, second, third = [await server.workflows.start("one", _given(tmp_path, n)) for n in "abc"]
        await became(lambda: notes(tmp_path / "log"))
        assert await server.workflows.cancel(second) is True
        assert await server.workflows.cancel(first) is True
        await until(server, "workflow.started", third)
        (tmp_path / "gate").touch()
        await server.workflows.wait(third, timeout=30)
        assert names(await server.events.history("workflow.*", instance_id=second)) == ["cancelled"]
    assert [line.split()[0] for line in notes(tmp_path / "log")] == ["a", "c"]


async def test_a_delayed_one_does_not_block_the_queue(tmp_path: Path):
    server = _server(tmp_path, "inline")
    server.workflows.register(flows.echo_flow, max_concurrent=1)
    async with server:
        await server.workflows.start("echo", 1, delay="1h", priority=9)
        assert await server.workflows.run("echo", 2, timeout=30) == 2


async def test_a_sleeping_one_holds_no_slot(tmp_path: Path):
    server = _server(tmp_path, "inline")
    server.workflows.register(flows.long_sleep_flow, max_concurrent=1)
    async with server:
        for _ in range(3):
            ident = await server.workflows.start("long-sleep")
            await until(server, "workflow.suspended", ident)
        assert len(await server.workflows.get_instances("long-sleep", "sleeping")) == 3


async def test_options_that_cannot_work_are_refused(tmp_path: Path):
    server = _server(tmp_path)
    for wrong, word in (
        ({"max_concurrent": -1}, "-1"),
        ({"max_concurrent": "two"}, "two"),
        ({"max_concurrent": 1.5}, "1.5"),
        ({"on_limit": "wait"}, "wait"),
    ):
        with pytest.raises(ConfigError, match=word) as caught:
            server.workflows.register(flows.one_flow, **wrong)
        assert "one" in str(caught.value)
    server.workflows.register(flows.one_flow)
