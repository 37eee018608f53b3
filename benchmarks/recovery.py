"""Measure how long recovery takes: `make recovery`, or `python benchmarks/recovery.py [--rounds N] [--json PATH]`.

Processes are killed and stopped as in the tests, and the clock runs until a user would see that things go on. Beside each figure stands the
bound that `docs/guarantees.md` publishes; the exit status is 1 where a figure is beyond it. Other work on the machine weighs on all of it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from recovery_subjects import ALL, held, queued, stubborn
from rich.console import Console
from rich.table import Table

from paddock import AppServer, Event, WatchdogConfig, WorkflowsConfig

_PATIENCE = 120.0
_LOOK = 0.002
_STALE, _GRACE, _ORPHANED, _MANY = 3.0, 1.0, 2.0, 20


@dataclass(frozen=True)
class Figure:
    """Something that is measured, in seconds; `bound` is what is published."""

    label: str
    bound: float


FIGURES = {
    "noticed": Figure("a child is killed: its death is settled, the instance queued", 1.0),
    "resumed": Figure("a child is killed: the step begins again", 2.0),
    "slot": Figure("an instance ends: the next one in the queue runs", 1.0),
    "watchdog": Figure("the watchdog is killed: another one watches", 2.0),
    "fork-server": Figure("the fork server is killed: an instance that is started then runs", 5.0),
    "adopted": Figure("the server is killed: from the next one's start until it is ready, with 20 living children", 10.0),
    "all": Figure("all are killed at once: from the next server's start until 20 instances go on", 10.0),
    "stale": Figure(f"a child is stopped: its end, beyond heartbeat_timeout ({_STALE:g} s here)", 5.0),
    "cancel": Figure(f"a cancel against a handler that does not stop, beyond kill_grace ({_GRACE:g} s here)", 3.0),
    "orphans": Figure(f"the server is killed and none follows: the last process is gone, beyond orphan_grace ({_ORPHANED:g} s here)", 10.0),
}  # fmt: skip


def make_server(folder: Path) -> AppServer:
    """Return a server with the defaults, but for the times that are long for a benchmark."""
    server = AppServer(
        folder / "recovery.db",
        workflows=WorkflowsConfig(
            max_processes=40, max_resumes=1000, kill_grace=_GRACE, orphan_grace=_ORPHANED,
            concurrent_workflows_by_name={queued.name: 1},
        ),
        watchdog=WatchdogConfig(heartbeat_timeout=_STALE),
    )  # fmt: skip
    for definition in ALL:
        server.workflows.register(definition)
    return server


class Measure:
    """Take each figure once, with a server that is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    async def round(self) -> dict[str, float]:
        """Take them all."""
        found: dict[str, float] = {}
        async with make_server(self._folder) as server:
            found["noticed"], found["resumed"] = await self._child(server)
            found["slot"] = await self._slot(server)
            found["watchdog"] = await self._helper(server, "watchdog")
            found["fork-server"] = await self._fork_server(server)
            found["stale"] = await self._stale(server)
            found["cancel"] = await self._cancel(server)
        found["adopted"], found["all"] = await self._servers()
        found["orphans"] = await self._orphans()
        return found

    def _id(self) -> str:
        self._number += 1
        return f"r{self._number}-{time.time_ns()}"

    async def _begun(self, server: AppServer, name: str) -> tuple[str, int]:
        """Start an instance; return its id and pid once its step has begun."""
        ident = self._id()
        await server.workflows.start(name, id=ident)
        await first(server, "workflow.step.started", ident)
        instance = await server.workflows.get_instance(ident)
        if instance is None or instance.pid is None:
            raise RuntimeError(f"{ident} has no process")
        return ident, instance.pid

    async def _child(self, server: AppServer) -> tuple[float, float]:
        ident, pid = await self._begun(server, held.name)
        cursor = (await server.events.history(instance_id=ident))[-1].id
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)

        async def settled() -> bool:
            instance = await server.workflows.get_instance(ident)
            return instance is not None and (instance.status != "running" or instance.pid != pid)

        await until(settled)
        noticed = time.monotonic() - begun
        await first(server, "workflow.step.started", ident, after=cursor)
        resumed = time.monotonic() - begun
        await server.workflows.result(ident)
        return noticed, resumed

    async def _slot(self, server: AppServer) -> float:
        """Time from one end to the next begin, at a limit of one, by the times that the events carry."""
        one, other = [await server.workflows.start(queued.name, id=self._id()) for _ in range(2)]
        await server.workflows.result(other)
        ended = (await server.events.history("workflow.completed", instance_id=one))[0]
        begun = (await server.events.history("workflow.started", instance_id=other))[0]
        return (begun.created_at - ended.created_at).total_seconds()

    async def _helper(self, server: AppServer, role: str) -> float:
        pid = await pid_of(server, role)
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: other_than(server, role, pid))
        return time.monotonic() - begun

    async def _fork_server(self, server: AppServer) -> float:
        begun = time.monotonic()
        os.kill(await pid_of(server, "fork-server"), signal.SIGKILL)
        await server.workflows.result(await server.workflows.start(queued.name, id=self._id()))
        return time.monotonic() - begun

    async def _stale(self, server: AppServer) -> float:
        ident, pid = await self._begun(server, held.name)
        begun = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        await first(server, "workflow.watchdog.killed", ident)
        took = time.monotonic() - begun - _STALE
        await server.workflows.result(ident)
        return max(0.0, took)

    async def _cancel(self, server: AppServer) -> float:
        ident, _ = await self._begun(server, stubborn.name)
        begun = time.monotonic()
        await server.workflows.cancel(ident)
        return max(0.0, time.monotonic() - begun - _GRACE)

    async def _servers(self) -> tuple[float, float]:
        dying = await Process.start(self._folder)
        ids = [self._id() for _ in range(_MANY)]
        await dying.hold(ids)
        dying.kill()
        begun = time.monotonic()
        dying = await Process.start(self._folder)
        adopted = time.monotonic() - begun
        await dying.kill_all()
        begun = time.monotonic()
        async with make_server(self._folder) as server:
            for ident in ids:
                await server.workflows.result(ident)  # what holds in its first life goes on in its second
            return adopted, time.monotonic() - begun

    async def _orphans(self) -> float:
        dying = await Process.start(self._folder)
        await dying.hold([self._id() for _ in range(5)])
        left = dying.children()
        dying.kill()
        begun = time.monotonic()
        await until(lambda: not any(map(_is_alive, left)))
        async with make_server(self._folder) as server:
            await server.workflows.cancel_all()
        return max(0.0, time.monotonic() - begun - _ORPHANED)


