"""What runs for a server: one row for each process, with what the kernel and the beat table know of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

import psutil

from ...watchdog.beats import BeatTable
from .children import Child

__all__ = ["census", "process_row"]


def census(
    watchdog: int | None, fork_server: int | None, children: Iterable[Child], table: BeatTable
) -> list[dict[str, Any]]:
    """Return the processes that live; blocking, for it asks the kernel about each of them."""
    rows = [process_row("server", os.getpid())]
    rows += [process_row(role, pid) for role, pid in (("watchdog", watchdog), ("fork-server", fork_server)) if pid]
    for child in children:
        view = table.read(child.slot)
        # one that is born may be at work before its fork server has told of it, but not before it has noted it
        pid = child.identity.pid if child.identity is not None else view.pid
        if not pid:
            continue
        beat = round((time.monotonic_ns() - view.last_beat_ns) / 1e9, 3) if view.last_beat_ns else None
        row = process_row("child", pid)
        rows.append({**row, "instance_id": child.instance_id, "step": view.step or None, "last_beat": beat})
    return [row for row in rows if row["rss"] is not None]


def process_row(role: str, pid: int) -> dict[str, Any]:
    """Return the row of a process that is no child; its memory is None where it has gone."""
    rss = cpu = None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        times = process.cpu_times()
        rss, cpu = process.memory_info().rss, round(times.user + times.system, 3)
    return {"role": role, "pid": pid, "instance_id": None, "step": None, "rss": rss, "cpu": cpu, "last_beat": None}
