"""The log service: what handlers logged and children printed, by instance."""

from __future__ import annotations

from collections.abc import Callable

from ..base.errors import ConfigError
from ..base.records import LEVELS, LogRecord
from ..store.protocol import Store
from .paging import event_window

__all__ = ["Logs"]


class Logs:
    """`server.logs`."""

    def __init__(self, store: Callable[[], Store]) -> None:
        """Read from the store of the started server."""
        self._store = store

    async def query(
        self,
        *,
        instance_id: str | None = None,
        level: str | None = None,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        reverse: bool = False,
    ) -> list[LogRecord]:
        """Return log records, oldest first: `query(limit=20, reverse=True)` are the last twenty, the newest first.

        Args:
            instance_id: of one instance only.
            level: the lowest level wanted ("debug", "info", "warning", "error", "critical").
            after: the id of the last record of the page before; 0 is the beginning.
            before: the id of the oldest record of the page before, where pages go back.
            limit: how many at most.
            reverse: the newest first.

        Raises:
            ConfigError: no such level, or no such page.
            InstanceNotFound: there is no such instance.
        """
        if level is not None and level not in LEVELS:
            raise ConfigError(f"no log level {level!r}: use {', '.join(LEVELS)}")
        return await self._store().logs(
            event_window(after, before, limit, reverse=reverse), level=level, instance_id=instance_id
        )
