"""A step that always kills its process fails, with what can be known of its death, and takes nobody along."""

import pytest
from crashkit import Stage, finished, history, line, proven
from ledger import read


@pytest.mark.parametrize(
    ("way", "number", "code"),
    [("segv", "SIGSEGV", None), ("kill", "SIGKILL", None), ("abort", "SIGABRT", None), ("exit", None, 0)],
)
async def test_a_step_that_always_kills_its_process(stage: Stage, way: str, number: str | None, code: int | None):
    async with stage.server(max_resumes=2) as server:
        sibling = await server.workflows.start("held", {"until": str(stage.flag)})
        instance = await server.workflows.start("dying", {"way": way})
        found = await finished(server, instance)
        error = found.error
        assert error is not None
        assert (found.status, error.type, error.step) == ("failed", "CrashLoop", "die")
        assert (error.signal, error.exit_code) == (number, code)
        assert f"about to die by {way}" in (error.output or "")
        assert error.max_rss
        if way in ("segv", "abort"):
            assert "in die" in (error.stack or "")
        assert found.executions == 3
        begun = read("begin", key="die")
        assert [entry["attempt"] for entry in begun] == [1, 2, 3]
        names = [event.name for event in await history(server, instance)]
        assert names.count("workflow.failed") == 1
        assert names.count("workflow.resumed") == 2
        stage.let_go()
        assert (await proven(server, sibling, ["one", "two", "three"])).executions == 1


async def test_it_backs_off(stage: Stage):
    async with stage.server(max_resumes=2) as server:
        instance = await server.workflows.start("dying", {"way": "kill"})
        await finished(server, instance)
        resumed = [event for event in await history(server, instance) if event.name == "workflow.resumed"]
        assert (resumed[1].created_at - resumed[0].created_at).total_seconds() >= 0.25


@pytest.mark.parametrize("code", [70, 75, 77, 78])
async def test_an_exit_code_of_ours_in_a_handler_is_a_crash(stage: Stage, code: int):
    """Codes say something only where the runtime itself leaves; else a handler could loop for ever, uncounted."""
    async with stage.server(max_resumes=1) as server:
        found = await finished(server, await server.workflows.start("dying", {"way": "exit", "code": code}))
        assert found.error is not None
        assert (found.error.type, found.error.exit_code) == ("CrashLoop", code)


async def test_progress_resets_the_count(stage: Stage):
    """Two deaths at each of two places, with two allowed at each."""
    async with stage.server(max_resumes=2) as server:
        found = await proven(server, await server.workflows.start("dying-twice", {"times": 2}), "alive")
        assert found.executions == 5


async def test_a_retry_after_a_crash_loop(stage: Stage):
    async with stage.server(max_resumes=0) as server:
        instance = await server.workflows.start("dying", {"way": "kill", "unless": str(stage.flag)})
        assert (await finished(server, instance)).status == "failed"
        stage.let_go()
        await server.workflows.retry(instance)
        await line("end", key="die")
        found = await finished(server, instance)
        assert (found.status, found.output) == ("completed", "survived")
