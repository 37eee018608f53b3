"""Housekeeping: checkpoints the WAL, and deletes what ended long ago."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.errors import MachineError
from ..base.log import get_logger
from ..store.checkpoint import Checkpointer
from ..store.sqlite import SqliteStore
from ..store.worker import explain
from .rundir import RunDirectory

__all__ = ["Housekeeper"]

_INTERVAL = 1.0
_KEEP_INTERVAL = 3600.0
_BATCH = 200
_DAY = 86400.0
_log = get_logger("paddock.housekeeper")


class Housekeeper:
    """Keep the database in shape."""

    def __init__(
        self,
        store: SqliteStore,
        clock: Clock,
        config: WorkflowsConfig,
        checkpointer: Checkpointer,
        run_dir: RunDirectory,
    ) -> None:
        """Hold the parts; the checkpointer is closed by `stop`."""
        self._run_dir = run_dir
        self._store = store
        self._clock = clock
        self._config = config
        self._checkpointer = checkpointer
        self._task: asyncio.Task[None] | None = None
        self.trouble: str | None = None
        self.wal: str | None = None

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
            with contextlib.suppress(sqlite3.Error, MachineError, OSError):
                await asyncio.to_thread(self._checkpointer.run, 1)
        self._checkpointer.close()

    async def _run(self) -> None:
        next_cleanup = next_keep = self._clock.monotonic()
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await asyncio.shield(asyncio.to_thread(self._checkpointer.run))
                self.wal = self._checkpointer.alarm
                await asyncio.to_thread(self._run_dir.trim, self._config.max_output)
                if self._clock.monotonic() >= next_keep:
                    next_keep = self._clock.monotonic() + _KEEP_INTERVAL
                    self._run_dir.keep()
                if self._config.cleanup_days and self._clock.monotonic() >= next_cleanup:
                    next_cleanup = self._clock.monotonic() + self._config.cleanup_interval
                    await self._clean()
                self.trouble = None
            except (sqlite3.Error, MachineError, OSError) as error:
                cause = explain(error, self._store.path) if isinstance(error, sqlite3.Error) else error
                if self.trouble is None:
                    _log.error("housekeeping failed; it goes on trying", error=str(cause))
                self.trouble = str(cause)

    async def _clean(self) -> None:
        before = self._clock.now() - self._config.cleanup_days * _DAY
        while await self._store.remove_older(before, _BATCH) == _BATCH:  # noqa: ASYNC110  a turn for the others, not a wait
            await asyncio.sleep(0)
