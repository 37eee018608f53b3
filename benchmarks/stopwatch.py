"""Paddock's side: times are taken where a user would, from the call of `start` to the moment a subscriber has the event."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import subjects

from paddock import AppServer, Event, WorkflowsConfig

_PATIENCE = 120.0
_LOOK = 0.004
_SETTLE = 0.03
_REST = 0.05


def make_server(folder: Path) -> AppServer:
    """Return a server with the defaults: everything on, `synchronous=FULL`."""
    server = AppServer(folder / "bench.db", workflows=WorkflowsConfig(max_processes=16))
    for definition in subjects.ALL:
        server.workflows.register(definition)
    return server


class Stopwatch:
    """Time what a started server does."""

    def __init__(self, server: AppServer) -> None:
        self._server = server
        self._expected: dict[tuple[str, str], asyncio.Future[float]] = {}
        server.events.on("workflow.completed", self._take)

    def _take(self, event: Event) -> None:
        expected = self._expected.get((event.name, event.instance_id))
        if expected is not None and not expected.done():
            expected.set_result(time.perf_counter())

    @contextlib.contextmanager
    def _expect(self, name: str, ident: str) -> Iterator[asyncio.Future[float]]:
        """Give a future of the moment at which the event arrives."""
        arrival = self._expected[name, ident] = asyncio.get_running_loop().create_future()
        try:
            yield arrival
        finally:
            del self._expected[name, ident]

    async def complete(self, name: str) -> float:
        """Return the seconds from `start` to the completed event of a new instance."""
        ident = str(uuid.uuid4())
        with self._expect("workflow.completed", ident) as completed:
            begin = time.perf_counter()
            await self._server.workflows.start(name, id=ident)
            async with asyncio.timeout(_PATIENCE):
                return await completed - begin

    async def complete_alone(self, name: str) -> float:
        """Do the same on an idle server: the last child ends after its completed event, and the next one is forked ahead then."""
        await self.quiet()
        await asyncio.sleep(_REST)
        return await self.complete(name)

    async def rate(self, name: str, count: int, in_flight: int) -> float:
        """Return the seconds in which `count` instances complete, with `in_flight` of them started and not completed at any time."""
        await self.quiet()
        gate = asyncio.Semaphore(in_flight)

        async def one() -> None:
            async with gate:
                await self.complete(name)

        begin = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        return time.perf_counter() - begin

    async def resume(self) -> tuple[float, float]:
        """Return the seconds from `start` to the first step's begin, and from a SIGKILL of the child to its next step's begin."""
        await self.quiet()
        end_looking = self._server.events.on("workflow.step.started", self._take)
        try:
            return await self._resume(str(uuid.uuid4()))
        finally:
            end_looking()

    async def _resume(self, ident: str) -> tuple[float, float]:
        async with asyncio.timeout(_PATIENCE):
            with self._expect("workflow.step.started", ident) as begun:
                begin = time.perf_counter()
                await self._server.workflows.start(subjects.killed, id=ident)
                plain = await begun - begin
            await asyncio.sleep(_SETTLE)
            instance = await self._server.workflows.get_instance(ident)
            if instance is None or instance.pid is None:
                raise RuntimeError(f"instance {ident} has no process to kill")
            with self._expect("workflow.step.started", ident) as begun:
                begin = time.perf_counter()
                os.kill(instance.pid, signal.SIGKILL)
                resumed = await begun - begin
            await self._server.workflows.result(ident)
        return plain, resumed

    async def quiet(self) -> None:
        """Return once no child lives."""
        while any(process["role"] == "child" for process in await self._server.processes()):  # noqa: ASYNC110  no event tells
            await asyncio.sleep(_LOOK)
