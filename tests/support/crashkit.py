"""A stage for crashes: a database, a ledger, fault points that fire when a test says so, and servers that can be killed."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import crashflows
import ledger
import leftovers
import pytest

from paddock import AppServer, Event, Instance, WatchdogConfig, WorkflowsConfig

DEADLINE = 40.0
"""Seconds that anything may take on a busy machine; what takes that long has failed."""

DATABASE = "PADDOCK_TEST_DATABASE"
"""The variable that names another database than a file in the folder, to this process and to the servers that it starts."""

_FAR = 100_000
QUICK = {"kill_grace": 1.0, "orphan_grace": 60.0, "max_resumes": 10}
WATCHFUL = {"interval": 0.1, "heartbeat_timeout": 0.6, "kill_grace": 0.3}
FLOWS = [name for name, value in vars(crashflows).items() if hasattr(value, "fingerprint")]


class Faults:
    """Fault points that are placed in every process and lie far away, until `arm` moves them near.

    Passings are counted by the size of a file: pulled up to just before the fault, the nth passing from now fires.
    """

    def __init__(
        self, stage: "Stage", monkeypatch: pytest.MonkeyPatch | None, points: dict[str, str], every: int = 0
    ) -> None:
        """Place them for all processes that begin from now on; with `every`, at each so manieth passing instead."""
        self._folder = stage.folder / f"faults{len(list(stage.folder.glob('faults*')))}"
        self._folder.mkdir()
        nths = range(every, 100 * every, every) if every else [_FAR]
        plan = ",".join(f"{point}:{nth}:{action}" for point, action in points.items() for nth in nths)
        self.environ = {"PADDOCK_FAULTS": plan, "PADDOCK_FAULT_DIR": str(self._folder)}
        if monkeypatch is not None:
            for name, value in self.environ.items():
                monkeypatch.setenv(name, value)

    def count(self, point: str) -> int:
        """Return how often a point was passed."""
        return (self._folder / point).stat().st_size

    def arm(self, point: str, nth: int = 1) -> None:
        """Let the nth passing from now fire."""
        with open(self._folder / point, "ab") as file:
            file.truncate(_FAR - nth)

    def disarm(self, point: str) -> None:
        """Move the point far away again."""
        with open(self._folder / point, "ab") as file:
            file.truncate(0)

    def fired(self, point: str) -> bool:
        """Tell whether the fault has happened."""
        return (self._folder / point).stat().st_size >= _FAR


class Stage:
    """One database with its ledger, and the servers that come and go on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = os.environ.get(DATABASE) or folder / "app.db"
        os.environ[ledger.PATH] = str(folder / "ledger")
        self.flag = folder / "flag"
        self._processes: list[ServerProcess] = []

    def server(
        self,
        *,
        watchdog: dict[str, Any] | None = None,
        only: str | None = None,
        limits: dict[str, int] | None = None,
        run_dir: Path | None = None,
        **workflows: Any,
    ) -> AppServer:
        """Return a server with all workflows registered."""
        server = AppServer(
            self.db,
            workflows=WorkflowsConfig(**{**QUICK, **workflows}, concurrent_workflows_by_name=limits or {}),
            watchdog=WatchdogConfig(**(watchdog or {})),
            run_dir=run_dir,
        )
        for name in [only] if only else FLOWS:
            server.workflows.register(getattr(crashflows, name))
        return server

    async def process(self, **settings: Any) -> "ServerProcess":
        """Start a server in a process of its own."""
        process = await ServerProcess.start(self, settings)
        self._processes.append(process)
        return process

    def let_go(self) -> None:
        """Let the handlers go on that wait for the flag."""
        self.flag.touch()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the database."""
        if "://" in str(self.db):
            import psycopg

            with psycopg.connect(self.db) as connection:
                return connection.execute(statement.replace("?", "%s"), values or None).fetchall()
        with contextlib.closing(sqlite3.connect(self.db)) as connection:
            return connection.execute(statement, values).fetchall()

    def sql_write(self, statement: str, *values: Any) -> None:
        """Change the database behind everybody's back."""
        with contextlib.closing(sqlite3.connect(self.db)) as connection, connection:
            connection.execute(statement, values)

    async def close(self) -> None:
        """End the processes that a failed test left, and what they started."""
        for process in self._processes:
            await process.close()


