"""Limits hold in rows and in live processes, not for a moment more; and whoever waits gets its turn in order."""

import asyncio
import os
import signal

from crashkit import Stage, history, kill, line, proven, until
from ledger import read


async def test_twenty_racing_starts_at_limit_one(stage: Stage):
    async with stage.server(limits={"in-line": 1}) as server:
        started = await asyncio.gather(
            *(server.workflows.start("in-line", {"number": n, "dies": n % 5 == 2}) for n in range(20))
        )
        for n, instance in enumerate(started):
            await proven(server, instance, n)
    begun = read("begin")
    assert not [entry for entry in begun if entry["beside"]], "two at once"
    order = [entry["number"] for entry in begun if entry["attempt"] == 1]
    assert len(order) == 20
    rows = stage.sql("SELECT id FROM paddock_instances ORDER BY seq")
    numbers = {instance: n for n, instance in enumerate(started)}
    assert order == [numbers[row[0]] for row in rows], "not in the order in which they were queued"


async def test_the_slot_survives_the_death_of_all(stage: Stage):
    """A child that outlives its server still holds its slot; one that died with it gives it back."""
    dying = await stage.process(limits={"held": 1, "in-line": 1}, orphan_grace=20.0)
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="a")
    await line("begin", key="hold")
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="b")
    await dying.kill()
    async with stage.server(limits={"held": 1}) as server:
        await server.workflows.start("held", {"until": str(stage.flag)}, id="c")
        assert [row["instance_id"] for row in await server.processes() if row["instance_id"]] == ["a"]
        kill(read("begin", key="hold")[0]["pid"])
        await line("begin", key="hold", instance="a", attempt=2)
        assert not read(instance="b")
        stage.let_go()
        for name in "abc":
            await proven(server, name, ["one", "two", "three"])
    assert not [entry for entry in read("begin") if entry["beside"]], "two at once"


async def test_max_processes_counts_all_workflows(stage: Stage):
    async with stage.server(max_processes=2) as server:
        names = ["in-line", "beside"] * 5
        started = [
            await server.workflows.start(name, {"number": n, "seconds": 0.02, "dies": n == 3})
            for n, name in enumerate(names)
        ]
        for n, instance in enumerate(started):
            await proven(server, instance, n)
    assert max(len(entry["beside"]) for entry in read("begin")) == 1, "never more than two, and two at times"


async def test_a_child_that_has_ended_but_not_exited_holds_its_slot(stage: Stage, monkeypatch):
    """The limit is one of processes, not of statuses."""
    monkeypatch.setenv("PADDOCK_FAULTS", "child.ended:1:stop")
    monkeypatch.setenv("PADDOCK_FAULT_DIR", str(stage.folder))
    async with stage.server(limits={"in-line": 1}) as server:
        first = await server.workflows.start("in-line", {"number": 1})
        second = await server.workflows.start("in-line", {"number": 2})
        assert (await server.workflows.wait(first)).status == "completed"
        [child] = [row["pid"] for row in await server.processes() if row["instance_id"]]
        # the dispatcher looks at every change: give it some, and see it leave the queue alone
        for number in range(3, 9):
            await proven(server, await server.workflows.start("beside", {"number": number}), number)
            assert not read(instance=second)
        os.kill(child, signal.SIGCONT)
        await proven(server, second, 2)


async def test_a_limit_that_was_reached_in_a_crash_is_free_again(stage: Stage):
    """No slot leaks, however often a process dies."""
    async with stage.server(limits={"dying": 1}, max_resumes=1) as server:
        for _ in range(3):
            found = await server.workflows.wait(await server.workflows.start("dying", {"way": "kill"}))
            assert (found.status, found.error and found.error.type) == ("failed", "CrashLoop")
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"))
        assert [event.name for event in await history(server)].count("workflow.failed") == 3
