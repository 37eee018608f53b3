"""Admission: what may be claimed now, and what has to come before each claim."""

from __future__ import annotations

from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..store.admission import Wanted
from ..store.sql_store import SqlStore
from .registry import Registry
from .scheduler import Scheduler

__all__ = ["Admission"]

_LOOK_FOR_UNKNOWN = 1.0


class Admission:
    """Say which instances the dispatcher may claim."""

    def __init__(
        self, store: SqlStore, clock: Clock, registry: Registry, config: WorkflowsConfig, scheduler: Scheduler
    ) -> None:
        """Hold the parts."""
        self._store = store
        self._clock = clock
        self._registry = registry
        self._config = config
        self._scheduler = scheduler
        self._names: frozenset[str] = frozenset()
        self._after = 0
        self._looked_at = 0.0

    async def open(self) -> None:
        """Begin: what is there goes on, as far as its code is known, unless the server is to leave it as it is."""
        self._names = self._registry.names
        self._looked_at = self._clock.monotonic()
        if self._config.resume == "skip":
            self._after = await self._store.newest_instance()
        else:
            await self._unblock()

    async def resume(self) -> None:
        """Let everything that is there go on."""
        self._after = 0
        await self._unblock()

    async def _unblock(self) -> None:
        now = self._clock.now()
        await self._store.unblock(now)
        await self._store.block_unknown(self._registry.names, now)

    def wanted(self) -> Wanted:
        """Return what may be claimed, and up to which limits."""
        self._registry.add_actions()
        registered = list(self._registry)
        return Wanted(
            limits={known.definition.name: known.limit for known in registered},
            isolated=frozenset(known.definition.name for known in registered if known.isolated),
            capacity=self._config.process_limit,
            after=self._after,
            keyed=frozenset(known.definition.name for known in registered if known.key is not None),
            rates={known.definition.name: known.rate for known in registered if known.rate is not None},
        )

    async def before_claim(self) -> float | None:
        """Fire schedules, give limit keys to instances that were started within others, and try again what is newly registered."""
        names = self._registry.names
        if not names <= self._names:
            for name in names - self._names:
                await self._store.unblock(self._clock.now(), workflow_name=name)
            self._names = names
        now = self._clock.monotonic()
        if not self._after and now - self._looked_at >= _LOOK_FOR_UNKNOWN:
            self._looked_at = now
            await self._store.block_unknown(names, self._clock.now())
        for known in self._registry:
            if known.key is not None:
                await self._store.fill_keys(known.definition.name, known.key_of)
        return await self._scheduler.tick()
