"""What is wrong with a running server, said live: every problem is looked at anew at each question, so what has passed is not said.

| part | what is wrong |
|---|---|
| `database` | the last write or read failed: full, read-only, failing, locked by a stranger; damaged, deleted or replaced |
| `disk` | hardly any room where the database or the run directory lies |
| `wal` | the WAL grows, because a reader holds an old snapshot |
| `dispatcher`, `events`, `housekeeper` | nothing can be claimed, delivered, cleaned up; the reason |
| `watchdog`, `fork-server` | down, and being replaced; switched off, or unable to fork |
| `children` | by instance: silent, stopped, or not ending though told to |
| `run-dir` | something that children need was removed from it |
| `imports` | modules that the fork server could not import; each child tries itself |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...watchdog.beats import BeatTable
from ..base.config import WatchdogConfig, WorkflowsConfig
from ..store.space import low_space
from ..store.sql_store import SqlStore
from .bus import EventBus
from .children import Child
from .dispatcher import Dispatcher
from .guard import WatchdogKeeper
from .housekeeper import Housekeeper
from .nursery import Nursery
from .rundir import RunDirectory
from .supervisor import Supervisor

__all__ = ["Health"]

_SLOW_END = 10.0


@dataclass(frozen=True, slots=True)
class Health:
    """The parts that are asked."""

    store: SqlStore
    store_space: Callable[[], str | None]
    bus: EventBus
    dispatcher: Dispatcher
    housekeeper: Housekeeper
    nursery: Nursery
    guard: WatchdogKeeper
    supervisor: Supervisor
    table: BeatTable
    run_dir: RunDirectory
    workflows: WorkflowsConfig
    watchdog: WatchdogConfig

    def problems(self) -> dict[str, Any]:
        """Return what is wrong, by part; `{}` where nothing is."""
        found: dict[str, Any] = dict(self.store.health())
        found |= _present(
            disk=self.store_space() or low_space(self.run_dir.path),
            wal=self.housekeeper.wal,
            dispatcher=self.dispatcher.trouble,
            events=self.bus.trouble,
            housekeeper=self.housekeeper.trouble,
        )
        if self.workflows.launcher != "inline":
            found |= self._helpers()
        return found

    def _helpers(self) -> dict[str, Any]:
        return _present(
            watchdog=self.guard.trouble if self.watchdog.enabled else "switched off",
            **{"fork-server": self.nursery.trouble, "run-dir": self.run_dir.trouble()},
            imports=dict(self.nursery.failures),
            children=self._children(),
        )

    def _children(self) -> dict[str, str]:
        rows = {child.instance_id: self._child(child) for child in self.supervisor.children}
        return {ident: complaint for ident, complaint in rows.items() if complaint}

    def _child(self, child: Child) -> str | None:
        now = time.monotonic()
        pid = child.identity.pid if child.identity is not None else None
        if child.ending_since is not None and now - child.ending_since > self.workflows.kill_grace + _SLOW_END:
            return f"process {pid} was told to end {now - child.ending_since:.0f}s ago and does not; is it stuck in the kernel (state D)?"
        if child.stale is not None:
            return f"process {pid} is stale ({child.stale['reason']}) and is being ended"
        view = self.table.read(child.slot)
        if view.last_beat_ns and pid and (silence := now - view.last_beat_ns / 1e9) > self.watchdog.heartbeat_timeout:
            return f"process {pid} has given no heartbeat for {silence:.0f}s; it is busy in C code, stopped, or stuck"
        return None


def _present(**found: Any) -> dict[str, Any]:
    return {part: complaint for part, complaint in found.items() if complaint}
