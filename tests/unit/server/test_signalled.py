"""What signals do to a program that serves, with a server that does nothing."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from servant import HUP, INT, TERM, Servant, serve

from paddock.runtime.server.signalled import serve_until_signalled


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


class Trial:
    """Take as long as it is let; find a fault, or fail, or find none."""

    def __init__(self, servant: Servant, *verdicts: str | Exception | None) -> None:
        self._say, self._verdicts, self.over = servant.say, list(verdicts), asyncio.Event()

    async def __call__(self) -> str | None:
        self._say(f"trial {len(self._verdicts)}")
        try:
            await self.over.wait()
        except asyncio.CancelledError:
            self._say("cut short")
            raise
        self.over.clear()
        verdict = self._verdicts.pop(0)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict


async def test_what_cannot_be_loaded_is_not_handed_over_to(capfd: pytest.CaptureFixture[str]):
    servant = Servant()
    trial = Trial(servant, "no such key", OSError("no room"), None)
    serving = asyncio.create_task(serve(servant, ("open", HUP), ("trial 3", HUP), ("trial 2", HUP), trial=trial))
    for word in ("trial 3", "trial 2", "trial 1"):
        await servant.until(word)
        assert servant.said[-1] == word  # and nobody has left
        trial.over.set()
    assert await serving == "handed over"
    assert servant.said[-3:] == ["close", "hand over", "stopped"]
    logged = capfd.readouterr()
    assert "no such key" in logged.out + logged.err
    assert "OSError: no room" in logged.out + logged.err


async def test_no_collection_goes_through_what_was_there_before_it_served():
    frozen: list[int] = []

    async def look() -> None:
        frozen.append(gc.get_freeze_count())

    assert await serve(Servant(), ("open", HUP), trial=look) == "handed over"
    assert frozen[0] > 0
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("number", [TERM, INT])
async def test_an_end_does_not_wait_for_a_trial(number: int):
    servant = Servant()
    trial = Trial(servant, None)
    assert await serve(servant, ("open", HUP), ("trial 1", number), trial=trial) == "stopped"
    assert servant.said == ["start", "open", "trial 1", "cut short", "close", "stop", "stopped"]


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
