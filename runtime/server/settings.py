"""What a server is made of before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.clock import Clock
from ..base.config import WatchdogConfig, WorkflowsConfig
from ..base.errors import ServerNotRunning
from ..engine.plugins import Plugin, Plugins
from ..store.database import Database
from ..store.sql_store import SqlStore
from .bus import EventBus
from .workflows import Workflows

__all__ = ["LentStore", "ServerSettings"]


class LentStore:
    """The store of a started server, for parts that exist before it."""

    def __init__(self) -> None:
        """Begin with none."""
        self.store: SqlStore | None = None

    def opened(self) -> SqlStore:
        """Return the store.

        Raises:
            ServerNotRunning: the server is not started.
        """
        if self.store is None:
            raise ServerNotRunning("the server is not started; use `async with server:` or `await server.start()`")
        return self.store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.opened(), name)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the application has asked for; `run_dir` is what the user named."""

    database: Database
    run_dir: str | Path | None
    config: dict[str, Any]
    workflows_config: WorkflowsConfig
    watchdog_config: WatchdogConfig
    clock: Clock
    plugin_list: Sequence[Plugin[Any]]
    plugins: Plugins
    workflows: Workflows
    bus: EventBus
    lent: LentStore
