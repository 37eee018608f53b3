"""What a workflow's processes may use: it binds them, and what cannot bind is refused at the door."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import limitflows
import pytest
from crashkit import Stage, finished, history, living, until

from paddock import AppServer, ConfigError, LimitNotEnforceable, WatchdogConfig, WorkflowsConfig, workflow
from paddock.runtime.base.causes import Cause
from paddock.runtime.base.tasks_group import groups_folder, remove


def server_on(stage: Stage, **workflows: Any) -> AppServer:
    settings = {"max_resumes": 0, "kill_grace": 0.5, **workflows}
    return AppServer(stage.db, workflows=WorkflowsConfig(**settings), watchdog=WatchdogConfig(interval=0.1))


# --- memory ---


async def test_too_much_memory_is_the_steps_error(stage: Stage):
    """A `MemoryError` like any other exception: retried, in the same process."""
    async with server_on(stage) as server:
        server.workflows.register(limitflows.greedy_flow, memory_limit="200MB")
        instance = await server.workflows.start("greedy", 400)
        found = await finished(server, instance)
        assert (found.status, found.output, found.executions) == ("completed", "content at try 2 with 1 MB", 1)
        [retry] = [event for event in await history(server, instance) if event.name == "workflow.step.retry"]
        assert retry.data["error"]["type"] == "MemoryError"
        assert "memory_limit" in retry.data["error"]["message"]
        assert (
            await finished(server, await server.workflows.start("greedy", 20))
        ).output == "content at try 1 with 20 MB"


async def test_what_its_programs_hold_counts_too(stage: Stage):
    async with server_on(stage) as server:
        server.workflows.register(limitflows.hoarding, memory_limit="200MB")
        instance = await server.workflows.start("hoarding", 600)
        found = await finished(server, instance)
        assert found.error is not None
        assert (found.error.type, found.error.cause) == ("CrashLoop", Cause.MEMORY_LIMIT)
        assert (found.error.peak_memory or 0) > 200 * limitflows.MB
        assert (found.error.max_rss or 0) < 200 * limitflows.MB, "it was not the process itself"
        await until(lambda: not living(f"PADDOCK_INSTANCE={instance}:"), "the end of the tree")


async def test_memory_that_is_shared_counts_once(stage: Stage):
    async with server_on(stage) as server:
        server.workflows.register(limitflows.sharing, memory_limit="300MB")
        assert await server.workflows.run("sharing", 100) == 100


async def test_a_limit_under_what_a_process_needs_to_begin_blocks(stage: Stage):
    async with server_on(stage) as server:
        server.workflows.register(limitflows.looking, memory_limit="2MB")
        found = await finished(server, await server.workflows.start("looking"))
        assert found.error is not None
        if found.status == "blocked":
            assert found.error.type == "LimitNotEnforceable"
        else:  # the watchdog was quicker than the process itself
            assert found.error.cause == Cause.MEMORY_LIMIT
        assert "2 MB" in found.error.message


# --- what a process sees ---


@pytest.mark.parametrize("launcher", ["fork", "spawn"])
async def test_what_a_process_sees(stage: Stage, monkeypatch: pytest.MonkeyPatch, launcher: str):
    folder = stage.folder / "work"
    folder.mkdir()
    monkeypatch.setenv("SECRET", "hidden")
    monkeypatch.setenv("SHOWN_ONE", "1")
    async with server_on(stage, launcher=launcher) as server:
        server.workflows.register(
            limitflows.looking,
            env={"GIVEN": "given", "SHOWN_*": None},
            cwd=folder,
            nice=5,
            open_files=90,
            cpu_limit="1min",
            memory_limit="1GB",
        )
        seen = await server.workflows.run("looking")
    assert seen["environ"]["GIVEN"] == "given"
    assert seen["environ"]["SHOWN_ONE"] == "1"
    assert seen["environ"]["PATH"] == os.environ["PATH"]
    assert seen["environ"]["PADDOCK_INSTANCE"]
    assert "SECRET" not in seen["environ"]
    assert seen["grandchild"] == ["-given", str(folder.resolve())]
    assert (seen["cwd"], seen["nice"], seen["open_files"], seen["cpu"]) == (str(folder.resolve()), 5, 90, 60)
    assert os.environ["SECRET"] == "hidden"


@pytest.mark.skipif(groups_folder() is None, reason="no control group here that counts processes")
async def test_a_bound_of_processes(stage: Stage):
    folder = groups_folder()
    assert folder is not None
    before = set(os.listdir(folder))
    async with server_on(stage) as server:
        server.workflows.register(limitflows.breeding, processes=10)
        found = await finished(server, await server.workflows.start("breeding", 100))
        assert found.error is not None
        assert (found.error.type, found.executions) == ("BlockingIOError", 1)
        printed = [record.message for record in await server.logs.query(instance_id=found.id)]
        [count] = [int(line.split()[1]) for line in printed if line.startswith("started")]
        assert 10 <= count < 30
        assert await server.workflows.run("breeding", 8) == 8
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"))
    tried = {name for name in set(os.listdir(folder)) - before if name.startswith("paddock-try")}
    await until(lambda: tried.isdisjoint(os.listdir(folder)))  # another server's is there for a moment


@pytest.mark.skipif(groups_folder() is None, reason="no control group here that counts processes")
def test_a_group_that_its_process_is_about_to_enter_is_not_removed_with_anothers():
    name = f"{groups_folder()}/paddock-test{os.getpid()}"
    code = (
        "import os, sys; from paddock.runtime.base import tasks_group\n"
        "mkdir, made = os.mkdir, []\n"
        "def gone(path):\n"
        "    mkdir(path)\n"
        "    if not made: os.rmdir(path)\n"  # as by a server that has just come
        "    made.append(path)\n"
        "os.mkdir = gone\n"
        "tasks_group.join(sys.argv[1], 100); print(len(made), flush=True); sys.stdin.read()"
    )
    os.mkdir(f"{name}-1-1")  # a dead server's
    remove(f"{name}-2-1")
    assert not os.path.exists(f"{name}-1-1")
    os.mkdir(f"{name}-3-1")  # one that is about to be entered
    command = [sys.executable, "-P", "-c", code, f"{name}-4-1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as entered:
        assert entered.stdout is not None
        assert entered.stdout.readline() == "2\n"
        remove(f"{name}-4-1")  # somebody is in it
        assert os.path.exists(f"{name}-3-1")
    remove(f"{name}-3-1")
    assert not [one for one in os.listdir(groups_folder() or "") if f"test{os.getpid()}-" in one]


async def test_whose_limits(stage: Stage):
    """An action has those of the workflow that runs it, or its own; another workflow always its own."""
    here = os.getpriority(os.PRIO_PROCESS, 0)  # nobody becomes less nice than the server is
    async with server_on(stage) as server:
        server.workflows.register(limitflows.nice_parent, nice=3)
        server.workflows.register(limitflows.nice_child, nice=7)
        assert await server.workflows.run("nice-parent") == [max(here, nice) for nice in (3, 3, 7)]
    async with server_on(stage) as server:
        server.workflows.register(limitflows.nice_parent, nice=3)
        server.workflows.register(limitflows.nice_child)
        server.workflows.register(limitflows.niceness, nice=11)
        assert await server.workflows.run("nice-parent") == [max(here, nice) for nice in (3, 11, 0)]


# --- another interpreter ---


def interpreter(folder: Path, *, packages: bool) -> Path:
    """Make a virtual environment; with the packages of this one, or without any."""
    venv.create(folder, with_pip=False, symlinks=True)
    if packages:
        inside = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        Path(inside, "all.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder / "bin" / "python"


async def test_another_interpreter(stage: Stage):
    python = interpreter(stage.folder / "venv", packages=True)
    async with server_on(stage) as server:
        server.workflows.register(limitflows.looking, python=python)
        seen = await server.workflows.run("looking")
        assert (seen["executable"], seen["prefix"]) == (str(python), str(python.parent.parent))
        assert sys.prefix != seen["prefix"]


def test_an_interpreter_that_cannot_run_children_is_refused(stage: Stage):
    server = server_on(stage)
    bare = interpreter(stage.folder / "bare", packages=False)
    old = stage.folder / "old"
    old.write_text("#!/bin/sh\necho '{\"version\": [3, 9, 1]}'\n")
    old.chmod(0o755)
    for python, words in [
        (stage.folder / "none", "cannot be run: No such file"),
        (stage.folder, "cannot be run: Permission denied"),
        ("/bin/ls", "is no Python interpreter"),
        (old, "is Python 3.9.1; Paddock needs 3.11 or later"),
        (bare, "cannot import paddock (ModuleNotFoundError"),
        ("no-such-python", "is on PATH"),
    ]:
        with pytest.raises(ConfigError, match="looking") as refused:
            server.workflows.register(limitflows.looking, python=python)
        assert words in str(refused.value)


# --- refused ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_limit": "12 apples"}, "memory_limit: '12 apples' is no size"),
        ({"memory_limit": 512}, "did you mean MB?"),
        ({"memory_limit": -1}, "memory_limit"),
        ({"cpu_limit": 0}, "cpu_limit"),
        ({"cpu_limit": "soon"}, "cpu_limit: 'soon' is no duration"),
        ({"open_files": 3}, "open_files"),
        ({"open_files": 10**12}, "more than this process may have itself"),
        ({"processes": -1}, "processes"),
        ({"nice": -5}, "nice"),
        ({"nice": 20}, "nice"),
        ({"env": "PATH"}, "give a list of names"),
        ({"env": {"A=B": "x"}}, "'A=B' is no name"),
        ({"env": {"TOKEN": b"secret"}}, "the value of 'TOKEN' must be text"),
        ({"env": {"PADDOCK_INSTANCE": "x"}}, "cannot be set"),
        ({"cwd": "/no/such/folder"}, "there is no folder /no/such/folder"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(stage: Stage, options: dict[str, Any], words: str):
    server = server_on(stage)
    with pytest.raises(ConfigError, match="workflow 'looking'") as refused:
        server.workflows.register(limitflows.looking, **options)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
    server.workflows.register(limitflows.looking)  # the name is free


inline = workflow("inline").task("look", limitflows.look).isolated(False).build()


@pytest.mark.parametrize("case", ["inline", "launcher", "watchdog"])
def test_what_nobody_could_enforce_is_refused(stage: Stage, case: str):
    if case == "inline":
        server, flow, words = server_on(stage), inline, "runs inline"
    elif case == "launcher":
        server, flow, words = server_on(stage, launcher="inline"), limitflows.looking, "runs inline"
    else:
        server = AppServer(stage.db, watchdog=WatchdogConfig(enabled=False))
        flow, words = limitflows.looking, "kept by the watchdog, which is off"
    with pytest.raises(LimitNotEnforceable, match=words):
        server.workflows.register(flow, memory_limit="1GB")


@pytest.mark.skipif(groups_folder() is not None, reason="this machine can count processes")
def test_processes_that_cannot_be_counted(stage: Stage):
    with pytest.raises(LimitNotEnforceable, match="control group"):
        server_on(stage).workflows.register(limitflows.looking, processes=10)
