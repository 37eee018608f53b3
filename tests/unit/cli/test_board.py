"""`paddock top` on terminals of every size."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from paddock import Event
from paddock.runtime.cli.board import board
from paddock.runtime.cli.snapshot import Process, Snapshot

_ID = "0199c3d2-1111-7aaa-8bbb-{:012}"
_KILL = Event(
    id=1,
    name="workflow.watchdog.killed",
    instance_id=_ID.format(1),
    workflow_name="import",
    created_at=datetime.now(UTC),
    data={"pid": 4711, "reason": "silent"},
)
_HELPERS = [Process("server", 100, rss=2**26), Process("watchdog", 101), Process("fork-server", 102)]
_CHILDREN = [
    Process("child", 4000 + n, _ID.format(n), "import", "fetch the pages", 2**27, 3.0, 99.0, 0.2) for n in range(9)
]
_FULL = Snapshot(
    database="a-database-with-a-long-name.db",
    server_pid=100,
    processes=[*_HELPERS, *_CHILDREN],
    counts={f"queue-{n}": {"running": 9, "pending": 1234, "sleeping": 2, "waiting": 3, "failed": 1} for n in range(6)},
    kills=[_KILL] * 5,
    trouble={"wal": "it grows"},
)


def drawn(width: int, height: int | None) -> list[str]:
    screen = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    lines = screen.render_lines(board(_FULL, screen, height=height, keys=True), pad=False)
    return ["".join(part.text for part in line) for line in lines]


@pytest.mark.parametrize("width", [8, 20, 30, 39, 60, 80, 132])
@pytest.mark.parametrize("height", [4, 5, 8, 11, 12, 24, 60])
def test_what_is_drawn_fits_and_tells_of_the_work(width: int, height: int) -> None:
    lines = drawn(width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if width >= 20:
        assert any("imp" in line and "fet" in line for line in lines)
    if width >= 30:
        assert any(line.lstrip().startswith("400") for line in lines)  # a pid is whole, or not there


def test_a_tall_terminal_shows_everything_and_a_small_one_says_what_is_missing() -> None:
    everything = "\n".join(drawn(132, 60))
    assert everything == "\n".join(drawn(132, None))
    assert all(word in everything for word in ("fork-server", "queue-5", "SLEEPING", "LAST KILLS", "it grows"))
    small = "\n".join(drawn(80, 15))
    assert small.count("more") == 2
    assert "queue-0" in small


def test_a_narrow_one_tells_queues_in_words() -> None:
    assert "queue-0  9 running  1,234 pen…" in drawn(30, 40)
