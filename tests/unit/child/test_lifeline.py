"""The child's line to its server: when it is taken up."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from childkit import told

from paddock.ipc.bell import Bell
from paddock.runtime.child import lifeline
from paddock.runtime.child.lifeline import Lifeline, Lookout


class _Line:
    """A line whose clock stands still, and how often it was about to connect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.now = 0.0
        self.promised = [False, False]  # looks after a commit, and after the last
        self.taken_up: list[str] = []
        monkeypatch.setattr(lifeline, "reach", self.taken_up.append)
        monkeypatch.setattr(lifeline, "time", SimpleNamespace(monotonic=lambda: self.now))  # not the loop's
        self.lifeline = Lifeline(
            told(folder),
            1,
            on_cancel=_never,
            on_drain=_never,
            on_nudge=_never,
            is_looked_for=lambda last: self.promised[last],
            leave=_never,  # type: ignore[arg-type]
        )

    @asynccontextmanager
    async def held(self) -> AsyncIterator["_Line"]:
        self.lifeline.start()
        await asyncio.sleep(0)  # its task has begun, at 0
        try:
            yield self
        finally:
            await self.lifeline.finish("completed")
            self.lifeline.close()

    async def commit_at(self, now: float) -> None:
        self.now = now
        self.lifeline.committed(1)
        await asyncio.sleep(0.12)  # what is due by the other clock is not due by this one

    async def is_taken_up(self) -> None:
        while not self.taken_up:
            await asyncio.sleep(0.005)


def _never(*_values: object) -> None:
    raise AssertionError("nobody has called")


async def test_it_is_taken_up_once_nothing_was_committed_for_a_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async with _Line(monkeypatch, tmp_path).held() as line:
        await line.commit_at(0.04)
        await line.commit_at(0.08)
        assert not line.taken_up
        line.now = 0.14
        await line.is_taken_up()


async def test_who_goes_on_committing_takes_it_up_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async with _Line(monkeypatch, tmp_path).held() as line:
        await line.commit_at(0.45)
        assert not line.taken_up
        line.now = 0.51
        line.lifeline.committed(2)
        await line.is_taken_up()


async def test_a_server_that_will_look_by_itself_is_told_at_the_last_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    line = _Line(monkeypatch, tmp_path)
    rings: list[int] = []
    bell = Bell(told(tmp_path).bell_path, rings.append)
    bell.start()
    try:
        async with line.held():
            line.lifeline.committed(1)
            await _heard(rings, [1])
            line.promised = [True, False]
            line.lifeline.committed(2)
            line.lifeline.committed(3)
            line.lifeline.last()
            await _heard(rings, [1, 3])
            line.lifeline.last()  # it is told already
            line.promised = [True, True]
            line.lifeline.committed(4)
            line.lifeline.last()
            line.promised = [False, False]
            line.lifeline.committed(5)
            await _heard(rings, [1, 3, 5])
            line.promised = [True, False]
            line.lifeline.committed(6)
        await _heard(rings, [1, 3, 5, 6])  # goodbye
    finally:
        bell.stop()


async def _heard(rings: list[int], expected: list[int]) -> None:
    async with asyncio.timeout(20):
        while len(rings) < len(expected):
            await asyncio.sleep(0.005)
    assert rings == expected


async def test_what_the_bell_cannot_tell_takes_it_up_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async with _Line(monkeypatch, tmp_path).held() as line:
        line.lifeline.queued()
        await line.is_taken_up()


def test_two_short_absences_are_not_a_long_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Asked while the loop stands still only: what was between two blocks of the loop has nobody looked at."""
    now = 0.0
    monkeypatch.setattr(lifeline, "time", SimpleNamespace(monotonic=lambda: now))
    lookout = Lookout(f"unix:{tmp_path}/none", 30.0)

    def ask(begin: int, end: int) -> list[bool]:
        nonlocal now
        answers = []
        for second in range(begin, end):
            now = float(second)
            answers.append(lookout.alone())
        return answers

    assert ask(1000, 1003) == [False] * 3
    assert ask(1200, 1232) == [False] * 31 + [True]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/none")
        server.listen()
        assert ask(1232, 1233) == [False]


async def test_time_in_which_nobody_looked_for_the_server_is_none_of_its_absence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A handler blocks the loop from the beginning for longer than the grace; the first look is made after that."""
    loop = asyncio.get_running_loop()
    real, ahead, tries = loop.time, 0.0, 0
    looked, left = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)

    def leave(_code: int) -> None:
        left.set()
        looked.set()
        raise asyncio.CancelledError

    async def connect(*_: object) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            looked.set()
        raise ConnectionRefusedError

    monkeypatch.setattr(lifeline, "connect", connect)
    line = Lifeline(
        told(tmp_path, orphan_grace=20),
        1,
        on_cancel=_never,
        on_drain=_never,
        on_nudge=_never,
        is_looked_for=lambda _last: True,
        leave=leave,  # type: ignore[arg-type]
    )
    line.start()
    await asyncio.sleep(0)
    ahead = 100.0
    line.queued()
    await looked.wait()
    assert not left.is_set()
    ahead = 200.0
    await left.wait()
    await line.finish("completed")
    line.close()
