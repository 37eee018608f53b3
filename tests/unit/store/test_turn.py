"""The queue at the write lock, with a clock that is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from paddock.runtime.store import turn
from paddock.runtime.store.turn import _STANDS_STILL, LockFile


@pytest.mark.parametrize("away", [0.0, 5.0])
def test_who_was_away_while_the_lock_was_held_does_not_take_those_before_it_for_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, away: float
):
    """The lock comes free while the waiter gets no core: those at it have had no time yet, as far as anybody has seen."""
    now, looks = 1000.0, 0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds + (away if looks == 1 else 0.0)

    def holder(_descriptor: int, _byte: int) -> int | None:
        nonlocal looks
        looks += 1
        return 1 if looks == 1 else None

    lock = LockFile.of(str(tmp_path / "app.db"))
    monkeypatch.setattr(turn, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(turn, "_holder", holder)
    assert lock._come_near(100)
    lock.tidy()
    waited = now - 1000.0 - away
    assert _STANDS_STILL * 3 / 4 <= waited <= _STANDS_STILL * 1.5
