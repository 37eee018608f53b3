"""A tree that is being held still, with processes that are only told of."""

from __future__ import annotations

import pytest

from paddock.watchdog import tree
from paddock.watchdog.identity import ProcessIdentity
from paddock.watchdog.procstat import ProcessStat

ROOT = ProcessIdentity(1000, 5, "boot")


class Line:
    """Each generation forks the next and dies; a look finds it dead or gone, and only the last alive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fates: str) -> None:
        self.stopped: list[int] = []
        self.looks = 0
        self._fates = fates
        monkeypatch.setattr(tree, "children_of", self._children_of)
        monkeypatch.setattr(tree, "read_stat", self._read_stat)
        monkeypatch.setattr(tree, "_send", lambda member, _number: self.stopped.append(member.pid))

    def _children_of(self, pid: int) -> list[int]:
        if pid != ROOT.pid:
            return []
        self.looks += 1
        born = enumerate(self._fates[: self.looks], 2000)
        return [pid for pid, fate in born if fate in "ZS" or pid == 1999 + self.looks]

    def _read_stat(self, pid: int) -> ProcessStat:
        fate = self._fates[pid - 2000]
        if fate == " ":
            raise ProcessLookupError
        return ProcessStat(pid, fate, ROOT.pid, pid, pid, 0, 6)


@pytest.mark.parametrize("fates", ["ZZZZZS", "     S", "Z Z ZZS"])
def test_a_line_that_dies_faster_than_it_is_looked_at_is_followed(monkeypatch: pytest.MonkeyPatch, fates: str):
    line = Line(monkeypatch, fates)
    tree._hold_still({ROOT}, ROOT)
    assert line.stopped == [2000 + fates.index("S")]


def test_those_who_are_dead_for_long_hold_up_nobody(monkeypatch: pytest.MonkeyPatch):
    line = Line(monkeypatch, "ZZ")
    tree._hold_still({ROOT}, ROOT)
    assert line.looks == 2 + 3
