"""Stores in tests: instances as a server and executors make them, without either."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from paddock.runtime.base.records import Status
from paddock.runtime.store.admission import Claim, Death, Settlement, Wanted
from paddock.runtime.store.instances import NewInstance
from paddock.runtime.store.ops import Began, Ended, Lease, Op, StepBegun, StepCompleted
from paddock.runtime.store.protocol import Store
from paddock.stores import Window

NOW = 1_700_000_000.0
_NO_JOURNAL = ("paddock_schema", "paddock_server", "paddock_last_event")


def new(ident: str, name: str = "wf", value: str = "1", **more: Any) -> NewInstance:
    return NewInstance(id=ident, workflow_name=name, input=value, **more)


def wanted(
    limits: dict[str, int] | None = None, *, isolated: Iterable[str] = (), capacity: int = 100, **more: Any
) -> Wanted:
    return Wanted(
        limits={"wf": 0} if limits is None else limits, isolated=frozenset(isolated), capacity=capacity, **more
    )


def began(timeout: float | None = None) -> Began:
    return Began(pid=4711, pid_start=1, boot_id="boot", version="v1", timeout=timeout)


async def claimed(store: Store, ident: str = "a", name: str = "wf", *, begin: bool = True, **more: Any) -> Lease:
    """Create an instance and claim it, and it alone."""
    await store.create(new(ident, name, **more), NOW)
    claims = await store.claim(wanted({name: 0}), NOW)
    [lease] = [claim.lease for claim in claims if claim.id == ident]
    if begin:
        await store.commit(lease, [began()], NOW)
    return lease


async def ended(store: Store, ident: str, name: str = "wf", now: float = NOW) -> None:
    """Bring an instance to its end, its process included."""
    lease = await claimed(store, ident, name)
    await store.commit(lease, [*step("only", "42"), Ended(Status.COMPLETED, output='"out"')], now)
    await store.settle(lease, Death(), 3, now)


def step(key: str, output: str = "null", *, attempt: int = 1) -> list[Op]:
    name = key.rpartition("/")[2]
    return [StepBegun(key, name, "task", attempt), StepCompleted(key, name, "task", output)]


async def crash(store: Store, lease: Lease, *, resumes: int = 3, now: float = NOW, **death: Any) -> Settlement | None:
    return await store.settle(lease, Death(**death), resumes, now)


async def again(store: Store, name: str = "wf", now: float = NOW) -> Lease:
    """Claim the one instance that is queued."""
    [claim] = await store.claim(wanted({name: 0}), now)
    return claim.lease


def ids(claims: list[Claim]) -> list[str]:
    return [claim.id for claim in claims]


async def names(store: Store, **where: Any) -> list[str]:
    return [event.name for event in await store.events(Window(0, 10_000), **where)]


def tables(tx: Any) -> list[str]:
    """Return the names of the journal's tables."""
    found = (
        tx.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if isinstance(tx, sqlite3.Connection)
        else tx.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        )
    )
    names = [row[0] for row in found]
    return [name for name in names if name.startswith("paddock_") and name not in _NO_JOURNAL]


_REFERENCES = """
SELECT r.relname FROM pg_constraint c JOIN pg_class r ON r.oid = c.confrelid
WHERE c.contype = 'f' AND c.confdeltype = 'c' AND c.conrelid = '{table}'::regclass
"""


def references(tx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return, for each table of the journal, the tables that it refers to and what a delete there does here."""
    if isinstance(tx, sqlite3.Connection):
        found = {table: tx.execute(f"PRAGMA foreign_key_list({table})").fetchall() for table in tables(tx)}
        return {table: [(row[2], row[6]) for row in keys] for table, keys in found.items()}
    return {table: [(row[0], "CASCADE") for row in tx.execute(_REFERENCES.format(table=table))] for table in tables(tx)}


def rows(store: Any) -> dict[str, int]:
    """Count the rows of every table of the journal."""

    def count(tx: Any) -> dict[str, int]:
        return {table: tx.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables(tx)}

    return store._writer.call_now(count)
