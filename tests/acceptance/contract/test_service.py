"""The workflows service: start, ids, reading and paging, waiting, cancelling, metadata, cleanup."""

import asyncio
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import contractflows as flows
import psutil
import pytest
from contractkit import became, names, past, until
from contractnotes import notes

from paddock import (
    AppServer,
    ConfigError,
    InstanceIdConflict,
    InstanceNotFound,
    InvalidInput,
    InvalidInstanceId,
    InvalidTransition,
    NotSerializable,
    Status,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
    workflow,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
twice = pytest.mark.modes("inline", "fork")


def _hold(tmp_path: Path, **more) -> dict:
    return {"log": str(tmp_path / "log"), "gate": str(tmp_path / "gate"), **more}


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def _count(server: AppServer) -> int:
    return len(await server.workflows.get_all_instances(limit=100_000))


# --- start and ids ----------------------------------------------------------------------------------------------------


async def test_ids_are_uuid7_and_in_order_of_time(server: AppServer):
    ids = [await server.workflows.start("echo", n) for n in range(20)]
    assert ids == sorted(set(ids))
    assert {uuid.UUID(i).version for i in ids} == {7}
    stamp = uuid.UUID(ids[0]).int >> 80
    assert abs(stamp / 1000 - datetime.now(UTC).timestamp()) < 60
    for ident in ids:
        await server.workflows.wait(ident, timeout=30)


async def test_start_and_run_take_a_name_or_a_definition(server: AppServer):
    assert await server.workflows.run("echo", 1) == await server.workflows.run(flows.echo_flow, 1) == 1
    other = workflow("echo").task("a", flows.echo).build()
    with pytest.raises(WorkflowNotFound, match="echo"):
        await server.workflows.start(other)
    for wrong in ("no such", "", None, 7, flows.echo):
        with pytest.raises(WorkflowNotFound):
            await server.workflows.start(wrong)
        with pytest.raises(WorkflowNotFound):
            await server.workflows.run(wrong)


async def test_the_same_id_again_starts_nothing_and_returns_it(server: AppServer):
    ident = f"order:{uuid.uuid4().hex}"
    made = await asyncio.gather(*(server.workflows.start("echo", {"a": 1, "b": 2}, id=ident) for _ in range(8)))
    assert set(made) == {ident}
    await server.workflows.wait(ident, timeout=30)
    assert await server.workflows.start("echo", {"b": 2, "a": 1}, id=ident) == ident
    assert names(await past(server, ident)).count("started") == 1
    before = await past(server, ident)
    with pytest.raises(InstanceIdConflict, match=ident):
        await server.workflows.start("echo", {"a": 1, "b": 3}, id=ident)
    with pytest.raises(InstanceIdConflict, match=ident):
        await server.workflows.start("context", {"a": 1, "b": 2}, id=ident)
    assert await past(server, ident) == before
    assert (await server.workflows.get_instance(ident)).input == {"a": 1, "b": 2}


async def test_the_same_id_with_an_input_of_equal_json(server: AppServer):
    ident = uuid.uuid4().hex
    await server.workflows.start("price", flows.Order(id="a", qty=2, due="2024-01-31"), id=ident)
    given = {"due": "2024-01-31", "qty": 2, "id": "a"}
    assert await server.workflows.start("price", given, id=ident) == ident
    await server.workflows.wait(ident, timeout=30)


@pytest.mark.parametrize(
    "ident",
    ["a/b", "../a", "a\0b", "a\n", "\n", "a" * 300, "", " a", "a b", "-a", ".hidden", "ü", 7, b"x", "a;b", "a\x1b[0m"],
)
async def test_a_hostile_id_is_refused_and_leaves_nothing(server: AppServer, ident):
    before = await _count(server)
    with pytest.raises(InvalidInstanceId) as caught:
        await server.workflows.start("echo", 1, id=ident)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    assert (repr(ident)[:20] in message) or ascii(ident)[:20] in message
    assert await _count(server) == before


@pytest.mark.parametrize("ident", ["a", "A" * 128, "order:1", "user@host", "a.b_c-d+e=f~g", "0"])
async def test_ids_of_ones_own(server: AppServer, ident: str):
    assert await server.workflows.start("echo", 1, id=ident) == ident
    assert (await server.workflows.wait(ident, timeout=30)).status == "completed"
    await server.workflows.cleanup(ident)


async def test_bad_options_of_start_leave_nothing(server: AppServer):
    before = await _count(server)
    for wrong, error, word in (
        ({"delay": "soon"}, ConfigError, "soon"),
        ({"delay": -1}, ConfigError, "-1"),
        ({"delay": float("inf")}, ConfigError, "inf"),
        ({"priority": "high"}, InvalidInput, "high"),
        ({"priority": 1.5}, InvalidInput, "1.5"),
        ({"priority": True}, InvalidInput, "True"),
        ({"metadata": {7: 1}}, InvalidInput, "7"),
        ({"metadata": {"": 1}}, InvalidInput, "metadata"),
        ({"metadata": ["a"]}, InvalidInput, "metadata"),
        ({"metadata": {"k": object()}}, NotSerializable, "'k'"),
    ):
        with pytest.raises(error, match=word):
            await server.workflows.start("echo", 1, **wrong)
    with pytest.raises(InvalidInput, match=r"price.*qty"):
        await server.workflows.start("price", {"id": "a", "qty": "many"})
    with pytest.raises(InvalidInput, match="validated"):
        await server.workflows.start("validated", "no order")
    with pytest.raises(ConfigError, match="a while"):
        await server.workflows.run("echo", 1, timeout="a while")
    assert await _count(server) == before


async def test_a_delayed_instance_is_pending_until_its_time(server: AppServer):
    ident = await server.workflows.start("echo", 1, delay=timedelta(seconds=1))
    waiting = await server.workflows.get_instance(ident)
    assert (waiting.status, waiting.started_at, waiting.executions) == ("pending", None, 0)
    assert timedelta(0) < waiting.wake_at - waiting.created_at <= timedelta(seconds=1.1)
    done = await server.workflows.wait(ident, timeout=30)
    assert done.started_at >= waiting.wake_at
    assert done.wake_at is None


# --- waiting ----------------------------------------------------------------------------------------------------------


@twice
async def test_a_timeout_of_the_waiter_leaves_the_instance_alone(server: AppServer, tmp_path: Path):
    given = _hold(tmp_path)
    ident = await server.workflows.start("hold", given)
    await became(lambda: notes(given["log"]))
    for call in (server.workflows.wait, server.workflows.result):
        with pytest.raises(TimeoutError, match=ident):
            await call(ident, timeout="20ms")
    with pytest.raises(TimeoutError):
        await server.workflows.run("hold", given, timeout=0.02)
    (tmp_path / "gate").touch()
    assert await server.workflows.result(ident, timeout=30) == "held"
    for instance in await server.workflows.get_instances("hold", status="running"):
        await server.workflows.wait(instance.id, timeout=30)


async def test_a_wait_on_what_has_ended_returns_even_without_time(server: AppServer):
    ident = await server.workflows.start("echo", 1)
    await server.workflows.wait(ident, timeout=30)
    assert (await server.workflows.wait(ident, timeout=0)).output == 1
    assert await server.workflows.result(ident, timeout=0) == 1


async def test_many_may_wait_for_one(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("hold", _hold(tmp_path))
    waiting = [asyncio.create_task(server.workflows.result(ident, timeout=30)) for _ in range(5)]
    await until(server, "workflow.step.started", ident)
    (tmp_path / "gate").touch()
    assert await asyncio.gather(*waiting) == ["held"] * 5


async def test_an_unknown_id_is_named(server: AppServer):
    service = server.workflows
    for call in (
        service.wait,
        service.result,
        service.cancel,
        service.cleanup,
        lambda i: service.update_metadata(i, {"a": 1}),
        lambda i: server.events.history(instance_id=i),
        lambda i: server.logs.query(instance_id=i),
    ):
        with pytest.raises(InstanceNotFound, match="nobody"):
            await call("nobody")
    assert await service.get_instance("nobody") is None


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_instances_are_read_in_pages_by_name_and_status(server: AppServer):
    good = [await server.workflows.start("slim") for _ in range(5)]
    bad = [await server.workflows.start("failing", n) for n in range(3)]
    for ident in [*good, *bad]:
        await server.workflows.wait(ident, timeout=30)
    service = server.workflows
    seen: list[str] = []
    after = None
    while page := await service.get_instances("slim", limit=2, after=after):
        assert len(page) <= 2
        seen += [i.id for i in page]
        after = page[-1].id
    assert seen == sorted(seen)
    assert set(good) <= set(seen)
    assert [i.id for i in await service.get_instances("failing", "failed")] == bad
    assert [i.id for i in await service.get_instances("failing", Status.FAILED, limit=1)] == bad[:1]
    assert await service.get_instances("failing", "completed") == []
    assert await service.get_instances("no such") == []
    everything = await service.get_all_instances(limit=1000)
    assert [i.id for i in everything] == sorted(i.id for i in everything)
    assert {*good, *bad} <= {i.id for i in everything}
    assert {i.status for i in await service.get_all_instances("failed", limit=1000)} == {"failed"}
    one = await service.get_instance(bad[0])
    assert one in await service.get_all_instances("failed", limit=1000)
    assert one.step_results["fail"].error.message == "cannot 0"


async def test_bad_paging_is_refused(server: AppServer):
    with pytest.raises(ConfigError, match="done"):
        await server.workflows.get_instances("echo", "done")
    for limit in (0, -1, "ten", 1.5, None, True):
        for call in (
            lambda n: server.workflows.get_instances("echo", limit=n),
            lambda n: server.workflows.get_all_instances(limit=n),
            lambda n: server.events.history(limit=n),
            lambda n: server.logs.query(limit=n),
        ):
            with pytest.raises(ConfigError, match="limit"):
                await call(limit)
    for after in ("x", 1.5, -1, True):
        with pytest.raises(ConfigError, match="after"):
            await server.events.history(after=after)
        with pytest.raises(ConfigError, match="after"):
            await server.logs.query(after=after)
    with pytest.raises(ConfigError, match="after"):
        await server.workflows.get_all_instances(after=7)
    with pytest.raises(ConfigError, match="loud"):
        await server.logs.query(level="loud")


async def test_what_is_read_is_frozen(server: AppServer):
    ident = await server.workflows.start("failing", 1)
    instance = await server.workflows.wait(ident, timeout=30)
    event = (await past(server, ident))[0]
    for thing, name in (
        (instance, "status"),
        (instance.step_results["ok"], "output"),
        (instance.error, "type"),
        (event, "id"),
    ):
        with pytest.raises(ValueError, match="frozen"):
            setattr(thing, name, "x")


# --- metadata ---------------------------------------------------------------------------------------------------------


async def test_metadata_merges(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("hold", _hold(tmp_path), metadata={"a": 1, "b": {"deep": True}})
    await until(server, "workflow.step.started", ident)
    await server.workflows.update_metadata(ident, {"b": None, "c": [1]})
    await asyncio.gather(*(server.workflows.update_metadata(ident, {f"k{n}": n}) for n in range(10)))
    expected = {"a": 1, "b": None, "c": [1], **{f"k{n}": n for n in range(10)}}
    assert (await server.workflows.get_instance(ident)).metadata == expected
    for wrong, error in (({3: 1}, InvalidInput), ({"x": object()}, NotSerializable), ("text", InvalidInput)):
        with pytest.raises(error):
            await server.workflows.update_metadata(ident, wrong)
    (tmp_path / "gate").touch()
    assert (await server.workflows.wait(ident, timeout=30)).metadata == expected


# --- cancel -----------------------------------------------------------------------------------------------------------


@twice
async def test_cancel_a_running_one_and_again(server: AppServer, tmp_path: Path):
    given = _hold(tmp_path)
    ident = await server.workflows.start("hold", given)
    line = await became(lambda: notes(given["log"]))
    pid = int(line[0].split()[1])
    assert await server.workflows.cancel(ident) is True
    if pid != os.getpid():
        assert _is_gone(pid)
    instance = await server.workflows.get_instance(ident)
    assert (instance.status, instance.pid, instance.output) == ("cancelled", None, None)
    assert instance.completed_at is not None
    assert await server.workflows.cancel(ident) is False
    with pytest.raises(WorkflowCancelled, match=ident) as caught:
        await server.workflows.result(ident, timeout=30)
    assert caught.value.instance_id == ident
    (tmp_path / "gate").touch()
    told = names(await past(server, ident))
    assert told.count("cancelled") == 1
    assert told[-1] == "cancelled"
    assert not {"failed", "completed", "timed_out"} & set(told)


@twice
async def test_cancel_what_is_pending_or_sleeps(server: AppServer):
    for ident in (
        await server.workflows.start("echo", 1, delay="1h"),
        await server.workflows.start("long-sleep"),
    ):
        instance = await server.workflows.get_instance(ident)
        if instance.workflow_name == "long-sleep":
            await until(server, "workflow.suspended", ident)
        assert await server.workflows.cancel(ident) is True
        assert await server.workflows.cancel(ident) is False
        instance = await server.workflows.get_instance(ident)
        assert (instance.status, instance.wake_at) == ("cancelled", None)
        assert names(await past(server, ident))[-1] == "cancelled"


async def test_cancel_what_has_ended_changes_nothing(server: AppServer):
    for flow, status in (("echo", "completed"), ("failing", "failed")):
        ident = await server.workflows.start(flow, 1)
        before = await server.workflows.wait(ident, timeout=30)
        assert await server.workflows.cancel(ident) is False
        assert await server.workflows.get_instance(ident) == before
        assert before.status == status


async def test_of_ten_cancels_at_once_one_is_true(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("hold", _hold(tmp_path))
    await until(server, "workflow.step.started", ident)
    answers = await asyncio.gather(*(server.workflows.cancel(ident) for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]


async def test_cancel_wakes_who_waits(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("hold", _hold(tmp_path))
    waiting = asyncio.create_task(server.workflows.result(ident))
    await until(server, "workflow.step.started", ident)
    await server.workflows.cancel(ident)
    with pytest.raises(WorkflowCancelled):
        await asyncio.wait_for(waiting, 30)


# --- cleanup ----------------------------------------------------------------------------------------------------------


@twice
async def test_cleanup_deletes_what_has_ended_and_only_that(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("hold", _hold(tmp_path))
    later = await server.workflows.start("echo", 1, delay="1h")
    await until(server, "workflow.step.started", ident)
    for each, status in ((ident, "running"), (later, "pending")):
        with pytest.raises(InvalidTransition, match=f"{each}.*{status}"):
            await server.workflows.cleanup(each)
    (tmp_path / "gate").touch()
    await server.workflows.wait(ident, timeout=30)
    await server.workflows.cancel(later)
    newest = (await server.events.history(limit=100_000))[-1].id
    for each in (ident, later):
        await server.workflows.cleanup(each)
        assert await server.workflows.get_instance(each) is None
        with pytest.raises(InstanceNotFound):
            await server.workflows.cleanup(each)
    assert not [e for e in await server.events.history(limit=100_000) if e.instance_id in (ident, later)]
    assert not [r for r in await server.logs.query(limit=100_000) if r.instance_id in (ident, later)]
    again = await server.workflows.start("echo", 2, id=ident)
    assert await server.workflows.result(again, timeout=30) == 2
    assert min(e.id for e in await past(server, again)) > newest, "an id of an event was used again"


async def test_a_failed_run_names_the_workflow_the_instance_and_the_cause(server: AppServer):
    with pytest.raises(WorkflowFailed) as caught:
        await server.workflows.run("failing", 1)
    text = str(caught.value)
    assert all(word in text for word in ("failing", caught.value.instance_id, "fail", "ValueError", "cannot 1"))
    assert caught.value.workflow_name == "failing"


# --- looking ----------------------------------------------------------------------------------------------------------


async def test_processes_and_health(server: AppServer, tmp_path: Path):
    given = _hold(tmp_path)
    ident = await server.workflows.start("hold", given)
    line = await became(lambda: notes(given["log"]))
    instance = await server.workflows.get_instance(ident)

    async def beaten():
        rows = await server.processes()
        return rows if any(row["last_beat"] is not None and row["step"] == "hold" for row in rows) else None

    rows = await became(beaten)
    assert [row["role"] for row in rows] == ["server", "watchdog", "fork-server", "child"]
    for row in rows:
        assert set(row) == {"role", "pid", "instance_id", "step", "rss", "cpu", "last_beat"}
        assert row["rss"] > 0
        assert row["cpu"] >= 0
    child = rows[-1]
    assert child["pid"] == int(line[0].split()[1]) == instance.pid
    assert (child["instance_id"], child["step"]) == (ident, "hold")
    assert 0 <= child["last_beat"] < 30
    assert rows[0]["pid"] == os.getpid()
    assert await server.health() == {"ok": True, "problems": {}}
    (tmp_path / "gate").touch()
    await server.workflows.wait(ident, timeout=30)
