"""`paddock check` and `check_replays`: would what is on its way go on with the code at hand? Nothing runs, nothing is written."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flowkit import suspended
from pydantic import BaseModel

from paddock import AppServer, DatabaseUnavailable, Poll, StateMachine, WorkflowsConfig, branch, flow, state, workflow
from paddock.testing import check_replays

RAN = []


def note(what=None):
    RAN.append(what)
    return what


async def stands(db, definition, input=None, *, at="go"):
    """Run a workflow on a database up to a wait, and leave it there."""
    server = AppServer(db, workflows=WorkflowsConfig(launcher="inline"))
    server.workflows.register(definition)
    async with server:
        ident = await server.workflows.start(definition, input)
        await suspended(server, ident, "waiting", at)
    RAN.clear()
    return ident


async def verdict(db, definition, **options):
    """Check the only instance of a database against a definition; neither code nor database may have noticed."""
    before = hashlib.sha256(Path(db).read_bytes()).hexdigest()
    (found,) = await check_replays(db, [definition], **options)
    assert RAN == []
    assert hashlib.sha256(Path(db).read_bytes()).hexdigest() == before
    assert {path.name for path in Path(db).parent.iterdir()} <= {
        Path(db).name,
        "app.db-wal",
        "app.db-shm",
        "changed.py",
    }
    return found


# --- one workflow, three front ends -------------------------------------------------------------------------------------


def as_graph(*names, last="last"):
    built = workflow("changing")
    for name in names:
        built = built.task(name, note, input=lambda prev, given: note("a mapper"))
    return (
        built.choice("which", [(lambda ctx: True, "together")])
        .parallel("together", branches=[branch("x").task("one", note).build(), branch("y").sleep("long", "9d").build()])
        .loop("again", lambda ctx: note("a condition") and False, "together")
        .wait_event("go")
        .task(last, note)
        .build()
    )


def as_flow(*names, last="last"):
    @flow("changing")
    async def changing(ctx):
        for name in names:
            await ctx.step(name, note, name)
        await ctx.poll("ready", lambda: note("ready"), every="1h")
        await ctx.gather(ctx.step("together", note), ctx.wait_event("go"))
        await ctx.emit("told")
        return await ctx.step(last, note)

    return changing


def as_plain_flow(*names, last="last"):
    @flow("changing")
    def changing(ctx):
        for name in names:
            ctx.step(name, note, name)
        ctx.wait_event("go")
        return ctx.step(last, note)

    return changing


class Data(BaseModel):
    seen: list[str] = []


def as_machine(*names, last="last"):
    class Changing(StateMachine[Data], name="changing", start="first"):
        @state
        async def first(self):
            return self.second

        @state
        async def second(self):
            for name in names:
                await self.action(name, note, name)
            await self.wait_event("go")
            await self.action(last, note)
            return

    return Changing


STYLES = [as_graph, as_flow, as_plain_flow, as_machine]


def first_of(style, name):
    return f"second/{name}" if style is as_machine else name


async def prepared(tmp_path, style, *names):
    """Return a database with an instance of a style that waits for "go"."""
    db = tmp_path / "app.db"
    if style is as_graph:  # its parallel sleeps: let it stand where the sleep is
        server = AppServer(db, workflows=WorkflowsConfig(launcher="inline"))
        server.workflows.register(definition := style(*names))
        async with server:
            ident = await server.workflows.start(definition)
            await suspended(server, ident, "sleeping", "long")
        RAN.clear()
        return db
    if style is as_machine:
        await stands(db, style(*names), {}, at="go")
    else:
        await stands(db, style(*names))
    return db


@pytest.mark.parametrize("style", STYLES)
async def test_what_fits_goes_on_and_nothing_runs(tmp_path, style):
    db = await prepared(tmp_path, style, "a", "b")
    same = await verdict(db, style("a", "b"))
    assert (same.fit, same.step, same.reason, same.ok) == ("fits", None, None, True)
    assert same.workflow_name == "changing"
    assert not same.changed


@pytest.mark.parametrize("style", STYLES)
async def test_a_new_step_before_recorded_ones_would_block(tmp_path, style):
    db = await prepared(tmp_path, style, "a", "b")
    found = await verdict(db, style("new", "a", "b"))
    assert (found.fit, found.step, found.ok) == ("blocks", first_of(style, "a"), False)
    assert f"'{first_of(style, 'new')}'" in found.reason


@pytest.mark.parametrize("style", STYLES)
async def test_a_recorded_step_that_was_taken_out_would_block(tmp_path, style):
    db = await prepared(tmp_path, style, "a", "b")
    found = await verdict(db, style("b"))
    assert (found.fit, found.step, found.ok) == ("blocks", first_of(style, "a"), False)


@pytest.mark.parametrize("style", STYLES)
async def test_recorded_steps_may_change_places(tmp_path, style):
    db = await prepared(tmp_path, style, "a", "b")
    assert (await verdict(db, style("b", "a"))).fit == "fits"


@pytest.mark.parametrize("style", STYLES)
async def test_what_lies_ahead_may_change(tmp_path, style):
    db = await prepared(tmp_path, style, "a", "b")
    found = await verdict(db, style("a", "b", last="other"))
    assert found.fit == "fits"


# --- what else may be wrong ---------------------------------------------------------------------------------------------


async def test_a_workflow_that_is_gone_would_block(tmp_path):
    await stands(tmp_path / "app.db", as_flow("a"))
    other = flow("another")(lambda: 1)
    found = await verdict(tmp_path / "app.db", other)  # those that this process has built are known too
    assert found.fit == "fits"

    @flow("never-built-again")
    async def gone(ctx):
        await ctx.wait_event("go")

    from paddock.runtime.engine.definition import BUILT

    (tmp_path / "two").mkdir()
    await stands(tmp_path / "two" / "app.db", gone)
    del BUILT[__name__, "never-built-again"]
    found = await verdict(tmp_path / "two" / "app.db", other)
    assert found.fit == "blocks"
    assert "'never-built-again'" in found.reason


async def test_code_that_raises_on_its_way_would_fail(tmp_path):
    code = []

    @flow("raising")
    async def raising(given: dict, ctx):
        found = await ctx.step("a", lambda: {"old": 1})
        if code:
            found["new"]
        await ctx.wait_event("go")

    await stands(tmp_path / "app.db", raising, {})
    code.append(1)
    found = await verdict(tmp_path / "app.db", raising)
    assert (found.fit, found.ok) == ("fails", False)
    assert "KeyError" in found.reason


async def test_what_only_a_running_instance_has_cannot_be_told(tmp_path):
    code = []

    @flow("wanting")
    async def wanting(ctx):
        await ctx.step("a", lambda: 1)
        if code:
            try:
                ctx.plugins.reports.count()
            except Exception:  # noqa: BLE001
                pass
        await ctx.wait_event("go")

    await stands(tmp_path / "app.db", wanting)
    code.append(1)
    found = await verdict(tmp_path / "app.db", wanting)
    assert (found.fit, found.ok) == ("unsure", True)
    assert "ctx.plugins.reports" in found.reason


async def test_code_that_waits_for_something_of_its_own_is_left(tmp_path):
    code = []

    @flow("stuck")
    async def stuck(ctx):
        await ctx.step("a", lambda: 1)
        if code:
            await asyncio.Event().wait()
        await ctx.wait_event("go")

    await stands(tmp_path / "app.db", stuck)
    code.append(1)
    found = await verdict(tmp_path / "app.db", stuck, timeout="50ms")
    assert found.fit == "unsure"
    assert "0.05" in found.reason


async def test_every_kind_of_open_step_is_a_frontier(tmp_path):
    """An open poll, loop, child, retry and sleep: nothing of them goes on, and what is new behind them is not asked for."""
    polled = (
        workflow("changing")
        .poll("there", lambda: note("check") and Poll.pending(), interval="1h", timeout="9d")
        .task("after", note)
        .build()
    )
    db = tmp_path / "app.db"
    server = AppServer(db, workflows=WorkflowsConfig(launcher="inline"))
    server.workflows.register(polled)

    def sick():
        note("sick")
        raise ValueError("sick")

    child = workflow("child-of-it").wait_event("never").build()
    others = [
        flow("kind-retry")(lambda ctx: ctx.step("r", sick, retry={"max_attempts": 3, "interval": "1h"})),
        flow("kind-sleep")(lambda ctx: ctx.sleep("s", "1h")),
        workflow("kind-child").child("c", child).task("after", note).build(),
        workflow("kind-loop").task("t", note).loop("l", lambda ctx: note("again") or True, "t", interval="1h").build(),
        child,
    ]
    for one in others:
        server.workflows.register(one)
    async with server:
        for one in (polled, *others[:4]):
            ident = await server.workflows.start(one)
            async for event in server.events.subscribe("workflow.suspended", instance_id=ident, after=0):
                assert event.data["reason"] in ("sleeping", "waiting")
                break
    RAN.clear()
    found = await check_replays(db, [polled, *others])
    assert [(one.workflow_name, one.fit, one.reason) for one in found] == [
        (name, "fits", None)
        for name in ("changing", "kind-retry", "kind-sleep", "kind-child", "child-of-it", "kind-loop")
    ]
    assert RAN == []


async def test_a_database_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DatabaseUnavailable):
        await check_replays(tmp_path / "no.db", [])
    assert list(tmp_path.iterdir()) == []


# --- the command ----------------------------------------------------------------------------------------------------------

CHANGED = """
from paddock import FlowContext, flow