class Process:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, folder: Path) -> "Process":
        """Start one; return when it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--serve", str(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        server = cls(process)
        await server._hear()
        return server

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(_PATIENCE):
            if not await self._process.stdout.readline():
                raise RuntimeError("the server has gone")

    async def hold(self, ids: list[str]) -> None:
        """Start instances; return once the step of each has begun."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(ids).encode() + b"\n")
        await self._process.stdin.drain()
        await self._hear()

    def children(self) -> list[psutil.Process]:
        """Return all processes below it."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def kill(self) -> None:
        """Kill it alone."""
        self._process.kill()

    async def kill_all(self) -> None:
        """Kill it and all processes of this run, those that its predecessor started too; return when they are dead."""
        mine = [process for process in psutil.process_iter() if process.pid != os.getpid() and _of_this_run(process)]
        for process in mine:
            with contextlib.suppress(psutil.Error):
                process.kill()
        await until(lambda: not any(map(_is_alive, mine)))


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        # a main thread is a zombie at once; the locks go with the last of its threads
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    return False


def _of_this_run(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("PADDOCK_RECOVERY") == os.environ["PADDOCK_RECOVERY"]
    return False


async def first(server: AppServer, name: str, ident: str, after: int = 0) -> Event:
    """Return the first such event."""
    async with asyncio.timeout(_PATIENCE):
        async for event in server.events.subscribe(name, instance_id=ident, after=after):
            return event
    raise RuntimeError("the server has stopped")


async def until(check: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            found = check()
            if (await found) if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(_LOOK)


async def pid_of(server: AppServer, role: str) -> int:
    """Return the pid of the only process of a role."""
    return int(next(row["pid"] for row in await server.processes() if row["role"] == role))


async def other_than(server: AppServer, role: str, pid: int) -> bool:
    """Tell whether another process has the role."""
    return any(row["role"] == role and row["pid"] != pid for row in await server.processes())


async def serve(folder: Path) -> None:
    """Be the server that is killed."""
    async with make_server(folder) as server:
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            for ident in json.loads(line):
                await server.workflows.start(held.name, id=ident)
                await first(server, "workflow.step.started", ident)
            print("held", flush=True)


def show(rounds: list[dict[str, float]], console: Console) -> bool:
    """Print the table; return whether every bound was kept."""
    table = Table("what happens, and until when it is timed", "median", "worst", "bound", box=None)
    kept = True
    for key, figure in FIGURES.items():
        values = [found[key] for found in rounds]
        kept = kept and max(values) <= figure.bound
        table.add_row(figure.label, f"{median(values):.3f} s", f"{max(values):.3f} s", f"{figure.bound:g} s")
    console.print(table)
    return kept


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure how long recovery takes.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how many rounds (default 5)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write each round's values there")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        asyncio.run(serve(chosen.serve))
        return 0
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    os.environ["PADDOCK_RECOVERY"] = str(time.time_ns())

    async def measure(folder: Path) -> list[dict[str, Any]]:
        return [await Measure(folder).round() for _ in range(chosen.rounds)]

    with tempfile.TemporaryDirectory(prefix="paddock-recovery-") as folder:
        rounds = asyncio.run(measure(Path(folder)))
    kept = show(rounds, Console(width=None if sys.stdout.isatty() else 130))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"rounds": rounds, "bounds": {k: f.bound for k, f in FIGURES.items()}}))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
