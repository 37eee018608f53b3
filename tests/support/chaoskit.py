"""A kill loop: many instances run while server, watchdog, fork server and children are killed and stopped, as a seed says.

Everything happens from outside: the server is a process of its own, victims are found in /proc and in the table of leases, and
`auditor.py` judges at the end. The seed fixes which fault comes when; what the faults hit is the scheduler's business.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self

import auditor
import leftovers
from auditor import Expected
from chaosflows import SIGNALLED, WORK, leaf
from crashkit import Faults, ServerProcess, Stage
from ledger import starts

from paddock import testing

LIMIT, MOST = 2, 8
POINTS = (
    *("server.start.before", "server.start.inserted", "server.claim.before", "server.claim.after", "server.fork.sent"),
    *(
        "server.born",
        "server.signalled",
        "server.settle.before",
        "server.settle.after",
        "server.resume",
        "server.taken",
    ),
    *("forkserver.request", "forkserver.forked", "forkserver.reaped", "child.born", "child.leased", "child.connect"),
    *("child.import", "child.plugins", "child.ready", "child.step.begun", "child.step.returned", "child.waiting"),
    *("child.commit.inside", "child.commit.unsynced", "child.commit.after", "child.ended", "child.teardown"),
    "watchdog.boot",
)
SETTINGS: dict[str, Any] = {
    "workflows": {
        "concurrent_workflows_by_name": {"chaos-limited": LIMIT},
        "max_processes": MOST,
        "max_resumes": 1000,
        "suspend_after": 0.1,
        "orphan_grace": 20.0,
        "kill_grace": 1.0,
    },
    "watchdog": {"interval": 0.2, "heartbeat_timeout": 1.5, "kill_grace": 0.3},
}
_PATIENCE = 1.0
_FORK_SERVER, _WATCHDOG = b"paddock.runtime.child.forkserver", b"watchdog"


@dataclass(frozen=True)
class Fault:
    """One thing that happens: after a pause, a kill or a stop of a role, or a kill at a named point."""

    pause: float
    how: str
    whom: str
    choice: float
    length: float

    def __str__(self) -> str:
        """Return it in a few words."""
        return f"{self.how} {self.whom}"


@dataclass
class Chaos:
    """What a loop does.

    Attributes:
        seed: of everything that is drawn.
        kills: how many processes are to be killed.
        population: how many instances run at once until the last kill.
        stops: processes are stopped for a while now and then, too.
        pace: seconds between two faults, on average.
        cancels: some instances are cancelled.
    """

    seed: int
    kills: int
    population: int = 50
    stops: bool = True
    pace: float = 0.15
    cancels: bool = False
    say: Callable[[str], None] = lambda _line: None
    killed: Counter[str] = field(default_factory=Counter)

    def faults(self) -> Any:
        """Yield the faults that the seed says, for ever."""
        random = Random(self.seed)
        roles, weights = ("child", "server", "fork-server", "watchdog"), (10, 3, 3, 2)
        while True:
            how = random.choices(("kill", "point", "stop"), (6, 5, 2 if self.stops else 0))[0]
            whom = random.choice(POINTS) if how == "point" else random.choices(roles, weights)[0]
            yield Fault(random.expovariate(1 / self.pace), how, whom, random.random(), random.uniform(0.05, 3.0))


class Loop:
    """One run of a `Chaos` on a stage."""

    def __init__(self, chaos: Chaos, stage: Stage, reference: dict[tuple[str, str], Expected]) -> None:
        """Set up; `run` runs."""
        self._chaos = chaos
        self._stage = stage
        self._reference = reference
        self._points = Faults(stage, None, dict.fromkeys(POINTS, "kill"))
        self._random = Random(chaos.seed + 1)
        self._server: ServerProcess | None = None
        self._up = asyncio.Event()
        self._talking = asyncio.Lock()
        self._over = False
        self._stopped: set[asyncio.Task[None]] = set()
        self._known: dict[str, tuple[str, str]] = {}
        self._cancelled: set[str] = set()
        self._number = 0

    async def run(self, deadline: float) -> list[str]:
        """Kill until enough are dead, let the rest complete, stop, and return what the auditor found."""
        serving = asyncio.create_task(self._serve())
        starting = asyncio.create_task(self._populate())
        try:
            async with asyncio.timeout(deadline):
                await self._torment()
                await starting
            self._over = True
            await asyncio.wait_for(serving, deadline)
        except TimeoutError:
            return [f"not over within {deadline:g} s: {self._unfinished()}"]
        finally:
            self._over = True
            for task in (starting, serving, *self._stopped):
                task.cancel()
            await asyncio.gather(starting, serving, *self._stopped, return_exceptions=True)
        expected = {
            ident: Expected(None, status="cancelled") if ident in self._cancelled else self._reference[key]
            for ident, key in self._known.items()
        }
        limits = {"chaos-limited": LIMIT}
        return auditor.audit(self._stage.db, expected, seen=self._stage.folder / "seen", limits=limits, most=MOST)

    # --- the server, and the next one ---

    async def _serve(self) -> None:
        """Keep a server; at the end let the last one stop by itself."""
        program = str(Path(__file__).with_name("chaosserver.py"))
        while not self._over:
            settings = {**SETTINGS, "environ": self._points.environ, "program": program}
            server = await self._stage.process(**settings)
            with contextlib.suppress(KeyError):
                await server.ready()
                self._server = server
                self._up.set()
                await self._gone(server)
            self._up.clear()
            self._server = None
            if not self._over:
                await server.died()
            elif await server.died() != 0 and not self._chaos.kills:
                raise AssertionError("the last server did not stop cleanly")

    async def _gone(self, server: ServerProcess) -> None:
        while not self._over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.process.wait(), 0.2)
                return
        server.close_input()

    async def _ask(self, do: str, **facts: Any) -> dict[str, Any]:
        """Ask whichever server there is until one answers."""
        async with self._talking:
            while True:
                await self._up.wait()
                server = self._server
                if server is not None and (answer := await server.ask(do, **facts)):
                    return answer
                await asyncio.sleep(0.02)

    # --- the work ---

    async def _populate(self) -> None:
        """Keep so many instances unfinished until the last kill; then wait until all have ended."""
        kinds = list(WORK)
        while True:
            unfinished = self._unfinished()
            enough = sum(self._chaos.killed.values()) >= self._chaos.kills
            if enough and not unfinished and len(self._known) >= self._chaos.population:
                return
            missing = self._chaos.population - (len(self._known) if enough else len(unfinished))
            for _ in range(min(missing, 10)):
                await self._start(kinds[self._number % len(kinds)])
            await asyncio.sleep(0.1)

    async def _start(self, name: str) -> None:
        self._number += 1
        n = self._number
        given = WORK[name][1][n // len(WORK) % 4]
        ident = f"{name}-{n}"
        self._known[ident] = (name, json.dumps(given))
        assert (await self._ask("start", name=name, input=given, id=ident)).get("id") == ident
        if name in SIGNALLED:
            number = given["at"] if isinstance(given, dict) else given
            answer = await self._ask("signal", id=ident, n=number)
            # asked again of the next server, it may have been taken already, and the instance have ended
            assert answer.get("id") == ident or answer.get("refused") in ("InvalidTransition", "InvalidSignal"), answer
        if self._chaos.cancels and self._random.random() < 0.2:
            done = (await self._ask("cancel", id=ident)).get("done")
            # a server that died over its answer has cancelled all the same; asked again, the next one says no
            if done or self._sql("SELECT 1 FROM paddock_instances WHERE status = 'cancelled' AND id = ?", ident):
                self._cancelled.add(ident)

    def _sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self._stage.db}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(statement, values).fetchall()

    def _unfinished(self) -> dict[str, str]:
        try:
            rows = self._sql("SELECT id, status FROM paddock_instances")
        except sqlite3.OperationalError:  # not there yet
            return {}
        states = dict(rows)
        return {ident: status for ident, status in states.items() if status not in auditor.FINAL}

    # --- the faults ---

    async def _torment(self) -> None:
        faults = self._chaos.faults()
        while sum(self._chaos.killed.values()) < self._chaos.kills:
            fault = next(faults)
            await asyncio.sleep(fault.pause)
            if fault.how == "point":
                await self._at_point(fault)
            else:
                await self._signal(fault)

    async def _at_point(self, fault: Fault) -> None:
        """Let somebody die at the next passing of a point, or the next but one; where nobody passes there, nothing happens."""
        self._points.arm(fault.whom, 1 + int(fault.choice * 3))
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if self._points.fired(fault.whom):
                self._count(fault)
                return
            await asyncio.sleep(0.01)
        self._points.disarm(fault.whom)

    async def _signal(self, fault: Fault) -> None:
        victims = self._victims(fault.whom)
        if not victims:
            return
        pid, start = victims[int(fault.choice * len(victims))]
        with contextlib.suppress(ProcessLookupError), Pidfd(pid) as hold:
            if starts(pid) != start:
                return
            if fault.how == "kill":
                hold.send(signal.SIGKILL)
                self._count(fault)
                return
            hold.send(signal.SIGSTOP)
            task = asyncio.create_task(self._go_on(Pidfd(pid), fault.length))
            self._stopped.add(task)
            task.add_done_callback(self._stopped.discard)
            self._chaos.say(f"{fault}, for {fault.length:.1f} s")

    async def _go_on(self, hold: "Pidfd", after: float) -> None:
        with hold:
            try:
                await asyncio.sleep(after)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    hold.send(signal.SIGCONT)

    def _count(self, fault: Fault) -> None:
        self._chaos.killed[fault.whom] += 1
        self._chaos.say(f"{sum(self._chaos.killed.values())}: {fault}")

    def _victims(self, role: str) -> list[tuple[int, int]]:
        """Return pid and start time of who has a role now; children by the leases, the others by what the kernel says of them."""
        if role == "child":
            with contextlib.suppress(sqlite3.OperationalError):
                rows = self._sql("SELECT pid, pid_start FROM paddock_leases WHERE pid IS NOT NULL ORDER BY instance")
                return [(pid, start) for pid, start in rows if starts(pid) == start]
            return []
        server = self._server
        if role == "server":
            found = [server.pid] if server is not None else []
        else:
            found = _of_program(_FORK_SERVER if role == "fork-server" else _WATCHDOG, server.pid if server else 0)
        return [(pid, start) for pid in found if (start := starts(pid)) is not None]


class Pidfd:
    """A hold on one process."""

    def __init__(self, pid: int) -> None:
        """Take hold.

        Raises:
            ProcessLookupError: there is none.
        """
        self._descriptor = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        """Hold."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        os.close(self._descriptor)

    def send(self, number: int) -> None:
        """Send a signal to this very process."""
        signal.pidfd_send_signal(self._descriptor, number)


