"""Measure crowds: `python benchmarks/crowd.py [--count N] [--naps N] [--inline] [--json PATH]`.

First so many instances go to sleep for a month: no process may be left, the server may hardly grow, and among them one that is due must
wake in time. Then so many are queued behind a limit of four: they must run in the order in which they were started, in bounded memory.
With `--inline` they run within the server's process, which is quicker and measures the same rows, timers and queue.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from figures import Figure, conclude
from subjects import nap, one_step, sleeper

from paddock import AppServer, Event, WorkflowsConfig

_MB = 2**20
_LIMIT = 4
_NAP_SECONDS = 1.5
_WARM = 64


def make_server(folder: Path, *, inline: bool) -> AppServer:
    """Return a server with the defaults, but for where instances run and the limit of the queue."""
    config = WorkflowsConfig(launcher="inline" if inline else "fork", max_processes=16)
    server = AppServer(folder / "crowd.db", workflows=config)
    for definition in (sleeper, nap):
        server.workflows.register(definition)
    server.workflows.register(one_step, max_concurrent=_LIMIT)
    return server


def memory() -> float:
    """Return this process's resident memory in MB, without what is garbage."""
    gc.collect()
    return psutil.Process().memory_info().rss / _MB


async def start_many(server: AppServer, name: str, count: int) -> list[str]:
    """Start instances one after the other and return their ids."""
    return [await server.workflows.start(name) for _ in range(count)]


async def put_to_sleep(server: AppServer, count: int) -> None:
    """Start sleepers and return once all of them sleep."""
    slept = 0
    done = asyncio.Event()

    def note(event: Event) -> None:
        nonlocal slept
        slept += event.workflow_name == sleeper.name
        if slept == count:
            done.set()

    stop = server.events.on("workflow.suspended", note)
    await start_many(server, sleeper.name, count)
    await done.wait()
    stop()


async def quiet(server: AppServer) -> int:
    """Return how many child processes there are, once there are no more than are needed."""
    for _ in range(100):
        left = [process for process in await server.processes() if dict(process)["role"] == "child"]
        if not left:
            return 0
        await asyncio.sleep(0.1)
    return len(left)


async def asleep(server: AppServer, count: int, naps: int) -> list[Figure]:
    """Put a crowd to sleep, look what it costs, and see that others wake in time beside it."""
    await put_to_sleep(server, _WARM)
    await quiet(server)
    before, begin = memory(), time.perf_counter()
    await put_to_sleep(server, count)
    spent = time.perf_counter() - begin
    children = await quiet(server)
    grown = memory() - before
    late = [await wake(server) for _ in range(naps)]
    return [
        Figure("asleep", count, "instances"),
        Figure("to put them there", spent, "s"),
        Figure("child processes", children, "", 0),
        Figure("memory of the server, more", grown, "MB", 20),
        Figure("a wake is late by (median)", median(late) * 1000, "ms", 100),
        Figure("a wake is late by (worst)", max(late) * 1000, "ms"),
    ]


async def wake(server: AppServer) -> float:
    """Return by how many seconds an instance woke after its time, with nothing else to do."""
    ident = await server.workflows.start(nap.name, _NAP_SECONDS)
    due: float | None = None
    async for event in server.events.subscribe("workflow.*", instance_id=ident, after=0):
        if event.name == "workflow.suspended":
            due = event.data["wake_at"]
        if event.name == "workflow.resumed" and due is not None:
            return event.created_at.timestamp() - due
    raise AssertionError


async def queued(server: AppServer, count: int) -> list[Figure]:
    """Queue a crowd behind a limit and see it drain in order."""
    began: list[str] = []
    done = asyncio.Event()
    running: set[str] = set()
    most = 0

    def note(event: Event) -> None:
        nonlocal most
        if event.workflow_name != one_step.name:
            return
        if event.name == "workflow.started":
            began.append(event.instance_id)
            running.add(event.instance_id)
            most = max(most, len(running))
        else:
            running.discard(event.instance_id)
            if len(began) == count and not running:
                done.set()

    unsubscribe = [server.events.on(name, note) for name in ("workflow.started", "workflow.completed")]
    before, begin = memory(), time.perf_counter()
    started = await start_many(server, one_step.name, count)
    highest = memory()
    while not done.is_set():
        highest = max(highest, memory())
        await asyncio.wait({asyncio.ensure_future(done.wait())}, timeout=1.0)
    spent = time.perf_counter() - begin
    for stop in unsubscribe:
        stop()
    places = {ident: place for place, ident in enumerate(started)}
    # what is claimed together begins side by side: up to the limit's width is in order
    displaced = max(abs(places[ident] - place) for place, ident in enumerate(began))
    return [
        Figure("queued", count, "instances"),
        Figure("to start and drain them", spent, "s"),
        Figure("at once, at most", most, "", _LIMIT),
        Figure("out of order by, at most", displaced, "places", _LIMIT - 1),
        Figure("memory of the server, more", highest - before, "MB", 20),
    ]


async def measure(folder: Path, count: int, naps: int, *, inline: bool) -> list[Figure]:
    """Take all figures."""
    async with make_server(folder, inline=inline) as server:
        found = await asleep(server, count, naps)
        return [*found, *await queued(server, count)]


def main() -> int:
    """Measure and print; the exit status tells whether every target is met."""
    parser = argparse.ArgumentParser(description="Measure crowds of sleeping and of queued instances.")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="how many (default 10,000)")
    parser.add_argument("--naps", type=int, default=10, metavar="N", help="how many wakes are timed (default 10)")
    parser.add_argument("--inline", action="store_true", help="run them in the server's process: quicker")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paddock-crowd-") as folder:
        figures = asyncio.run(measure(Path(folder), chosen.count, chosen.naps, inline=chosen.inline))
    return conclude(figures, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
