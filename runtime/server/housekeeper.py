"""Housekeeping: checkpoints the WAL, and deletes what ended long ago."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.errors import MachineError
from ..base.log import get_logger
from ..store.database import Upkeep
from ..store.sql_store import SqlStore
from ..store.worker import explain
from .rundir import RunDirectory

__all__ = ["Housekeeper"]

_INTERVAL = 1.0
_EVENTS = 512  # some 900 pages of the WAL: a checkpoint of so many holds the writers up for a few milliseconds
_KEEP_INTERVAL = 3600.0
_BATCH = 200
_DAY = 86400.0
_log = get_logger("paddock.housekeeper")


class Housekeeper:
    """Keep the database in shape."""

    def __init__(
        self,
        store: SqlStore,
        clock: Clock,
        config: WorkflowsConfig,
        upkeep: Upkeep,
        run_dir: RunDirectory,
    ) -> None:
        """Hold the parts; the upkeep is closed by `stop`."""
        self._run_dir = run_dir
        self._store = store
        self._clock = clock
        self._config = config
        self._upkeep = upkeep
        self._task: asyncio.Task[None] | None = None
        self._running: asyncio.Future[bool] | None = None
        self._much = asyncio.Event()
        self._newest = self._written_back = 0
        self._next_cleanup = self._next_keep = clock.monotonic()
        self.trouble: str | None = None
        self.wal: str | None = None

    def committed(self, event_id: int) -> None:
        """Take the newest event's id: after many of them the WAL is written back at once, so that it stays short."""
        self._newest = event_id
        if event_id - self._written_back >= _EVENTS:
            self._much.set()

    async def start(self) -> None:
        """Begin."""
        with contextlib.suppress(sqlite3.Error, MachineError, OSError):  # it makes commits cheaper, and is no condition
            await asyncio.to_thread(self._upkeep.make_room)
        self._task = asyncio.create_task(self._run(), name="paddock-housekeeper")

    async def stop(self) -> None:
        """End, after a last checkpoint."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            with contextlib.suppress(sqlite3.Error, MachineError, OSError):
                if self._running is not None:
                    await self._running  # a thread cannot be cancelled, and this is its connection
            with contextlib.suppress(sqlite3.Error, MachineError, OSError):
                await asyncio.to_thread(self._upkeep.run, 1)
        self._upkeep.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = loop.time() + _INTERVAL
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._much.wait()
            self._much.clear()
            self._written_back = self._newest
            try:
                self._running = asyncio.ensure_future(asyncio.to_thread(self._upkeep.run))
                await asyncio.shield(self._running)
                self.wal = self._upkeep.alarm
                if loop.time() >= next_look:
                    next_look = loop.time() + _INTERVAL
                    await self._look_round()
                self.trouble = None
            except (sqlite3.Error, MachineError, OSError) as error:
                cause = explain(error, self._store.path) if isinstance(error, sqlite3.Error) else error
                if self.trouble is None:
                    _log.error("housekeeping failed; it goes on trying", error=str(cause))
                self.trouble = str(cause)
                await asyncio.sleep(_INTERVAL)

    async def _look_round(self) -> None:
        """Do what is to be done now and then."""
        now = self._clock.monotonic()
        await asyncio.to_thread(self._run_dir.trim, self._config.max_output)
        if now >= self._next_keep:
            self._next_keep = now + _KEEP_INTERVAL
            self._run_dir.keep()
        if self._config.cleanup_days and now >= self._next_cleanup:
            self._next_cleanup = now + self._config.cleanup_interval
            await self._clean()

    async def _clean(self) -> None:
        before = self._clock.now() - self._config.cleanup_days * _DAY
        while await self._store.remove_older(before, _BATCH) == _BATCH:  # noqa: ASYNC110  a turn for the others, not a wait
            await asyncio.sleep(0)
