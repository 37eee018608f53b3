"""What signals do to a program that serves, with a server that does nothing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from paddock.runtime.server.signalled import Farewell, serve_until_signalled

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


async def serve(servant: Servant, *steps: tuple[str, int]) -> Farewell:
    """Serve, and send each signal once the server has said a word."""
    serving = asyncio.create_task(serve_until_signalled(servant, servant.beside))
    for word, number in steps:
        await servant.until(word)
        os.kill(os.getpid(), number)
    async with asyncio.timeout(20):
        return await serving


@pytest.mark.parametrize(
    ("number", "word", "ends"),
    [(TERM, "stop", "stopped"), (INT, "stop", "stopped"), (HUP, "hand over", "handed over")],
)
async def test_one_signal(number: int, word: str, ends: str):
    servant = Servant()
    assert await serve(servant, ("open", number)) == ends
    assert servant.said == ["start", "open", "close", word, "stopped"]


@pytest.mark.parametrize("second", [TERM, INT])
async def test_a_second_one_hurries(second: int):
    servant = Servant(patient=True)
    assert await serve(servant, ("open", TERM), ("stop", second)) == "stopped"
    assert servant.said == ["start", "open", "close", "stop", "hurry", "stopped"]


async def test_a_restart_that_is_to_be_an_end_after_all_takes_the_children_back():
    servant = Servant(patient=True)
    assert await serve(servant, ("open", HUP), ("hand over", TERM)) == "stopped"
    assert servant.said[3:] == ["hand over", "hurry", "stopped", "start", "stop", "stopped"]


async def test_a_restart_is_asked_for_once(monkeypatch: pytest.MonkeyPatch):
    servant = Servant(patient=True)
    asyncio.get_running_loop().call_later(0.2, servant.let_go.set)
    assert await serve(servant, ("open", TERM), ("stop", HUP), ("stop", HUP)) == "stopped"
    assert "hurry" not in servant.said


async def test_a_signal_ends_a_start_that_is_not_over():
    servant = Servant(slow_start=True)
    assert await serve(servant, ("start", TERM)) == "stopped"
    assert servant.said == ["start", "stop", "stopped"]


async def test_what_is_beside_may_hang_only_until_the_second_signal():
    class Hanging(Servant):
        @asynccontextmanager
        async def beside(self) -> AsyncIterator[None]:
            self.say("open")
            yield
            self.say("close")
            await asyncio.Event().wait()

    servant = Hanging()
    assert await serve(servant, ("open", HUP), ("close", TERM)) == "stopped"
    assert servant.said[:4] == ["start", "open", "close", "hurry"]
    assert "hand over" not in servant.said


async def test_a_start_that_fails_raises_and_gives_the_signals_back():
    class Failing(Servant):
        async def start(self) -> None:
            raise LookupError("no start")

    servant = Failing()
    before = [signal.getsignal(number) for number in (TERM, INT, HUP)]
    with pytest.raises(LookupError, match="no start"):
        await serve_until_signalled(servant)
    assert [signal.getsignal(number) for number in (TERM, INT, HUP)] == before
    assert len(asyncio.all_tasks()) == 1
    assert servant.said == ["stop", "stopped"]
