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


def record(table: BeatTable) -> list[int]:
    """Return what is promised from now on."""
    promises: list[int] = []
    keep = table.promise_look

    def promise(at_ns: int) -> None:
        promises.append(at_ns)
        keep(at_ns)

    table.promise_look = promise  # type: ignore[method-assign]
    return promises


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not what():
            await asyncio.sleep(0)


async def test_after_a_ring_what_is_noted_is_heard_without_one(table: BeatTable, roster: Roster):
    heard: list[int] = []
    first, second = child(table, roster, 1), child(table, roster, 2)
    rounds = Rounds(table, roster, heard.append)
    assert not table.note_on_disk(first.slot, 4), "nobody has promised to look"
    promises = record(table)
    rounds.rung(4)
    assert heard == [4]
    assert promises.pop() > 0, "the next look is promised"
    table.note_on_disk(first.slot, 7)
    table.note_on_disk(second.slot, 9)
    await until(lambda: len(heard) > 1)
    assert heard == [4, 9]
    rounds.stop()
    assert not table.note_on_disk(first.slot, 10)


async def test_the_promise_ends_where_nothing_comes_any_more(table: BeatTable, roster: Roster):
    heard: list[int] = []
    known = child(table, roster, 1)
    rounds = Rounds(table, roster, heard.append)
    rounds.rung(3)
    promises = record(table)
    await until(lambda: 0 in promises)
    assert promises[-1] == 0
    await asyncio.sleep(0.02)
    assert promises[-1] == 0, "nobody goes round for ever"
    table.note_on_disk(known.slot, 5)
    rounds.rung(0)  # one of another version's, or a queue that was full
    assert heard == [3, 5], "a ring is heard after the rounds too, and so is what was noted"
    rounds.stop()


async def test_what_is_noted_as_the_promise_is_taken_back_is_heard(table: BeatTable, roster: Roster):
    heard: list[int] = []
    known = child(table, roster, 1)
    rounds = Rounds(table, roster, heard.append)
    taken_back = []
    keep = table.promise_look

    def promise(at_ns: int) -> None:
        if not at_ns and not taken_back:
            taken_back.append(table.note_on_disk(known.slot, 8))  # this child has read the promise a moment ago
        keep(at_ns)

    table.promise_look = promise  # type: ignore[method-assign]
    rounds.rung(3)
    await until(lambda: bool(taken_back))
    await until(lambda: len(heard) > 1)
    assert heard == [3, 8]
    rounds.stop()


async def test_a_promise_that_is_due_is_none(table: BeatTable):
    slot = table.claim()
    table.promise_look(1)
    assert not table.note_on_disk(slot, 5)
    table.promise_look(2**62)
    assert table.note_on_disk(slot, 6)
    assert table.on_disk(slot) == 6
    table.release(slot)
    assert table.on_disk(table.claim()) == 0, "a slot begins with nothing"
