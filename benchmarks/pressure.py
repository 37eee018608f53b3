"""Measure what many do to one: `make pressure`, or `python benchmarks/pressure.py [--small] [--json PATH]`.

Children that commit as fast as they can: how long does one wait for its commit, how late is an event, how long does the server's loop stand
still? A child that waits: how much memory is its own? A database with a long past, a server that comes back to a thousand unfinished
instances: is anybody held up? Beside each figure stands its target; the exit status is 1 where one is missed.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from figures import Figure, conclude
from pressure_subjects import ALL, long, short, waiting, writer
from rich.console import Console

from paddock import AppServer, Event, WorkflowsConfig

_TICK = 0.005
_PATIENCE = 600.0
_KB = 1024


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    crowds: tuple[int, ...] = (8, 64)
    past: int = 100_000
    starts: int = 40
    unfinished: int = 1000
    steps: int = 10_000


SMALL = Plan(crowds=(2,), past=200, starts=3, unfinished=10, steps=100)


def make_server(folder: Path, *, processes: int, **config: Any) -> AppServer:
    """Return a server with the defaults, but for how many processes it may have."""
    server = AppServer(folder / "pressure.db", workflows=WorkflowsConfig(max_processes=processes, **config))
    for definition in ALL:
        server.workflows.register(definition)
    return server


class LoopWatch:
    """Measure how long a loop stands still: by how much a short sleep takes longer than it should."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.longest = 0.0

    @contextlib.asynccontextmanager
    async def on(self) -> AsyncIterator["LoopWatch"]:
        """Watch while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(_TICK)
            self.longest = max(self.longest, time.perf_counter() - begin - _TICK)


async def writers(folder: Path, count: int) -> list[Figure]:
    """Let so many children commit at once."""
    seen: dict[tuple[str, str], float] = {}
    whole: list[float] = []

    def note(event: Event) -> None:
        whole.append(time.time() - event.created_at.timestamp())
        if event.name == "workflow.step.started":
            seen[event.instance_id, event.data["step"]] = time.monotonic()

    async with make_server(folder, processes=count) as server, asyncio.timeout(_PATIENCE):
        await server.workflows.run(short)
        gc.freeze()  # as a server does that serves until a signal
        stop = server.events.on("workflow.step.*", note)
        async with LoopWatch().on() as loop:
            idents = [await server.workflows.start(writer) for _ in range(count)]
            begun = {ident: await server.workflows.result(ident) for ident in idents}
            while len(seen) < sum(map(len, begun.values())):  # noqa: ASYNC110  a result may be read before its events are told
                await asyncio.sleep(_TICK)
        stop()
    waits = [after - before for stamps in begun.values() for before, after in pairwise(stamps)]
    # a handler is called when the commit of its step's begin has returned: what that event takes from there is what it takes from the commit
    late = [
        seen[ident, f"step-{number}"] - stamp for ident, stamps in begun.items() for number, stamp in enumerate(stamps)
    ]
    return [
        Figure(f"{count} write: the longest wait for a commit", max(waits) * 1000, "ms", 500),
        Figure(f"{count} write: a commit, median", median(waits) * 1000, "ms"),
        Figure(f"{count} write: from a commit to its subscriber, median", median(late) * 1000, "ms"),
        Figure(
            f"{count} write: from a commit to its subscriber, p99",
            quantiles(late, n=100)[98] * 1000,
            "ms",
            10 if count == 8 else None,
        ),
        Figure(
            f"{count} write: the same, the wait for the commit included, p99", quantiles(whole, n=100)[98] * 1000, "ms"
        ),
        Figure(f"{count} write: the server's loop stands still for at most", loop.longest * 1000, "ms", 50),
    ]


async def memory(folder: Path, count: int) -> list[Figure]:
    """Let so many children wait, and see what is each one's own."""
    async with make_server(folder, processes=count) as server, asyncio.timeout(_PATIENCE):
        ids = [await server.workflows.start(waiting) for _ in range(count)]
        running: set[str] = set()
        async for event in server.events.subscribe("workflow.step.started", after=0):
            running.add(event.instance_id)
            if running >= set(ids):
                break
        pids = [dict(row)["pid"] for row in await server.processes() if dict(row)["role"] == "child"]
        sizes = [_pss(pid) / _KB for pid in pids]
        for ident in ids:
            await server.workflows.cancel(ident)
    if not any(sizes):
        return []  # a system that does not tell
    return [
        Figure(
            f"{count} wait: memory of one child, its share of what is shared included (PSS), median",
            median(sizes),
            "MB",
            8,
        )
    ]


def _pss(pid: int) -> float:
    """Return a process's proportional share of memory in kB (proc(5), smaps_rollup); 0 where nobody tells."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


async def first_step(server: AppServer) -> float:
    """Return the seconds from `start` to the moment at which a subscriber has the first step's begin."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[float] = loop.create_future()
    expected = ""

    def note(event: Event) -> None:
        if event.instance_id == expected and not begun.done():
            begun.set_result(time.perf_counter())

    stop = server.events.on("workflow.step.started", note)
    begin = time.perf_counter()
    expected = f"bench-{time.monotonic_ns()}"
    await server.workflows.start(short, id=expected)
    spent = await begun - begin
    stop()
    await server.workflows.result(expected)
    while any(dict(row)["role"] == "child" for row in await server.processes()):  # noqa: ASYNC110  no event tells
        await asyncio.sleep(_TICK)
    return spent


