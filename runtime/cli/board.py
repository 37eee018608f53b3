"""A snapshot as a screen: what `paddock top` shows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..base.records import ACTIVE, Status
from .output import STYLES, short_id, when
from .snapshot import Process, Snapshot

__all__ = ["board"]

_WIDE = 120
_OLD_BEAT = 5.0
_BUSY = 80.0
_TALL = 12
_BROAD = 30
_LEAST = 3
_NAME = 10
_ORDER = (
    Status.RUNNING,
    Status.PENDING,
    Status.SLEEPING,
    Status.WAITING,
    Status.PAUSED,
    Status.BLOCKED,
    Status.FAILED,
    Status.TIMED_OUT,
    Status.CANCELLED,
    Status.COMPLETED,
)


def board(snapshot: Snapshot, screen: Console, *, height: int | None = None, keys: bool = False) -> RenderableType:
    """Return the screen: the server, its processes, the queues, the last kills.

    Where not all of it fits, the processes get what they need of half the rows, and columns that can be missed are left out.

    Args:
        snapshot: what to show.
        screen: where, for its width.
        height: rows that there are; None for as many as it takes.
        keys: say which keys there are.
    """
    tight = height is not None and (height < _TALL or screen.width < _BROAD)
    parts: list[RenderableType] = list(_head(snapshot, keys=keys, cut=tight))
    if not tight:
        parts.append(Text())
    rest = None if height is None else height - sum(len(screen.render_lines(part, pad=False)) for part in parts)
    tail: list[RenderableType] = []
    spare = None if rest is None else rest - min(len(snapshot.processes) + 1, max(rest // 2, _LEAST))
    for section in (_queues(snapshot, screen), _kills(snapshot, wide=screen.width >= _WIDE)):
        lines = section if spare is None else _fitting(section, spare - 1)
        if lines:
            tail += [Text(), *lines]
            spare = None if spare is None else spare - 1 - len(lines)
    room = None if rest is None else max(1, rest - len(tail))
    return Group(*parts, _processes(snapshot.processes, screen, room), *tail)


def _fitting(section: list[Text], room: int) -> list[Text]:
    """Return a heading and what fits under it; nothing where that would be the heading alone."""
    if len(section) <= room or not section:
        return section
    if room <= 2:  # noqa: PLR2004
        return []
    more = f"… and {len(section) - room + 1} more"
    return [*section[: room - 1], Text(more, "dim", no_wrap=True, overflow="ellipsis")]


def _head(snapshot: Snapshot, *, keys: bool, cut: bool) -> Iterator[Text]:
    line = Text.assemble(("paddock ", "bold"), snapshot.database, no_wrap=True, overflow="ellipsis")
    if snapshot.server_pid is None:
        line.append("  no server runs", "yellow")
    else:
        line.append(f"  server {snapshot.server_pid}", "green")
    if keys:
        line.append("  q quits", "dim")
    yield line
    totals: dict[str, int] = {}
    for by_status in snapshot.counts.values():
        for status, count in by_status.items():
            totals[status] = totals.get(status, 0) + count
    lines = [_tally(totals, _ORDER) if totals else Text("no instances yet", style="dim")]
    lines += [Text(f"{part}: {what}", style="red") for part, what in snapshot.trouble.items()]
    for line in lines:
        line.no_wrap, line.overflow = cut, "ellipsis" if cut else None
        yield line


def _tally(counts: dict[str, int], statuses: Iterable[Status]) -> Text:
    """Return `2 running  1 failed`."""
    line = Text()
    for status in statuses:
        if counts.get(status):
            line.append(f"{counts[status]:,} {status.value.replace('_', ' ')}  ", STYLES[status])
    return line


def _processes(processes: list[Process], screen: Console, room: int | None) -> Table:
    """Return the processes in so many lines, the heading among them where there are enough."""
    heading = room is None or room >= _LEAST
    table = Table(box=None, header_style="bold", pad_edge=False, expand=screen.is_terminal, show_header=heading)
    processes = sorted(
        processes, key=lambda process: process.role != "child"
    )  # where not all fit, it is the helpers that do not
    rows = None if room is None else room - heading
    shown = processes if rows is None or len(processes) <= rows else processes[: max(1, rows - 1)]
    columns = [column for column in _COLUMNS if column.least <= screen.width < column.below]
    for column in columns:
        if column.elastic:
            table.add_column(column.title, no_wrap=True, overflow="ellipsis", ratio=2)
        else:
            table.add_column(
                column.title, no_wrap=True, overflow="ellipsis", justify=column.justify, min_width=column.width
            )
    for process in shown:
        table.add_row(*(column.cell(process) for column in columns))
    if len(shown) < len(processes) and (rows is None or rows > 1):
        table.add_row("", Text(f"… and {len(processes) - len(shown)} more", style="dim"))
    return table


def _cpu(percent: float | None) -> Text:
    if percent is None:
        return Text("")
    return Text(f"{percent:.0f}", style="yellow" if percent >= _BUSY else "")


def _beat(beat: float | None) -> Text:
    if beat is None:
        return Text("")
    return Text(f"{beat:.1f} s", style="red" if beat > _OLD_BEAT else "")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of processes; left out of a terminal that has fewer than `least` columns, or `below` and more."""

    title: str
    least: int
    cell: Callable[[Process], Text]
    justify: Literal["left", "right"] = "left"
    elastic: bool = False
    width: int | None = None
    below: int = sys.maxsize


