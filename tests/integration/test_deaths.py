"""The black box: each way to die is told from the others, with all that can be known of it."""

from typing import Any

import limitflows
import pytest
from crashkit import Stage, finished, history, living, until
from ledger import starts

from paddock import AppServer, Instance, WatchdogConfig, WorkflowsConfig
from paddock.runtime.base.causes import Cause

pytestmark = pytest.mark.slow

WATCHDOG = {"interval": 0.1, "heartbeat_timeout": 1.5, "kill_grace": 0.3}


def server_on(stage: Stage, *, watchdog: dict[str, Any] | None = None, **workflows: Any) -> AppServer:
    settings = {"max_resumes": 0, "kill_grace": 0.5, **workflows}
    return AppServer(
        stage.db, workflows=WorkflowsConfig(**settings), watchdog=WatchdogConfig(**{**WATCHDOG, **(watchdog or {})})
    )


async def ended(server: AppServer, workflow: Any, value: Any = None) -> Instance:
    """Run an instance to its end; leave nothing of it."""
    instance = await server.workflows.start(workflow, value)
    found = await finished(server, instance)
    await until(lambda: not living(f"PADDOCK_INSTANCE={instance}:"), "the end of the tree")
    return found


# way → cause, signal, exit code, what the message says, what the stack shows
DEATHS = {
    "segfault": (Cause.FATAL_SIGNAL, "SIGSEGV", None, "a segmentation fault", "in segfault"),
    "exit 0": (Cause.EXIT, None, 0, "exited with code 0 in the middle", None),
    "exit 3": (Cause.EXIT, None, 3, "exited with code 3 in the middle", None),
    "memory": (Cause.MEMORY_LIMIT, "SIGKILL", None, "memory_limit is 200 MB", "in "),
    "kill": (Cause.KILLED, "SIGKILL", None, "killed by SIGKILL from outside", None),
    "term": (Cause.KILLED, "SIGTERM", None, "killed by SIGTERM from outside", None),
    "deadlock": (Cause.SILENT, "SIGTERM", None, "without a heartbeat and without CPU time", "in deadlock"),
}


async def test_each_way_to_die_is_told_from_the_others(stage: Stage):
    async with server_on(stage, max_processes=20) as server:
        server.workflows.register(limitflows.dying_of, memory_limit="200MB")
        started = {way: await server.workflows.start("dying-of", way) for way in DEATHS}
        for way, (cause, signal, code, words, frame) in DEATHS.items():
            found = await finished(server, started[way])
            error = found.error
            assert error is not None, way
            assert (found.status, error.type, error.step, error.attempt) == ("failed", "CrashLoop", "die", 1), way
            assert (error.cause, error.signal, error.exit_code) == (cause, signal, code), way
            assert words in error.message, way
            assert frame is None or frame in (error.stack or ""), way
            assert (error.output, error.error_output) == (f"about to die: {way}\n", f"alas: {way}\n")
            assert error.max_rss, way
            assert error.cpu_seconds is not None, way
            assert error.cpu_seconds == pytest.approx(
                (error.user_seconds or 0) + (error.system_seconds or 0), abs=0.002
            )
            if way == "memory":
                assert (error.peak_memory or 0) > 200 * limitflows.MB
            [crash] = [event for event in await history(server, started[way]) if event.name == "workflow.crashed"]
            assert crash.data["crashes"] == 1
            assert "wake_at" not in crash.data
            assert {**crash.data["error"], "type": "", "message": ""} == {
                **error.model_dump(mode="json", exclude_none=True), "type": "", "message": ""
            }  # fmt: skip


async def test_a_cpu_limit(stage: Stage):
    """Who is deaf to the kernel's first signal is told by the time that it has used."""
    async with server_on(stage) as server:
        server.workflows.register(limitflows.dying_of_cpu, cpu_limit="200ms")  # the kernel counts whole seconds
        ids = [await server.workflows.start("dying-of-cpu", way) for way in ("cpu", "cpu, deaf")]
        for ident, signal in zip(ids, ("SIGXCPU", "SIGKILL"), strict=True):
            error = (await finished(server, ident)).error
            assert error is not None
            assert (error.type, error.cause, error.signal) == ("CrashLoop", Cause.CPU_LIMIT, signal)
            assert "cpu_limit of 1s" in error.message
            assert (error.cpu_seconds or 0) > 0.7
            assert signal == "SIGKILL" or "in spin_in_a_thread" in (error.stack or "")


