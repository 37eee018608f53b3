"""Flows, state classes and steering where they live: on a server whose children are processes."""

import asyncio
import os
import threading

import flowflows
import pytest
import pytest_asyncio
from contractkit import DEADLINE, until
from flowflows import STYLES
from flowkit import ended, suspended

from paddock import AppServer, InvalidSignal, WorkflowsConfig

PATIENCE = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    server = AppServer(
        tmp_path_factory.mktemp("flows") / "app.db",
        workflows=WorkflowsConfig(kill_grace="2s", orphan_grace="5s", suspend_after="100ms"),
    )
    for one in (*STYLES.values(), *flowflows.CHILDREN):
        server.workflows.register(one)
    async with server:
        await server.workflows.run("ticks", 1, timeout=PATIENCE)
        barrier = threading.Barrier(
            min(32, (os.cpu_count() or 1) + 4)
        )  # the threads that the loop keeps, before the guard looks
        await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(barrier.parties)))
        await alone(server)
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def server(shared):
    yield shared
    for status in ("pending", "running", "sleeping", "waiting", "paused"):
        await shared.workflows.cancel_all(status=status)
    await alone(shared)


async def alone(server):
    """Return once no child lives."""
    async with asyncio.timeout(PATIENCE):
        while any(row["role"] == "child" for row in await server.processes()):
            await asyncio.sleep(0.01)


async def children(server):
    return [row["pid"] for row in await server.processes() if row["role"] == "child"]


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_flow_with_everything_in_processes_of_its_own(server):
    stream = server.workflows.stream("everything-flow", "bob")
    ident = await stream.id()
    await suspended(server, ident, "waiting", "approve")
    await alone(server)  # a waiting instance has no process
    with pytest.raises(InvalidSignal, match="Verdict"):
        await server.workflows.signal(ident, "approve", {"ok": "perhaps"})
    await server.workflows.signal(ident, "approve", {"ok": True, "by": "eve"})
    found = await stream.result(timeout=PATIENCE)
    chunks = [chunk async for chunk in stream]
    again = [chunk async for chunk in server.workflows.follow(ident)]
    assert chunks == again == [{"n": 0}, {"n": 1}, "last"]
    pids = {found["pids"][0], found["pids"][1], found["there"]["pid"], found["child"]["pid"]}
    assert len(pids) == 4, "the first execution, the last one, the isolated action and the child"
    assert os.getpid() not in pids
    assert found["here"]["pid"] != found["there"]["pid"]
    assert found["there"]["question"] == "there"
    assert (found["child"]["x"], found["by"], found["retried"]) == (3, "eve", 2)
    assert found["caught"] == ["FileNotFoundError", 1]
    instance = await server.workflows.get_instance(ident)
    assert instance.executions >= 3
    assert found["before"][0] < instance.completed_at.isoformat()


async def test_an_action_of_a_factory_runs_here_and_is_refused_elsewhere(server):
    found = await server.workflows.run("greets-by-factory", "Ada", timeout=PATIENCE)
    assert found[:2] == ["Bonjour, Ada", "Hello, Ada"]
    assert found[2:] == ["action 'greet-so' was made within a fun"] * 2


async def test_a_plain_function_as_a_flow(server):
    stream = server.workflows.stream("plain-child", 21)
    ident = await stream.id()
    await server.workflows.signal(ident, "go", 5)
    assert await stream.result(timeout=PATIENCE) == [42, [1, 2], 5]
    assert [chunk async for chunk in stream] == ["chunk"]
    assert (await server.workflows.get_instance(ident)).executions >= 2


