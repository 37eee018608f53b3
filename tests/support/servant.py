"""A server that does nothing but note what is asked of it, and the signals that are sent to whoever serves it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paddock.runtime.server.signalled import Farewell, serve_until_signalled
from paddock.runtime.server.trial import Trial

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class Servant:
    """Note what is asked of it; a stop takes until it is hurried or let go."""

    def __init__(self, *, patient: bool = False, slow_start: bool = False) -> None:
        self.said: list[str] = []
        self.let_go = asyncio.Event()
        if not patient:
            self.let_go.set()
        self._slow_start = slow_start

    async def start(self) -> None:
        self.say("start")
        if self._slow_start:
            await asyncio.Event().wait()

    async def stop(self, *, handover: bool = False) -> None:
        self.say("hand over" if handover else "stop")
        await self.let_go.wait()
        self.say("stopped")

    def hurry(self) -> None:
        self.say("hurry")
        self.let_go.set()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        self.say("open")
        yield
        self.say("close")

    def say(self, what: str) -> None:
        self.said.append(what)

    async def until(self, what: str) -> None:
        while what not in self.said:
            await asyncio.sleep(0)


async def sound() -> None:
    """Find no fault with the program that would be executed."""


async def serve(servant: Servant, *steps: tuple[str, int], trial: Trial = sound) -> Farewell:
    """Serve, and send each signal once the server has said a word."""
    serving = asyncio.create_task(serve_until_signalled(servant, servant.beside, trial))
    for word, number in steps:
        await servant.until(word)
        os.kill(os.getpid(), number)
    async with asyncio.timeout(20):
        return await serving