_COLUMNS = (
    _Column("PID", 24, lambda process: Text(str(process.pid)), "right", width=5),
    _Column(
        "WORKFLOW",
        0,
        lambda process: Text(process.workflow or process.role, "" if process.role == "child" else "dim"),
        elastic=True,
    ),
    _Column("INSTANCE", 64, lambda process: Text(short_id(process.instance_id or "")), width=18, below=_WIDE),
    _Column("INSTANCE", _WIDE, lambda process: Text(process.instance_id or ""), width=18),
    _Column("STEP", 0, lambda process: Text(process.step or ""), elastic=True),
    _Column("CPU%", 32, lambda process: _cpu(process.cpu_percent), "right", width=4),
    _Column(
        "MEMORY",
        50,
        lambda process: Text("" if process.rss is None else f"{process.rss / 2**20:.0f} MB"),
        "right",
        width=6,
    ),
    _Column("BEAT", 40, lambda process: _beat(process.last_beat), "right", width=5),
)


def _queues(snapshot: Snapshot, screen: Console) -> list[Text]:
    """Return the workflows that have something to do, below a heading: a table where it is wide enough, else in words."""
    busy = {
        name: by_status
        for name, by_status in snapshot.counts.items()
        if any(by_status.get(status) for status in _ORDER if status in ACTIVE)
    }
    if not busy:
        return []
    columns = [status for status in _ORDER if status in ACTIVE and any(one.get(status) for one in busy.values())]
    if _NAME + sum(2 + len(status.value) for status in columns) <= screen.width:
        lines = screen.render_lines(_queue_table(busy, columns), pad=False)
        return [Text.assemble(*((part.text, part.style or "") for part in line)) for line in lines]
    words = [Text.assemble(f"{name}  ", _tally(by_status, columns)) for name, by_status in busy.items()]
    for line in words:
        line.no_wrap, line.overflow = True, "ellipsis"
    return [Text("QUEUES", "bold", no_wrap=True), *words]


def _queue_table(busy: dict[str, dict[str, int]], columns: list[Status]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("QUEUES", overflow="ellipsis", no_wrap=True, min_width=_NAME)
    for status in columns:
        table.add_column(status.value.upper(), justify="right", no_wrap=True, min_width=len(status.value))
    for name, by_status in busy.items():
        cells = [
            Text(f"{by_status[status]:,}", style=STYLES[status]) if by_status.get(status) else Text("·", style="dim")
            for status in columns
        ]
        table.add_row(Text(name), *cells)
    return table


def _kills(snapshot: Snapshot, *, wide: bool) -> list[Text]:
    """Return the last kills, below a heading."""
    lines = [
        Text.assemble(
            (f"{when(event.created_at)} ", "dim"),
            f"{event.workflow_name} ",
            (f"{event.instance_id if wide else short_id(event.instance_id)} ", "dim"),
            (f"process {event.data.get('pid')}: {event.data.get('reason')}", "red"),
            no_wrap=True,
            overflow="ellipsis",
        )
        for event in snapshot.kills
    ]
    return [Text("LAST KILLS BY THE WATCHDOG", "bold", no_wrap=True, overflow="ellipsis"), *lines] if lines else []
