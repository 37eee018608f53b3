"""The children of a server, and what supervision works with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...watchdog.beats import BeatTable
from ...watchdog.tree import marker_of
from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..child.spec import ChildSpec
from ..store.admission import Claim
from ..store.ops import Lease
from ..store.sql_store import SqlStore
from .bus import EventBus
from .children import Child
from .nursery import Nursery

__all__ = ["Parts", "Roster"]

SpecOf = Callable[[Claim, int], ChildSpec]


@dataclass(frozen=True, slots=True)
class Parts:
    """What supervision works with."""

    store: SqlStore
    clock: Clock
    config: WorkflowsConfig
    bus: EventBus
    table: BeatTable
    nursery: Nursery
    run_dir: str
    spec_of: SpecOf
    freed: Callable[[], None]

    def marker(self, child: Child) -> str:
        """Return the entry that marks the programs that a child starts."""
        return marker_of(self.table.path, child.instance_id, child.lease.epoch)


class Roster:
    """The children by their leases, from the claim to the settlement."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._children: dict[Lease, Child] = {}
        self.complete = asyncio.Event()
        """Set once all that the last server left was taken over: who is not on the roster then is a stranger."""
        self.draining = False
        """Set when the server stops: children stop at their instances' next boundary."""

    @property
    def children(self) -> list[Child]:
        """Return the children there are."""
        return list(self._children.values())

    def __iter__(self) -> Iterator[Child]:
        """Go through the children there are; none may come or go meanwhile."""
        return iter(self._children.values())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._children)

    def add(self, child: Child) -> Child:
        """Take on a child."""
        self._children[child.lease] = child
        return child

    def remove(self, child: Child) -> None:
        """Strike off a child that is settled."""
        self._children.pop(child.lease, None)

    def of(self, lease: Lease) -> Child | None:
        """Return who holds a lease."""
        return self._children.get(lease)

    def find(self, instance_id: str | None, epoch: int | None) -> Child | None:
        """Return the child of one execution of an instance."""
        return next(
            (c for c in self._children.values() if (c.instance_id, c.lease.epoch) == (instance_id, epoch)), None
        )
