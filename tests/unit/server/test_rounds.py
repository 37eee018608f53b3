"""Rounds: what comes in a burst is heard without a ring, what comes alone by one, and nothing is lost between the two."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paddock.runtime.server.children import Child
from paddock.runtime.server.roster import Roster
from paddock.runtime.server.rounds import Rounds
from paddock.runtime.store.ops import Lease
from paddock.watchdog.beats import BeatTable

DEADLINE = 20.0


@pytest.fixture
def table(tmp_path: Path) -> Iterator[BeatTable]:
    found = BeatTable.create(str(tmp_path / "beats"), 8)
    yield found
    found.close()


@pytest.fixture
def roster(table: BeatTable) -> Roster:
    return Roster()


def child(table: BeatTable, roster: Roster, number: int) -> Child:
    return roster.add(Child(Lease(number, 1), f"i{number}", "wf", table.claim()))


def record(table: BeatTable) -> list[tuple[float, bool]]:
    """Return what is promised from now on: for how many seconds, and whether a last word may wait too."""
    promises: list[tuple[float, bool]] = []
    keep = table.promise_looks

    def promise(seconds: float, *, crowded: bool = False) -> None:
        promises.append((seconds, crowded))
        keep(seconds, crowded=crowded)

    table.promise_looks = promise  # type: ignore[method-assign]
    return promises


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not what():
            await asyncio.sleep(0)


async def test_after_a_ring_what_is_noted_is_heard_without_one(table: BeatTable, roster: Roster):
    heard: list[int] = []
    first, second = child(table, roster, 1), child(table, roster, 2)
    table.promise_looks(1000)
    rounds = Rounds(table, roster, heard.append)
    assert not table.looks_promised(), "that was another server's promise"
    promises = record(table)
    rounds.rung(4)
    assert heard == [4]
    assert promises.pop()[0] > 0
    table.note_on_disk(first.slot, 7)
    table.note_on_disk(second.slot, 9)
    await until(lambda: len(heard) > 1)
    assert heard == [4, 9]
    rounds.stop()
    assert not table.looks_promised()


async def test_the_rounds_end_where_nothing_comes_any_more(table: BeatTable, roster: Roster):
    heard: list[int] = []
    known = child(table, roster, 1)
    rounds = Rounds(table, roster, heard.append)
    promises = record(table)
    rounds.rung(3)
    await until(lambda: bool(promises) and not promises[-1][0])
    await asyncio.sleep(0.03)
    assert not promises[-1][0], "nobody goes round for ever"
    assert not table.looks_promised()
    table.note_on_disk(known.slot, 5)
    rounds.rung(0)  # of another version, which rings without a number
    assert heard == [3, 5], "a ring is heard after the rounds too, and so is what was noted"
    rounds.stop()


async def test_what_is_noted_as_the_promise_is_taken_back_is_heard(table: BeatTable, roster: Roster):
    heard: list[int] = []
    known = child(table, roster, 1)
    rounds = Rounds(table, roster, heard.append)
    taken_back = []
    keep = table.promise_looks

    def promise(seconds: float, *, crowded: bool = False) -> None:
        keep(seconds, crowded=crowded)
        if not seconds and not taken_back:
            taken_back.append(True)
            table.note_on_disk(known.slot, 8)  # by a child that had read the promise a moment before

    table.promise_looks = promise  # type: ignore[method-assign]
    rounds.rung(3)
    await until(lambda: bool(taken_back))
    await until(lambda: len(heard) > 1)
    assert heard == [3, 8]
    rounds.stop()


async def test_a_last_word_may_wait_in_a_crowd_only(table: BeatTable, roster: Roster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paddock.runtime.server.rounds._CORES", 1)
    rounds = Rounds(table, roster, lambda _newest: None)
    promises = record(table)
    child(table, roster, 1)
    rounds.rung(1)
    child(table, roster, 2)
    rounds.rung(2)
    assert [crowded for _, crowded in promises] == [False, True]
    rounds.stop()
