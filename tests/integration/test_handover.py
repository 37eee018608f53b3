"""A server that leaves its children to the next one, and a program that is told by signals to end or to restart itself."""

import asyncio
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from crashflows import THREE
from crashkit import Faults, Stage, history, line, living, pid_of, proven, until
from ledger import read, starts

PROGRAM = Path(__file__).parents[1] / "support" / "signalserver.py"
HOLDING = ["held", "held-in-thread", "held-loop"]


async def hold(server: Any, stage: Stage, names: list[str]) -> dict[str, int]:
    """Start one instance of each and wait until its second step runs; return the pids."""
    for name in names:
        await server.workflows.start(name, {"until": str(stage.flag)}, id=name)
    return {name: (await line("begin", key="hold", instance=name))["pid"] for name in names}


def bodies(name: str) -> list[tuple[int, int]]:
    """Return pid and attempt of each time that the second step of an instance began."""
    return [(entry["pid"], entry["attempt"]) for entry in read("begin", key="hold", instance=name)]


# --- stop(handover=True) ---


@pytest.mark.parametrize(("launcher", "transport"), [("fork", "unix"), ("spawn", "tcp")])
async def test_the_next_server_has_the_same_children(stage: Stage, launcher: str, transport: str):
    names = HOLDING if launcher == "fork" else ["held"]
    first = stage.server(launcher=launcher, transport=transport)
    await first.start()
    pids = await hold(first, stage, names)
    fork_server, watchdog = await pid_of(first, "fork-server"), await pid_of(first, "watchdog")
    await first.stop(handover=True)
    assert [starts(pid) is not None for pid in (*pids.values(), fork_server, watchdog)] == [True] * (len(pids) + 2)
    seen: list[int] = []
    async with stage.server(launcher=launcher, transport=transport) as second:
        second.events.on("*", lambda event: seen.append(event.id))
        assert {row["instance_id"]: row["pid"] for row in await second.processes() if row["instance_id"]} == pids
        assert await pid_of(second, "watchdog") != watchdog
        stage.let_go()
        for name in names:
            found = await proven(second, name, THREE)
            assert found.executions == 1
            assert bodies(name) == [(pids[name], 1)]
        everything = [event.id for event in await history(second)]
        await until(lambda: starts(watchdog) is None and starts(fork_server) is None, "the helpers that were left")
    assert everything == list(range(1, len(everything) + 1))  # nothing is missing,
    assert seen == everything[-len(seen) :]  # and nothing came twice
    assert not stage.sql("SELECT * FROM paddock_leases")


async def test_what_ends_between_two_servers_is_settled_by_the_next(stage: Stage):
    first = stage.server()
    await first.start()
    pids = await hold(first, stage, ["held"])
    await first.stop(handover=True)
    stage.let_go()
    await until(lambda: starts(pids["held"]) is None)
    async with stage.server() as second:
        assert (await proven(second, "held", THREE)).executions == 1
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"))


async def test_a_handover_while_children_are_born_and_others_are_ended(stage: Stage):
    first = stage.server(kill_grace=5.0)
    await first.start()
    pids = await hold(first, stage, ["held"])
    ending = asyncio.create_task(first.workflows.cancel("held"))
    names = [f"n{n}" for n in range(5)]
    for name in names:
        await first.workflows.start("held", {"until": str(stage.flag)}, id=name)
    await until(
        lambda: stage.sql("SELECT 1 FROM paddock_leases JOIN paddock_instances ON instance = seq WHERE id = 'n0'")
    )
    await first.stop(handover=True)
    assert await ending
    assert starts(pids["held"]) is None
    async with stage.server() as second:
        stage.let_go()
        for name in names:
            await proven(second, name, THREE)
            assert len(bodies(name)) == 1


async def test_inline_instances_end_and_are_resumed(stage: Stage):
    first = stage.server(launcher="inline", kill_grace=0.2)
    await first.start()
    await hold(first, stage, ["held"])
    await first.stop(handover=True)
    stage.let_go()
    async with stage.server(launcher="inline") as second:
        assert (await proven(second, "held", THREE)).executions == 2


async def test_without_a_next_server_nothing_is_left(stage: Stage):
    first = stage.server(orphan_grace=1.0)
    await first.start()
    pids = await hold(first, stage, HOLDING)
    helpers = [await pid_of(first, "watchdog"), await pid_of(first, "fork-server")]
    await first.stop(handover=True)
    await until(lambda: not [pid for pid in (*pids.values(), *helpers) if starts(pid)], "the end of all")
    assert not living("PADDOCK_INSTANCE=")
    stage.let_go()
    async with stage.server() as second:
        for name in HOLDING:
            await proven(second, name, THREE)


# --- a program that serves until a signal ---


class Program:
    """`signalserver.py` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    @classmethod
    async def start(cls, stage: Stage, names: list[str], script: Path = PROGRAM, **settings: Any) -> "Program":
        instances = [(name, {"until": str(stage.flag)}, name) for name in names]
        log = stage.folder / "program.log"
        with log.open("wb") as file:  # no pipe: its helpers have it too, and may end after it
            return cls(await asyncio.create_subprocess_exec(
                sys.executable, str(script), str(stage.folder), json.dumps({**settings, "instances": instances}),
                stdout=asyncio.subprocess.PIPE, stderr=file, cwd=stage.folder, env={**os.environ, "PYTHONPATH": str(PROGRAM.parent)},
            ), log)  # fmt: skip

    async def says(self, said: str) -> dict[str, Any]:
        """Return its next line, which must be this one."""
        assert self._process.stdout is not None
        async with asyncio.timeout(40):
            text = await self._process.stdout.readline()
        assert text, f"it ended before it said {said!r}"
        found: dict[str, Any] = json.loads(text)
        assert found["said"] == said
        return found

    async def logs(self, words: str) -> str:
        """Return the first line of its log with these words."""
        return await until(
            lambda: next(
                (
                    line
                    for line in self._log.read_text().splitlines(keepends=True)
                    if words in line and line[-1] == "\n"
                ),
                None,
            )
        )

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; return the code."""
        async with asyncio.timeout(40):
            return await self._process.wait()


