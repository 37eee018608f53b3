"""A snapshot as a screen: what `paddock top` shows."""

from __future__ import annotations

from collections.abc import Iterator

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
_LEAST_ROWS = 3
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

    Args:
        snapshot: what to show.
        screen: where, for its width.
        height: rows that there are; None for as many as it takes.
        keys: say which keys there are.
    """
    wide = screen.width >= _WIDE
    parts: list[RenderableType] = [*_head(snapshot, keys=keys), Text()]
    queues = _queues(snapshot)
    kills = list(_kills(snapshot, wide=wide))
    taken = len(parts) + (queues.row_count + 2 if queues.row_count else 0) + (len(kills) + 2 if kills else 0) + 2
    room = None if height is None else max(_LEAST_ROWS, height - taken)
    parts.append(_processes(snapshot.processes, wide=wide, room=room, fill=screen.is_terminal))
    if queues.row_count:
        parts += [Text(), queues]
    if kills:
        parts += [Text(), Text("LAST KILLS BY THE WATCHDOG", style="bold"), *kills]
    return Group(*parts)


def _head(snapshot: Snapshot, *, keys: bool) -> Iterator[Text]:
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
    counts = Text()
    for status in _ORDER:
        if totals.get(status):
            counts.append(f"{totals[status]:,} {status.value.replace('_', ' ')}  ", STYLES[status])
    yield counts if totals else Text("no instances yet", style="dim")
    for part, what in snapshot.trouble.items():
        yield Text(f"{part}: {what}", style="red")


def _processes(processes: list[Process], *, wide: bool, room: int | None, fill: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, expand=fill)
    table.add_column("PID", justify="right", no_wrap=True)
    table.add_column("WORKFLOW", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("INSTANCE", no_wrap=True, overflow="ellipsis", min_width=18)
    table.add_column("STEP", no_wrap=True, overflow="ellipsis", ratio=2)
    for column in ("CPU%", "MEMORY", "BEAT"):
        table.add_column(column, justify="right", no_wrap=True)
    processes = sorted(
        processes, key=lambda process: process.role != "child"
    )  # where not all fit, it is the helpers that do not
    shown = processes if room is None or len(processes) <= room else processes[: room - 1]
    for process in shown:
        beat = process.last_beat
        table.add_row(
            str(process.pid),
            Text(process.workflow or process.role, style="" if process.role == "child" else "dim"),
            Text((process.instance_id or "") if wide else short_id(process.instance_id or "")),
            Text(process.step or ""),
            _cpu(process.cpu_percent),
            "" if process.rss is None else f"{process.rss / 2**20:.0f} MB",
            Text("" if beat is None else f"{beat:.1f} s", style="red" if beat is not None and beat > _OLD_BEAT else ""),
        )
    if len(shown) < len(processes):
        table.add_row("", "", Text(f"… and {len(processes) - len(shown)} more", style="dim"))
    return table


def _cpu(percent: float | None) -> Text:
    if percent is None:
        return Text("")
    return Text(f"{percent:.0f}", style="yellow" if percent >= _BUSY else "")


def _queues(snapshot: Snapshot) -> Table:
    """Return the workflows that have something to do."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("QUEUES", overflow="ellipsis", no_wrap=True)
    counts = snapshot.counts.values()
    columns = [status for status in _ORDER if status in ACTIVE and any(one.get(status) for one in counts)]
    for status in columns:
        table.add_column(status.value.upper(), justify="right")
    for name, by_status in snapshot.counts.items():
        if any(by_status.get(status) for status in columns):
            cells = [
                Text(f"{by_status[status]:,}", style=STYLES[status])
                if by_status.get(status)
                else Text("·", style="dim")
                for status in columns
            ]
            table.add_row(Text(name), *cells)
    return table


def _kills(snapshot: Snapshot, *, wide: bool) -> Iterator[Text]:
    for event in snapshot.kills:
        ident = event.instance_id if wide else short_id(event.instance_id)
        yield Text.assemble(
            (f"{when(event.created_at)} ", "dim"),
            f"{event.workflow_name} ",
            (f"{ident} ", "dim"),
            (f"process {event.data.get('pid')}: {event.data.get('reason')}", "red"),
            no_wrap=True,
            overflow="ellipsis",
        )
