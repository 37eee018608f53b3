"""What happened in children arrives: events whole, in order and once, and every line that anybody printed."""

import asyncio

import pytest
from crashkit import Faults, Stage, finished, history, kill, line, pid_of, proven, until

from paddock import Event


async def test_thirty_large_outputs_arrive_intact(stage: Stage):
    text = "größer 你好 🐎 "
    times = 300_000 // len(text.encode()) + 1
    async with stage.server() as server:
        seen: list[str] = []
        slow: list[int] = []
        server.events.on("workflow.completed", lambda event: seen.append(event.data["output"]))

        async def dawdle(event: Event) -> None:
            slow.append(event.id)
            await asyncio.Event().wait()  # until the server stops

        def fail(_event: Event) -> None:
            raise RuntimeError("a subscriber's own trouble")

        async def fail_later(_event: Event) -> None:
            raise RuntimeError("a subscriber's own trouble, later")

        server.events.on("*", dawdle)
        server.events.on("*", fail)
        server.events.on("*", fail_later)
        started = [await server.workflows.start("large", {"text": text, "times": times}) for _ in range(30)]
        for instance in started:
            found = await finished(server, instance)
            assert found.status == "completed"
            assert found.output == text * times
        await until(lambda: len(seen) == 30, "thirty events")
        assert seen == [text * times] * 30
        assert len(slow) == 1


@pytest.mark.parametrize("points", [{"child.commit.after": "kill"}, {"child.commit.inside": "kill"}])
async def test_a_subscriber_that_comes_back_misses_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, points: dict[str, str]
):
    """It leaves after every seventh event and comes back with its cursor, while children die and the server is restarted."""
    Faults(stage, monkeypatch, points, every=23)
    ids: list[int] = []

    async def read(server, count: int) -> None:
        async for event in server.events.subscribe(after=ids[-1] if ids else 0):
            ids.append(event.id)
            if event.id - (ids[0] - 1) >= count:
                return

    instances: list[str] = []
    for _ in range(2):
        async with stage.server() as server:
            instances += [await server.workflows.start("everything", {"n": n}) for n in range(1, 4)]
            for turn in range(4):
                await asyncio.wait_for(read(server, len(ids) + 7), 30)
                if turn == 1:
                    kill(await pid_of(server, "fork-server"))
            if len(instances) == 3:
                continue
            for instance in instances:
                await finished(server, instance)
            last = (await history(server))[-1].id
            await asyncio.wait_for(read(server, last), 30)
            assert ids == list(range(1, last + 1))


async def test_events_of_a_dead_server_reach_the_next(stage: Stage):
    dying = await stage.process()
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    await line("begin", key="hold")
    await dying.kill()
    stage.let_go()
    await line("end", key="last")  # it went on alone
    async with stage.server() as server:
        await proven(server, "one", ["one", "two", "three"])
        assert [event.id for event in await history(server)][-1] == len(await history(server))


@pytest.mark.parametrize("launcher", ["fork", "spawn"])
@pytest.mark.parametrize("dies", [False, True])
async def test_every_printed_line_is_kept_once(stage: Stage, launcher: str, dies: bool):
    async with stage.server(launcher=launcher) as server:
        instance = await server.workflows.start("speaking", {"dies": dies})
        await proven(server, instance, "heard")
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"))
        records = await server.logs.query(instance_id=instance, limit=1000)
        found = [(record.source, record.message) for record in records if record.message]
        once = [
            ("stdout", "raw on one"),
            ("stderr", "raw on two"),
            ("stdout", "printed äöü 你好"),
            ("stdout", "from a grandchild"),
            ("stdout", "from a thread"),
        ]
        times = 2 if dies else 1
        for entry in once:
            assert found.count(entry) == times, (entry, found)
        assert found.count(("stdout", "last words")) == dies
        assert found.count(("stdout", "without a newline")) == 1
        assert found.count(("stdout", "afterwards")) == 1
        steps = {record.message: record.step_name for record in records}
        assert steps["printed äöü 你好"] == steps["without a newline"] == "speak"
        assert not dies or steps["last words"] == "speak"
        assert steps["afterwards"] == "listen"


async def test_replayed_code_prints_nothing_twice(stage: Stage):
    """A flow's own lines, between its steps, are run again by each execution, and kept once."""
    async with stage.server() as server:
        instance = await server.workflows.start("telling", {"dies": 3})
        assert (await finished(server, instance)).output == 3
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"))
        told = [record.message for record in await server.logs.query(instance_id=instance, limit=1000)]
        told = [message for message in told if message.startswith(("before", "logged"))]
        assert sorted(told) == sorted(f"{what} {n}" for what in ("before", "logged") for n in range(3))
