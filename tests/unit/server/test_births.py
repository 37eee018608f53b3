"""Births: a few at a time, in their order, and nobody waits for one who waits for something else."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.ipc.messages import Exited
from paddock.runtime.server.births import Births
from paddock.runtime.server.children import Child
from paddock.runtime.store.ops import Lease
from paddock.watchdog.beats import BeatTable


@pytest.fixture
def table(tmp_path: Path) -> Iterator[BeatTable]:
    found = BeatTable.create(str(tmp_path / "beats"), 8)
    yield found
    found.close()


def child(table: BeatTable, number: int) -> Child:
    return Child(Lease(number, 1), f"i{number}", "wf", table.claim())


def died(known: Child) -> Exited:
    return Exited(
        pid=1,
        start_time=1,
        instance_id=known.instance_id,
        epoch=known.lease.epoch,
        exit_code=0,
        max_rss=0,
        user_time=0.0,
        system_time=0.0,
    )


class _Asked:
    """Children that have all asked at once, and who was let in so far."""

    def __init__(self, table: BeatTable, count: int, *, moment: float, spell: float = 60, still: float = 0.01) -> None:
        self.births = Births(table, most=2, moment=moment, spell=spell, still=still)
        self.children = [child(table, number) for number in range(count)]
        self.born: list[int] = []
        self.tasks = [asyncio.ensure_future(self._ask(number)) for number in range(count)]

    async def _ask(self, number: int) -> None:
        await self.births.wait(self.children[number])
        self.born.append(number)

    async def until(self, count: int) -> list[int]:
        while len(self.born) < count:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # and nobody more
        return self.born


async def test_the_next_is_born_when_one_has_ended_sets_a_plugin_up_or_commits_nothing_any_more(table: BeatTable):
    asked = _Asked(table, 6, moment=60)
    assert await asked.until(2) == [0, 1]
    writers = [table.writer(known.slot) for known in asked.children]
    writers[1].bump_progress()
    assert await asked.until(3) == [0, 1, 2]
    writers[0].set_step("plugin:reports")
    assert await asked.until(4) == [0, 1, 2, 3]
    asked.children[2].settled.set()
    assert await asked.until(5) == [0, 1, 2, 3, 4]
    asked.children[3].exited.set_result(died(asked.children[3]))
    assert await asked.until(6) == [0, 1, 2, 3, 4, 5]
    for writer in writers:
        writer.close()


async def test_one_who_has_just_committed_counts(table: BeatTable):
    asked = _Asked(table, 3, moment=60, still=60)
    assert await asked.until(2) == [0, 1]
    with contextlib.closing(table.writer(asked.children[0].slot)) as writer:
        writer.bump_progress()
    assert await asked.until(2) == [0, 1]
    asked.children[1].exited.set_result(died(asked.children[1]))
    assert await asked.until(3) == [0, 1, 2]


async def test_one_who_takes_long_holds_up_nobody_for_long(table: BeatTable):
    asked = _Asked(table, 6, moment=0.01)
    await asyncio.gather(*asked.tasks)
    assert asked.born == [0, 1, 2, 3, 4, 5]


async def test_one_who_commits_on_and_on_counts_for_longer_and_not_for_ever(table: BeatTable):
    asked = _Asked(table, 3, moment=0.01, spell=60, still=60)
    with contextlib.ExitStack() as stack:
        for known in asked.children[:2]:
            stack.enter_context(contextlib.closing(table.writer(known.slot))).bump_progress()
        assert await asked.until(2) == [0, 1], "their moment is over, their spell is not"
        asked.children[0].settled.set()
        assert await asked.until(3) == [0, 1, 2]
    asked = _Asked(table, 3, moment=60, spell=0.01, still=60)
    with contextlib.closing(table.writer(asked.children[0].slot)) as writer:
        writer.bump_progress()
        await asked.tasks[2]