async def test_steps_that_never_end(stage: Stage):
    """In a thread, on the loop, in C with the GIL, busy and idle: the error says where each one stood."""
    async with server_on(stage, max_processes=20, watchdog={"heartbeat_timeout": 60.0}) as server:
        for flow in limitflows.overlong.values():
            server.workflows.register(flow)
        started = {name: await server.workflows.start(f"timed-{name}") for name in limitflows.overlong}
        for name, ident in started.items():
            found = await finished(server, ident)
            error = found.error
            assert error is not None, name
            assert (found.status, error.type, error.step, error.attempt) == ("failed", "StepTimeout", "long", 1), name
            assert (error.cause, error.message) == (Cause.STEP_TIMEOUT, "step 'long' took longer than 1s"), name
            assert f"in {name}" in (error.stack or ""), name
            assert found.step_results["long"].attempts == 1, name
            names = [event.name for event in await history(server, ident)]
            assert "workflow.crashed" not in names, "a timeout is the step's failure, no crash"


async def test_a_loop_that_stands_still(stage: Stage):
    """It may, unless `stall_timeout` is set; threads may do what they like beside a loop that turns."""
    stuck, free = (
        ("spin_on_the_loop", "block_the_loop", "spin_in_c_on_the_loop"),
        ("block_in_a_thread", "wait_for_ever"),
    )
    watchdog = {"heartbeat_timeout": 60.0, "stall_timeout": 4.0}
    async with server_on(stage, max_processes=20, watchdog=watchdog) as server:
        for name in (*stuck, *free):
            server.workflows.register(limitflows.endless[name])
        started = {name: await server.workflows.start(f"endless-{name}") for name in (*free, *stuck)}
        for name in stuck:
            error = (await finished(server, started[name])).error
            assert error is not None, name
            assert (error.type, error.cause) == ("CrashLoop", Cause.STALLED), name
            assert "stall_timeout" in error.message
            assert f"in {name}" in (error.stack or ""), name
        for name in free:  # as long at work as those that were found
            found = await server.workflows.get_instance(started[name])
            assert found is not None
            assert (found.status, found.executions) == ("running", 1), name
            assert await server.workflows.cancel(started[name])


async def test_crashes_back_off_and_tell_of_each(stage: Stage):
    async with server_on(stage, max_resumes=2) as server:
        server.workflows.register(limitflows.dying_of)
        found = await ended(server, "dying-of", "exit 3")
        assert found.error is not None
        assert (found.error.type, found.error.exit_code) == ("CrashLoop", 3)
        assert found.error.output == "about to die: exit 3\n"
        crashes = [event for event in await history(server, found.id) if event.name == "workflow.crashed"]
        assert [event.data["crashes"] for event in crashes] == [1, 2, 3]
        assert [event.data["error"]["attempt"] for event in crashes] == [1, 2, 3]
        assert crashes[0].data["wake_at"] is None
        assert crashes[1].data["wake_at"] > crashes[1].created_at.timestamp()
        assert "wake_at" not in crashes[2].data


@pytest.mark.parametrize("end", ["normal", "crash", "cancel", "timeout"])
async def test_nobody_stays_behind(stage: Stage, end: str):
    """New sessions, double forks, an empty environment, ignored signals; a copy of the process with every descriptor."""
    pids = stage.folder / "pids"
    async with server_on(stage, max_resumes=1) as server:
        workflow = limitflows.founding_timed if end == "timeout" else limitflows.founding
        server.workflows.register(workflow)
        ident = await server.workflows.start(workflow, end, metadata={"pids": str(pids)})
        if end != "timeout":
            await until(lambda: pids.exists() and len(pids.read_text().split()) >= 7, "the family")
        if end == "cancel":
            assert await server.workflows.cancel(ident)
        found = await finished(server, ident)
        assert (
            found.status
            == {"normal": "completed", "crash": "completed", "cancel": "cancelled", "timeout": "failed"}[end]
        )
        assert pids.read_text().split()
        await until(lambda: not [pid for pid in pids.read_text().split() if starts(int(pid))], "the end of the family")