class ServerProcess:
    """A server in a process of its own, driven by lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.pids: dict[str, int] = {}

    @classmethod
    async def start(cls, stage: Stage, settings: dict[str, Any]) -> "ServerProcess":
        """Start it; returns at once."""
        program = settings.pop("program", None) or Path(__file__).with_name("crashserver.py")
        environ = {**os.environ, **settings.pop("environ", {})}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), str(stage.folder), json.dumps(settings),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environ, cwd=stage.folder,
        )  # fmt: skip
        return cls(process)

    async def ready(self) -> None:
        """Wait until it has started."""
        self.pids = (await self.answer())["pids"]

    async def answer(self) -> dict[str, Any]:
        """Return its next line; `{}` once it is gone."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            line = await self._process.stdout.readline()
        return json.loads(line) if line else {}

    async def ask(self, do: str, **facts: Any) -> dict[str, Any]:
        """Send a command and return the answer; `{}` where it died over it."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(json.dumps({"do": do, **facts}).encode() + b"\n")
            await self._process.stdin.drain()
        return await self.answer()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """Return the process itself."""
        return self._process

    def close_input(self) -> None:
        """Let it stop by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def died(self) -> int:
        """Wait for its end; return the code."""
        async with asyncio.timeout(DEADLINE):
            code = await self._process.wait()
        await self._close_pipes()
        return code

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        await self.died()

    async def close(self) -> None:
        """Kill it if it lives."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self.died()

    async def _close_pipes(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process._transport.close()


@contextlib.asynccontextmanager
async def stage_in(folder: Path) -> AsyncIterator[Stage]:
    """Set the stage, and clear it."""
    stage = Stage(folder)
    try:
        yield stage
    finally:
        await stage.close()
        os.environ.pop(ledger.PATH, None)


async def until(check: Callable[[], Any], what: str = "") -> Any:
    """Return what `check` returns as soon as that is true."""
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                found = check()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited for in vain: {what or check}") from None


async def line(what: str, **facts: Any) -> dict[str, Any]:
    """Return the first such line of the ledger, as soon as it is there."""
    return (await until(lambda: ledger.read(what, **facts), f"{what} {facts}"))[0]


async def history(server: AppServer, instance: str | None = None) -> list[Event]:
    """Return all events."""
    found: list[Event] = []
    while batch := await server.events.history(instance_id=instance, after=found[-1].id if found else 0, limit=1000):
        found += batch
    return found


async def finished(server: AppServer, instance: str) -> Instance:
    """Return the instance once it has ended."""
    return await server.workflows.wait(instance, timeout=DEADLINE)


async def proven(server: AppServer, instance: str, output: Any) -> Instance:
    """Wait for an instance's completion, and hold its events against the ledger."""
    found = await finished(server, instance)
    assert (found.status.value, found.error and found.error.message) == ("completed", None)
    assert found.output == output
    ledger.check(await history(server, instance))
    return found


async def of_role(server: AppServer, role: str) -> list[dict[str, Any]]:
    """Return the server's processes of a role."""
    return [row for row in await server.processes() if row["role"] == role]


async def pid_of(server: AppServer, role: str, other_than: int | None = None) -> int:
    """Return the pid of the only process of a role, as soon as there is one."""

    async def look() -> int | None:
        pids = [row["pid"] for row in await of_role(server, role)]
        return pids[0] if pids and pids[0] != other_than else None

    return await until(look, role)


def kill(pid: int) -> None:
    """Send SIGKILL to a process that a test has started; it may have died by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def living(marker: str) -> list[int]:
    """Return the pids of all programs that belong to an instance of this test."""
    mine = f"{leftovers.MARKER}={os.environ[leftovers.MARKER]}"
    return [
        pid for pid, entries in _environs() if mine in entries and any(entry.startswith(marker) for entry in entries)
    ]


def _environs() -> Iterator[tuple[int, list[str]]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and ledger.starts(int(name)) is not None:
            with contextlib.suppress(OSError):
                yield int(name), Path(f"/proc/{name}/environ").read_text(errors="replace").split("\0")