print("a line of the module")


def effect(what: str) -> str:
    raise AssertionError("a step has run")


@flow("changing")
async def changing(ctx: FlowContext) -> str:
    print("a line of the flow")
    {first}
    await ctx.wait_event("go")
    return await ctx.step("last", effect, "last")
"""


def check(folder, *arguments):
    command = [sys.executable, "-P", "-m", "paddock", "check", *arguments]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


async def test_the_command_names_instance_step_and_reason_and_its_exit_code_tells(tmp_path):
    @flow("changing")
    async def before(ctx):
        await ctx.step("a", note, "a")
        await ctx.wait_event("go")

    ident = await stands(tmp_path / "app.db", before)
    program = tmp_path / "changed.py"
    program.write_text(CHANGED.format(first='await ctx.step("a", effect, "a")'))
    fits = await asyncio.to_thread(check, tmp_path, "changed.py", "--db", "app.db")
    assert (fits.returncode, fits.stdout, fits.stderr) == (0, "", "1 unfinished: 1 go on\n")
    program.write_text(CHANGED.format(first='await ctx.step("b", effect, "b")'))
    blocks = await asyncio.to_thread(check, tmp_path, "changed", "--db", "app.db")
    assert blocks.returncode == 1
    assert blocks.stdout.startswith(f"{ident}  changing  waiting  blocks at a\n")
    assert "'b'" in blocks.stdout
    assert blocks.stderr == "1 unfinished: 1 would block\n"
    shown = await asyncio.to_thread(check, tmp_path, "changed", "--db", "app.db", "--json")
    (row,) = json.loads(shown.stdout)
    assert shown.returncode == 1
    assert (row["instance_id"], row["fit"], row["step"], row["changed"]) == (ident, "blocks", "a", True)
    wrong = await asyncio.to_thread(check, tmp_path, "changed", "--db", "no.db")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: there is no database " + str(tmp_path / "no.db") + "\n"