def zombies(pid: int) -> list[int]:
    """Return a process's children that nobody has reaped."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if starts(int(child)) is None]


async def test_a_rolling_restart_in_the_middle_of_steps(stage: Stage):
    program = await Program.start(stage, HOLDING)
    up = await program.says("up")
    pids = {name: (await line("begin", key="hold", instance=name))["pid"] for name in HOLDING}
    for _ in range(2):
        program.send(signal.SIGHUP)
        await program.says("leaving")
        again = await program.says("up")
        assert again["server"] == up["server"]  # executed anew, in the same process
        assert {name: again["pids"][name] for name in HOLDING} == pids
    await until(lambda: starts(up["pids"]["watchdog"]) is None)
    await until(lambda: not zombies(program.pid), "helpers of earlier servers, reaped")
    stage.let_go()
    await until(lambda: stage.sql("SELECT status FROM paddock_instances GROUP BY 1") == [("completed",)])
    await until(lambda: not zombies(program.pid))
    program.send(signal.SIGTERM)
    await program.says("leaving")
    await program.says("over")
    assert await program.ended() == 0
    assert [bodies(name) for name in HOLDING] == [[(pids[name], 1)] for name in HOLDING]
    async with stage.server() as server:
        for name in HOLDING:
            assert (await proven(server, name, THREE)).executions == 1


async def test_a_program_that_cannot_be_loaded_any_more_is_not_restarted(stage: Stage):
    script = Path(shutil.copy(PROGRAM, stage.folder / "program.py"))
    program = await Program.start(stage, ["held"], script=script)
    await program.says("up")
    child = (await line("begin", key="hold"))["pid"]
    whole = script.read_text()
    script.write_text(f"{whole}\nimport gone\n")
    program.send(signal.SIGHUP)
    refused = await program.logs("not restarted")
    assert f"No module named 'gone' ({script}, line {len(whole.splitlines()) + 2})" in refused
    script.write_text(whole)
    program.send(signal.SIGHUP)
    await program.says("leaving")
    assert (await program.says("up"))["pids"]["held"] == child
    stage.let_go()
    program.send(signal.SIGTERM)
    await program.says("leaving")
    await program.says("over")
    assert await program.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_step_that_ends_within_the_grace_is_kept(stage: Stage, number: int):
    program = await Program.start(stage, ["held"], kill_grace=30.0)
    await program.says("up")
    await line("begin", key="hold")
    program.send(number)
    await program.says("leaving")
    stage.let_go()
    await program.says("over")
    assert await program.ended() == 0
    assert not living("PADDOCK_INSTANCE=")
    async with stage.server() as server:
        await proven(server, "held", THREE)
    assert len(bodies("held")) == 1


async def test_a_second_signal_does_not_wait_for_the_grace(stage: Stage):
    program = await Program.start(stage, HOLDING, kill_grace=600.0)
    await program.says("up")
    for name in HOLDING:
        await line("begin", key="hold", instance=name)
    program.send(signal.SIGTERM)
    await program.says("leaving")
    program.send(signal.SIGTERM)
    await program.says("over")
    assert await program.ended() == 0
    assert not living("PADDOCK_INSTANCE=")
    assert stage.sql("SELECT DISTINCT status, crash_count FROM paddock_instances") == [("pending", 0)]
    stage.let_go()
    async with stage.server() as server:
        for name in HOLDING:
            await proven(server, name, THREE)


# --- the server killed again and again ---


@pytest.mark.slow
async def test_ten_kills_of_the_server_during_one_step(stage: Stage):
    """Four servers die at work, six while they take over from the last: the step neither ends nor begins again."""
    seed = int(os.environ.get("PADDOCK_SEED", "0")) or random.randrange(1, 10**6)
    print(f"PADDOCK_SEED={seed}")
    points = ["server.listening", "server.takeover", "server.taken"]
    deaths = [*points, *points, None, None, None]
    random.Random(seed).shuffle(deaths)
    server = await stage.process(only="held", orphan_grace=60.0)
    await server.ready()
    await server.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    await server.kill()
    for point in deaths:
        if point is None:
            server = await stage.process(only="held", orphan_grace=60.0)
            await server.ready()
            assert (await server.ask("pids"))["pids"]["one"] == child
            await server.kill()
        else:
            faults = Faults(stage, None, dict.fromkeys(points, "kill"))
            faults.arm(point)
            server = await stage.process(only="held", orphan_grace=60.0, environ=faults.environ)
            assert await server.died() == -signal.SIGKILL
    async with stage.server() as last:
        assert {row["pid"] for row in await last.processes() if row["role"] == "child"} == {child}
        stage.let_go()
        found = await proven(last, "one", THREE)
    assert (found.executions, bodies("one")) == (1, [(child, 1)])