async def past(folder: Path, plan: Plan) -> list[Figure]:
    """Start beside a long past, and without one, in turns."""
    old = folder / "old"
    old.mkdir()
    async with make_server(old, processes=4) as server:
        await server.workflows.run(short, timeout=_PATIENCE)
    _multiply(old / "pressure.db", plan.past)
    times: dict[str, list[float]] = {"new": [], "old": []}
    async with make_server(folder, processes=4) as fresh, make_server(old, processes=4) as aged:
        for server in (fresh, aged):
            await first_step(server)
        async with asyncio.timeout(_PATIENCE):
            for _ in range(plan.starts):
                times["new"].append(await first_step(fresh))
                times["old"].append(await first_step(aged))
    ratio = median(times["old"]) / median(times["new"])
    return [Figure(f"a start beside {plan.past:,} finished instances ÷ one in an empty database", ratio, "", 1.2)]


def _multiply(path: Path, count: int) -> None:
    """Copy the only instance with its steps and events, so many times."""
    with contextlib.closing(sqlite3.connect(path)) as tx, tx:
        tx.execute("PRAGMA foreign_keys = OFF")
        first = tx.execute("SELECT seq FROM paddock_instances").fetchone()[0]
        tx.execute("CREATE TEMP TABLE numbers AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n", (count,))  # fmt: skip
        for table, own in (("paddock_instances", "seq"), ("paddock_steps", "instance"), ("paddock_events", "instance")):
            names = [row[1] for row in tx.execute(f"PRAGMA table_info({table})")]
            key = {"paddock_steps": "seq", "paddock_events": "id"}.get(table)
            kept = [name for name in names if name != key]
            values = [f"{own} + numbers.i" if name == own else "id || '-' || numbers.i" if name == "id" else name for name in kept]  # fmt: skip
            tx.execute(
                f"INSERT INTO {table} ({', '.join(kept)}) SELECT {', '.join(values)} FROM {table}, numbers WHERE {own} = ?",
                (first,),
            )


async def comeback(folder: Path, count: int) -> list[Figure]:
    """Leave so many unfinished instances to the next server."""
    async with make_server(folder, processes=1, kill_grace=0.1) as server, asyncio.timeout(_PATIENCE):
        held = await server.workflows.start(waiting)
        async for _ in server.events.subscribe("workflow.step.started", instance_id=held, after=0):
            break
        for _ in range(count - 1):
            await server.workflows.start(short)
    server = make_server(folder, processes=8)
    begun: list[float] = []
    done: list[float] = []
    all_done = asyncio.Event()

    def note(event: Event) -> None:
        if event.name == "workflow.completed":
            done.append(time.perf_counter())
            if len(done) == count:
                all_done.set()
        elif event.name == "workflow.step.started":
            begun.append(time.perf_counter())

    server.events.on("workflow.*", note)
    async with LoopWatch().on() as loop, asyncio.timeout(_PATIENCE):
        begin = time.perf_counter()
        async with server:
            await all_done.wait()
    return [
        Figure(f"{count:,} unfinished: from start to the first that goes on", (begun[0] - begin) * 1000, "ms", 1000),
        Figure(f"{count:,} unfinished: until all are done", done[-1] - begin, "s", 60),
        Figure(f"{count:,} unfinished: the server's loop stands still for at most", loop.longest * 1000, "ms", 50),
    ]


async def length(folder: Path, plan: Plan) -> list[Figure]:
    """Let one instance take many steps, and one ten times as many; kill it then, and see how long it takes to go on."""
    few, many = plan.steps // 10, plan.steps
    async with make_server(folder, processes=4) as server, asyncio.timeout(_PATIENCE):
        await server.workflows.run(short)
        short_one, _ = await _long(server, few)
        long_one, resumed = await _long(server, many)
    return [
        Figure(f"a step of an instance with {many:,} ÷ of one with {few:,}", long_one / short_one, "", 1.2),
        Figure(f"{many:,} steps: one of them", long_one * 1000, "ms"),
        Figure(f"{many:,} steps: from SIGKILL to the next step's begin", resumed * 1000, "ms", 1000),
    ]


async def _long(server: AppServer, steps: int) -> tuple[float, float]:
    """Return the seconds that a step took, and those from the kill after so many steps to the next step's begin."""
    ident = await server.workflows.start(long, steps)
    first = last = 0.0
    async for event in server.events.subscribe("workflow.step.started", instance_id=ident, after=0):
        last = event.created_at.timestamp()
        first = first or last
        if event.data["step"] == "hold":
            break
    instance = await server.workflows.get_instance(ident)
    if instance is None or instance.pid is None:
        raise RuntimeError(f"instance {ident} has no process to kill")
    again = server.events.subscribe("workflow.step.started", instance_id=ident)
    killed = time.perf_counter()
    os.kill(instance.pid, signal.SIGKILL)
    await anext(again)
    resumed = time.perf_counter() - killed
    await server.workflows.result(ident)
    return (last - first) / steps, resumed


async def measure(folder: Path, plan: Plan, console: Console) -> list[Figure]:
    """Take all figures, each on a database of its own."""
    found: list[Figure] = []
    parts = [
        *((f"{count} writers", lambda at, count=count: writers(at, count)) for count in plan.crowds),
        ("memory", lambda at: memory(at, plan.crowds[-1])),
        ("a long past", lambda at: past(at, plan)),
        ("a comeback", lambda at: comeback(at, plan.unfinished)),
        ("many steps", lambda at: length(at, plan)),
    ]
    with console.status("") as status:
        for number, (name, part) in enumerate(parts):
            status.update(name)
            own = folder / str(number)
            own.mkdir()
            found += await part(own)
    return found


def main() -> int:
    """Measure and print; the exit status tells whether every target is met."""
    parser = argparse.ArgumentParser(description="Measure what many instances do to one, and to their server.")
    parser.add_argument("--small", action="store_true", help="little of everything: that it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paddock-pressure-") as folder:
        figures = asyncio.run(measure(Path(folder), SMALL if chosen.small else Plan(), Console(stderr=True)))
    return conclude(figures, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
