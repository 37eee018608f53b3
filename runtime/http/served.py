"""What the HTTP side works with: the services of one server, handed over by the one who makes both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..base.config import WorkflowsConfig
from ..server.bus import EventBus
from ..server.logs import Logs
from ..server.stacks import Stacks
from ..server.workflows import Workflows
from ..store.sql_store import SqlStore

__all__ = ["Served"]


@dataclass(slots=True, eq=False)
class Served:
    """A server as its HTTP side sees it.

    `store` raises `ServerNotRunning` while the server is not started. `database` is the file's name without its folder, for people.
    """

    workflows: Workflows
    events: EventBus
    logs: Logs
    store: Callable[[], SqlStore]
    processes: Callable[[], Awaitable[list[dict[str, Any]]]]
    stacks: Callable[[str], Awaitable[Stacks]]
    health: Callable[[], Awaitable[dict[str, Any]]]
    settings: WorkflowsConfig
    database: str
    version: str
    started_at: Callable[[], float | None]
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Answer within the context; at its end streams and long waits are let go, for the server is about to stop."""
        self.closing = asyncio.Event()
        try:
            yield
        finally:
            self.closing.set()
