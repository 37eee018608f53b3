"""Housekeeping: checkpoints the WAL, and deletes what ended long ago."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3

from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.errors import MachineError
from ..base.log import get_logger
from ..store.checkpoint import Checkpointer
from ..store.sqlite import SqliteStore

__all__ = ["Housekeeper"]

_INTERVAL = 1.0
_BATCH = 200
_DAY = 86400.0
_log = get_logger("paddock.housekeeper")


class Housekeeper:
    """Keep the database in shape."""

    def __init__(self, store: SqliteStore, clock: Clock, config: WorkflowsConfig, checkpointer: Checkpointer) -> None:
        """Hold the parts; the checkpointer is closed by `stop`."""
        self._store = store
        self._clock = clock
        self._config = config
        self._checkpointer = checkpointer
        self._task: asyncio.Task[None] | None = None
        self._inode = _inode(store.path)
        self.trouble: str | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="paddock-housekeeper")

    async def stop(self) -> None:
        """End, after a last checkpoint."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            with contextlib.suppress(sqlite3.Error, OSError):
                await asyncio.to_thread(self._checkpointer.run, 1)
        self._checkpointer.close()

    async def _run(self) -> None:
        next_cleanup = self._clock.monotonic()
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await asyncio.shield(asyncio.to_thread(self._checkpointer.run))
                self.trouble = self._checkpointer.alarm or self._replaced()
                if self._config.cleanup_days and self._clock.monotonic() >= next_cleanup:
                    next_cleanup = self._clock.monotonic() + self._config.cleanup_interval
                    await self._clean()
            except (sqlite3.Error, MachineError, OSError) as error:
                if self.trouble is None:
                    _log.error("housekeeping failed; it goes on trying", error=str(error))
                self.trouble = str(error)

    def _replaced(self) -> str | None:
        """Notice a database that was deleted or replaced under us: what is written now goes into a file without a name."""
        found = _inode(self._store.path)
        if found == self._inode:
            return None
        return f"{self._store.path} was deleted or replaced while the server runs; stop the server and restore the file"

    async def _clean(self) -> None:
        before = self._clock.now() - self._config.cleanup_days * _DAY
        while await self._store.remove_older(before, _BATCH) == _BATCH:  # noqa: ASYNC110  a turn for the others, not a wait
            await asyncio.sleep(0)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
