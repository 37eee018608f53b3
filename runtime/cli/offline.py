"""What the command line does where no server runs: the same service, on the rows of the database.

`server.workflows` is put on a store whose every transaction looks first whether a server has come meanwhile. A server takes its lock
before it reads the database, so what is committed while nobody holds the lock is what the next server finds; there is no moment in
which both would act. What needs no process is done by that. An instance whose process has outlived its server is ended here, by its
verified identity, as the server would.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...watchdog.identity import ProcessIdentity
from ...watchdog.tree import end_tree, marker_of
from ..base.clock import SystemClock
from ..base.config import SqlitePragmas, WorkflowsConfig
from ..base.errors import DatabaseUnavailable, MachineError, UsageError
from ..base.values import ANY, Schema
from ..engine.definition import Definition
from ..server.bus import EventBus
from ..server.control import ControlDesk
from ..server.steering import WorkflowsParts
from ..server.workflows import Workflows
from ..store.admission import Death
from ..store.migrations import SCHEMA_VERSION, read_version
from ..store.ops import Lease
from ..store.reading import open_reader
from ..store.sqlite import SqliteStore
from ..store.turn import LockFile, read_note

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


class _GuardedStore(SqliteStore):
    """A store that writes only while no server holds the database."""

    async def _write(self, function: Callable[..., Any], *values: Any) -> Any:
        lock = LockFile.of(self.path)

        def guarded(tx: sqlite3.Connection) -> Any:
            if lock.holder():
                raise ServerCame
            return function(tx, *values)

        return await self._writer.call(guarded)


def do_offline(
    database: str, operation: str, arguments: dict[str, Any], definitions: Sequence[tuple[Definition, str | None]] = ()
) -> Any:
    """Do an operation on a database that no server holds; it takes effect at the next server's start.

    Raises:
        ServerCame: a server has started meanwhile; nothing was changed.
        PaddockError: what the operation raises, or the database cannot be used.
    """
    with open_reader(database) as reader:  # refuses what is no database of ours
        version = reader.read(read_version, database)
    if version < SCHEMA_VERSION:
        raise DatabaseUnavailable(
            f"{database} was written by an earlier Paddock (schema {version}, this one has {SCHEMA_VERSION}); "
            "start its server once, which brings it up to date"
        )
    new = read_note(database) is None
    try:
        return asyncio.run(_do(database, operation, arguments, definitions))
    finally:
        if new:
            LockFile.of(database).tidy()


async def _do(
    database: str,
    operation: str,
    arguments: dict[str, Any],
    definitions: Sequence[tuple[Definition, str | None]],
) -> Any:
    store = _GuardedStore(database, SqlitePragmas(), reader=False)
    try:
        workflows = Workflows(WorkflowsConfig(launcher="inline"), watched=None)
        for definition, module in definitions:
            workflows.register(definition, module=module)
        workflows.attach(_parts(store))
        return await ControlDesk(workflows, list, dict).do(operation, arguments)
    finally:
        store.close()


def _parts(store: SqliteStore) -> WorkflowsParts:
    async def end(lease: Lease, reason: str) -> None:
        await _end(store, lease)

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


async def _end(store: SqliteStore, lease: Lease) -> None:
    """End the process that holds a lease and everything that it started, then release the lease."""
    for _ in range(_TRIES):
        held = next((held for held in await store.held() if held.lease == lease), None)
        if held is None:
            return
        born = held.pid is not None and held.pid_start is not None and held.boot_id is not None
        if born and held.isolated:
            identity = ProcessIdentity(held.pid or 0, held.pid_start or 0, held.boot_id or "")
            await asyncio.to_thread(end_tree, identity, marker=_marker(store.path, held.id, lease.epoch), grace=0.5)
        death = Death(planned=True, unborn=not born)
        settlement = await store.settle(lease, death, 0, SystemClock().now())
        if (
            settlement is None or settlement.holder is None
        ):  # one that has taken the lease just now is ended in the next round
            return
    raise MachineError(f"the process of {lease} does not end; start a server on {store.path}, which will see to it")


def _marker(database: str, instance_id: str, epoch: int) -> str | None:
    """Return the mark of an instance's programs, where the last server noted its run directory."""
    run_dir = LockFile.of(database).noted().run_dir
    return marker_of(os.path.join(run_dir, "beats"), instance_id, epoch) if run_dir else None
