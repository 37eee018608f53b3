"""One look at a server and its database: what runs, what queues, what was killed. The server is asked, and where it is dumb, the kernel is."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from ...watchdog.beats import BeatTable, BeatTableError, SlotView
from ...watchdog.identity import ProcessIdentity, is_alive
from ..base.errors import PaddockError
from ..base.records import Event
from ..server.census import process_row
from ..server.rundir import RunDirectory
from ..store.admission import Held, held
from ..store.overview import counts, kills
from ..store.schemes import database_of, open_reader, read_note
from ..store.turn import ServerNote
from .desk import running_server
from .line import Line

__all__ = ["Process", "Snapshot", "look"]

_ANSWER = 2.0
_KILLS = 5


@dataclass(frozen=True, slots=True)
class Process:
    """A process: `rss` in bytes, `cpu` in seconds used, `cpu_percent` since the look before, `last_beat` in seconds."""

    role: str
    pid: int
    instance_id: str | None = None
    workflow: str | None = None
    step: str | None = None
    rss: int | None = None
    cpu: float | None = None
    cpu_percent: float | None = None
    last_beat: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there was at one moment; `trouble` says what is wrong, by part."""

    database: str
    server_pid: int | None
    processes: list[Process]
    counts: dict[str, dict[str, int]]
    kills: list[Event]
    trouble: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0


def look(path: str, before: Snapshot | None = None) -> Snapshot:
    """Look at a database (its real path); with the look before, CPU time becomes a percentage."""
    with open_reader(path) as reader:
        leases = reader.read(held)
        by_workflow = reader.read(counts)
        killed = reader.read(kills, _KILLS)
    note = running_server(path)
    trouble: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    if note is not None:
        try:
            with Line.to(note, _ANSWER) as line:
                rows = line.ask("processes", {}, _ANSWER)
                trouble = dict(line.ask("health", {}, _ANSWER)["problems"])
        except PaddockError as error:
            trouble = {"server": str(error)}
    if not rows:
        rows = _seen_from_outside(path, note, leases)
    now = time.monotonic()
    names = {one.id: one.workflow_name for one in leases}
    processes = [
        Process(**row, workflow=names.get(row["instance_id"] or ""), cpu_percent=_percent(row, before, now))
        for row in rows
    ]
    return Snapshot(
        database_of(path).label, note.pid if note is not None else None, processes, by_workflow, killed, trouble, now
    )


def _percent(row: dict[str, Any], before: Snapshot | None, now: float) -> float | None:
    if before is None or row["cpu"] is None:
        return None
    for process in before.processes:
        if (process.pid, process.instance_id) == (row["pid"], row["instance_id"]) and process.cpu is not None:
            used: float = max(0.0, row["cpu"] - process.cpu)
            return round(used / max(now - before.at, 0.001) * 100, 1)
    return None


def _seen_from_outside(path: str, note: ServerNote | None, leases: list[Held]) -> list[dict[str, Any]]:
    """Return the processes that leases name and that live, with what the beat table says of them."""
    rows = [process_row("server", note.pid)] if note is not None and note.host is None else []
    slots = _slots(path)
    for lease in leases:
        if lease.pid is None or not lease.isolated:
            continue
        identity = ProcessIdentity(lease.pid, lease.pid_start or 0, lease.boot_id or "")
        if is_alive(identity):
            view = slots.get(lease.pid)
            beat = round((time.monotonic_ns() - view.last_beat_ns) / 1e9, 3) if view and view.last_beat_ns else None
            row = process_row("child", lease.pid)
            rows.append(row | {"instance_id": lease.id, "step": (view and view.step) or None, "last_beat": beat})
    return rows


def _slots(path: str) -> dict[int, SlotView]:
    note = read_note(path)
    run_dir = (note.run_dir if note is not None else None) or RunDirectory.place(database_of(path).identity)
    try:
        table = BeatTable.open(os.path.join(run_dir, "beats"))
    except (OSError, BeatTableError):
        return {}
    try:
        views = [table.read(slot) for slot in table.used()]
    finally:
        table.close()
    return {view.pid: view for view in views}
