"""What the command line does where no server runs: the same service, on the rows of the database.

`server.workflows` is put on a store whose every transaction looks first whether a server has come meanwhile. A server takes its lock
before it reads the database, so what is committed while nobody holds the lock is what the next server finds; there is no moment in
which both would act. What needs no process is done by that. An instance whose process has outlived its server is ended here, by its
verified identity, as the server would.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...watchdog.identity import ProcessIdentity
from ...watchdog.tree import end_tree, marker_of
from ..base.clock import SystemClock
from ..base.config import WorkflowsConfig
from ..base.errors import DatabaseUnavailable, MachineError, UsageError
from ..base.values import ANY, Schema
from ..engine.definition import Definition
from ..server.bus import EventBus
from ..server.control import ControlDesk
from ..server.steering import WorkflowsParts
from ..server.workflows import Workflows
from ..store.admission import Death
from ..store.database import Database
from ..store.migrations import SCHEMA_VERSION
from ..store.ops import Lease
from ..store.schemes import database_of
from ..store.sql_store import SqlStore
from ..store.transaction import Transaction

__all__ = ["NamedOnly", "ServerCame", "do_offline"]

_TRIES = 10


class ServerCame(Exception):
    """A server has started meanwhile; nothing was changed. Ask it."""


@dataclass(frozen=True, slots=True)
class NamedOnly:
    """A workflow of which nothing is known but its name: its input is checked when it runs."""

    name: str
    module: str | None = None
    isolated: bool = False
    timeout: float | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    input_schema: Schema = ANY
    total_steps: int | None = None

    def fingerprint(self) -> str:
        """Return nothing: its shape is not known."""
        return ""

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return none: they are not known."""
        return ()

    async def run(self, frame: Any) -> tuple[Any, Schema]:
        """Refuse: it runs on a server."""
        raise UsageError(f"workflow {self.name!r} can only run on a server")


def do_offline(
    database: str, operation: str, arguments: dict[str, Any], definitions: Sequence[tuple[Definition, str | None]] = ()
) -> Any:
    """Do an operation on a database that no server holds; it takes effect at the next server's start.

    Raises:
        ServerCame: a server has started meanwhile; nothing was changed.
        PaddockError: what the operation raises, or the database cannot be used.
    """
    found = database_of(database)
    with found.reader() as reader:  # refuses what is no database of ours
        version = reader.version
    if version < SCHEMA_VERSION:
        raise DatabaseUnavailable(
            f"{found.name} was written by an earlier Paddock (schema {version}, this one has {SCHEMA_VERSION}); "
            "start its server once, which brings it up to date"
        )
    new = found.note() is None
    try:
        return asyncio.run(_do(found, operation, arguments, definitions))
    finally:
        if new:
            found.tidy()


async def _do(
    database: Database,
    operation: str,
    arguments: dict[str, Any],
    definitions: Sequence[tuple[Definition, str | None]],
) -> Any:
    def guard(tx: Transaction) -> None:
        if database.is_served(tx):
            raise ServerCame

    store = database.open_offline()
    store.guard = guard
    try:
        workflows = Workflows(WorkflowsConfig(launcher="inline"), watched=None)
        for definition, module in definitions:
            workflows.register(definition, module=module)
        workflows.attach(_parts(database, store))
        return await ControlDesk(workflows, list, dict).do(operation, arguments)
    finally:
        store.close()


def _parts(database: Database, store: SqlStore) -> WorkflowsParts:
    async def end(lease: Lease, reason: str) -> None:
        await _end(database, store, lease)

    async def nothing() -> None:
        return

    return WorkflowsParts(
        store=store,
        clock=SystemClock(),
        bus=EventBus(store),
        admit=lambda: False,
        queued=_ignore,
        end=end,
        nudge=_ignore,
        drain=_ignore,
        resume=nothing,
        stop=nothing,
    )


def _ignore(*_: object) -> None:
    """Tell nobody: the next server looks for itself, and so does a child without one."""


async def _end(database: Database, store: SqlStore, lease: Lease) -> None:
    """End the process that holds a lease and everything that it started, then release the lease."""
    for _ in range(_TRIES):
        held = next((held for held in await store.held() if held.lease == lease), None)
        if held is None:
            return
        born = held.pid is not None and held.pid_start is not None and held.boot_id is not None
        if born and held.isolated:
            identity = ProcessIdentity(held.pid or 0, held.pid_start or 0, held.boot_id or "")
            await asyncio.to_thread(end_tree, identity, marker=_marker(database, held.id, lease.epoch), grace=0.5)
        death = Death(planned=True, unborn=not born)
        settlement = await store.settle(lease, death, 0, SystemClock().now())
        if (
            settlement is None or settlement.holder is None
        ):  # one that has taken the lease just now is ended in the next round
            return
    raise MachineError(f"the process of {lease} does not end; start a server on {store.path}, which will see to it")


def _marker(database: Database, instance_id: str, epoch: int) -> str | None:
    """Return the mark of an instance's programs, where the last server noted its run directory."""
    note = database.note()
    return marker_of(os.path.join(note.run_dir, "beats"), instance_id, epoch) if note and note.run_dir else None