@pytest.mark.parametrize("style", STYLES)
async def test_every_style_waits_without_a_process(server, style):
    """The retry's two hours are taken away by a retry by hand: real time does not jump."""
    ident = await server.workflows.start(STYLES[style], {"id": "o-9", "qty": 4})
    instance = await suspended(server, ident, "sleeping")
    assert instance.current_step.endswith("reserve")
    assert instance.metadata == {"stage": "checked"}
    await alone(server)
    await server.workflows.pause(ident)
    last = (await server.events.history("workflow.suspended", instance_id=ident, limit=100))[-1].id
    await server.workflows.unpause(ident)  # comes back, looks at its time, and sleeps on
    instance = await suspended(server, ident, "sleeping", after=last)
    assert (
        instance.wake_at - instance.started_at
        > (await until(server, "workflow.step.retry", ident)).created_at - instance.started_at
    )
    assert [line.message for line in await server.logs.query(instance_id=ident) if line.source == "handler"] == [
        "checked"
    ]
    assert await server.workflows.cancel(ident)


async def test_a_state_class_plays_and_is_changed_from_outside(server):
    ident = await server.workflows.start("guess-game", {})
    await suspended(server, ident, "waiting", "guess")
    await server.workflows.update_state(ident, {"answer": 9, "names": ["eve"]})
    for guess in (3, 9):  # the first is taken by the wait before the update
        await server.workflows.signal(ident, "guess", guess)
    instance = await ended(server, ident)
    assert instance.output == {"answer": 9, "tries": 2, "names": ["eve"]}
    logs = [line.message for line in await server.logs.query(instance_id=ident)]
    assert logs == ["picked", "guessed", "guessed", "won"]


async def test_cancel_of_a_parent_that_has_no_process(server):
    ident = await server.workflows.start("waits-for-child")
    event = await until(server, "workflow.suspended", where=lambda event: event.workflow_name == "waits-forever")
    await suspended(server, ident, "waiting")
    assert await server.workflows.cancel(ident)
    child = await server.workflows.get_instance(event.instance_id)
    assert (child.parent_id, child.status) == (ident, "cancelled")


async def test_pause_of_one_that_runs_ends_its_process_at_the_boundary(server, tmp_path):
    gate = tmp_path / "gate"
    ident = await server.workflows.start("holds-on", str(gate))
    await until(server, "workflow.step.started", ident)
    assert len(await children(server)) == 1
    await server.workflows.pause(ident)
    gate.touch()
    instance = await suspended(server, ident, "paused")
    assert list(instance.step_results) == ["hold"]
    await alone(server)
    await server.workflows.unpause(ident)
    assert await server.workflows.result(ident, timeout=PATIENCE) == "after"


async def test_a_killed_child_repeats_no_step_and_keeps_its_values(server, tmp_path):
    gate = tmp_path / "gate"
    ident = await server.workflows.start("holds-on", str(gate))
    event = await until(server, "workflow.step.started", ident)
    (pid,) = await children(server)
    os.kill(pid, 9)
    await until(server, "workflow.resumed", ident, after=event.id)
    gate.touch()
    assert await server.workflows.result(ident, timeout=PATIENCE) == "after"
    instance = await server.workflows.get_instance(ident)
    assert (instance.executions, instance.step_results["hold"].attempts) == (2, 2)


async def test_retry_and_fork(server):
    ident = await server.workflows.start("guess-game", {"names": ["a"]})
    await server.workflows.signal(ident, "guess", 7)
    instance = await ended(server, ident)
    fork = await server.workflows.fork(ident, "ask")
    await suspended(server, fork, "waiting", "guess")
    await server.workflows.signal(fork, "guess", 7)
    again = await ended(server, fork)
    assert again.output == instance.output
    assert again.step_results["begin"].started_at == instance.step_results["begin"].started_at


async def test_a_schedule_fires_children(server):
    await server.workflows.schedule("ticks", every="200ms", input=4, id="often")
    seen = set()
    async with asyncio.timeout(DEADLINE * 2):
        async for event in server.events.subscribe("workflow.completed", after=0):
            if event.instance_id.startswith("often@"):
                seen.add(event.instance_id)
                if len(seen) == 2:
                    break
    assert await server.workflows.unschedule("often")