def _of_program(word: bytes, parent: int) -> list[int]:
    """Return the children of a process that run a program of ours."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{parent}/task"):
            for child in Path(f"/proc/{parent}/task/{task}/children").read_text().split():
                with contextlib.suppress(OSError):
                    if word in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(int(child))
    return sorted(found)


async def reference() -> dict[tuple[str, str], Expected]:
    """Return what the work gives without faults: run once in this process, in memory."""
    found: dict[tuple[str, str], Expected] = {}
    async with testing.server(register=[*(definition for definition, _ in WORK.values()), leaf]) as server:
        for name, (_, inputs) in WORK.items():
            for given in inputs:
                ident = await server.workflows.start(name, given)
                if name in SIGNALLED:
                    number = given["at"] if isinstance(given, dict) else given
                    await server.workflows.signal(ident, "go", {"n": number})
                done = await server.workflows.wait(ident, timeout=60)
                assert done.status == "completed", done.error
                steps = {key: (step.kind, str(step.status)) for key, step in done.step_results.items()}
                found[name, json.dumps(given)] = Expected(done.output, steps)
    return found


async def storm(chaos: Chaos, folder: Path, deadline: float) -> list[str]:
    """Run a loop in a folder and return everything that is wrong afterwards."""
    stage = Stage(folder)
    before = os.environ.get("PADDOCK_TEST_LEDGER")
    os.environ["PADDOCK_TEST_LEDGER"] = str(folder / "reference")
    wanted = await reference()
    os.environ["PADDOCK_TEST_LEDGER"] = before or str(folder / "ledger")
    watch = leftovers.Watch(os.environ[leftovers.MARKER], Path(os.environ["TMPDIR"]))
    try:
        found = await Loop(chaos, stage, wanted).run(deadline)
    finally:
        await stage.close()
    return found + await asyncio.to_thread(watch.leftovers)
