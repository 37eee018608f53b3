"""The external checker of a run with faults: what the ledger, the database, a subscriber and the kernel say must agree.

Nothing of Paddock is imported here. The tables are read with SQL of our own, so a defect in how the system reads them hides nothing.
`audit` returns every contradiction that it finds, as sentences; none is what one wants.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ledger

ENDS = ledger.ENDS
FINAL = frozenset({"completed", "failed", "cancelled", "timed_out"})
_EVENTS = """
SELECT e.id, e.name, i.id, i.workflow_name, coalesce(e.data, r.data) FROM paddock_events e JOIN paddock_instances i ON i.seq = e.instance
LEFT JOIN paddock_events r ON r.id = e.ref ORDER BY e.id
"""
_INSTANCES = """
SELECT i.id, i.workflow_name, i.status, i.executions, (SELECT value FROM paddock_payloads WHERE instance = i.seq AND kind = 'output')
FROM paddock_instances i
"""
_STEPS = "SELECT i.id, s.key, s.kind, s.status FROM paddock_steps s JOIN paddock_instances i ON i.seq = s.instance"


@dataclass(frozen=True)
class Told:
    """An event as the table has it."""

    id: int
    name: str
    instance_id: str
    workflow_name: str
    data: dict[str, Any]


@dataclass
class Books:
    """All that is on record of a run."""

    instances: dict[str, tuple[str, str, int, Any]] = field(default_factory=dict)
    events: list[Told] = field(default_factory=list)
    steps: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    leases: list[tuple[Any, ...]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, db: Path) -> "Books":
        """Read the tables of a database that nobody writes to any more."""
        books = cls()
        with closing(sqlite3.connect(db)) as connection:
            for ident, name, status, executions, output in connection.execute(_INSTANCES):
                books.instances[ident] = (name, status, executions, json.loads(output) if output else None)
            books.events = [
                Told(number, name, ident, workflow, json.loads(data or "{}"))
                for number, name, ident, workflow, data in connection.execute(_EVENTS)
            ]
            for ident, key, kind, status in connection.execute(_STEPS):
                books.steps.setdefault(ident, {})[key] = (kind, status)
            books.leases = connection.execute("SELECT * FROM paddock_leases").fetchall()
            books.damage = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            books.damage += [
                f"a row without its instance: {row}" for row in connection.execute("PRAGMA foreign_key_check")
            ]
        return books

    def of(self, instance: str) -> list[Told]:
        """Return an instance's events."""
        return [event for event in self.events if event.instance_id == instance]


@dataclass(frozen=True)
class Expected:
    """What a run without faults gives: the output, and the keys of the journal with each step's kind and status."""

    output: Any
    steps: dict[str, tuple[str, str]] | None = None
    status: str = "completed"


def audit(
    db: Path,
    expected: dict[str, Expected],
    *,
    seen: Path | None = None,
    limits: dict[str, int] | None = None,
    most: int | None = None,
) -> list[str]:
    """Return what does not agree.

    Args:
        db: the database, at rest.
        expected: by instance id; instances that they started are only held to have completed.
        seen: lines `id name instance` of a subscriber that came back with its cursor again and again.
        limits: how many instances of a workflow may have run at once, by name.
        most: how many over all workflows.
    """
    books = Books.read(db)
    found = list(books.damage)
    found += [f"a slot leaked: {lease}" for lease in books.leases]
    found += _outcomes(books, expected)
    found += _stories(books)
    found += _ids(books, seen)
    found += _crowds(books, limits or {}, most)
    return found


def _outcomes(books: Books, expected: dict[str, Expected]) -> Iterator[str]:
    for ident in expected.keys() - books.instances.keys():
        yield f"{ident} was acknowledged, and is gone"
    for ident, (name, status, _, output) in books.instances.items():
        wanted = expected.get(ident)
        if wanted is None:
            if status not in FINAL:
                yield f"{ident} ({name}) has not ended: it is {status}"
            continue
        if status != wanted.status:
            yield f"{ident} ({name}) is {status}, not {wanted.status}: {[e.data.get('error') for e in books.of(ident)][-1]}"
        elif wanted.status == "completed" and output != wanted.output:
            yield f"{ident} ({name}) returned {output!r}, without faults it is {wanted.output!r}"
        if wanted.steps is not None and books.steps.get(ident, {}) != wanted.steps:
            yield f"{ident} ({name}) has another journal: {_difference(books.steps.get(ident, {}), wanted.steps)}"


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    keys = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
    return "; ".join(f"{key}: {ours.get(key)} against {theirs.get(key)}" for key in sorted(keys))


def _stories(books: Books) -> Iterator[str]:
    """Hold each instance's events against the ledger, and against what a story of it may be."""
    of: dict[str, list[Told]] = {}
    for event in books.events:
        of.setdefault(event.instance_id, []).append(event)
    for ident, (name, status, executions, _) in books.instances.items():
        events = of.get(ident, [])
        names = Counter(event.name for event in events)
        try:
            if events:
                ledger.check(events, f"workflow.{status}")
        except AssertionError as error:
            yield f"{ident} ({name}): {str(error).splitlines()[0]}"
        begun = min(executions, 1)
        if (names["workflow.started"], names["workflow.resumed"]) != (begun, executions - begun):
            yield f"{ident} ({name}) ran {executions} times, and its events say {names}"
        chunks = [event.data["index"] for event in events if event.name == "workflow.stream"]
        if chunks != list(range(len(chunks))):
            yield f"{ident} ({name}) streamed the chunks {chunks}"
        yield from _after_the_end(ident, events)


def _after_the_end(ident: str, events: list[Told]) -> Iterator[str]:
    ended = None
    for event in events:
        if ended is not None and event.name.startswith(("workflow.step.", "workflow.progress", "workflow.resumed")):
            yield f"{ident} has {event.name} ({event.id}) after {ended}"
        if event.name in ENDS:
            ended = event.name


def _ids(books: Books, seen: Path | None) -> Iterator[str]:
    ids = [event.id for event in books.events]
    if ids != list(range(1, len(ids) + 1)):
        yield f"event ids have gaps: {_breaks(ids)}"
    if seen is None:
        return
    lines = seen.read_text().splitlines() if seen.exists() else []
    told = [int(line.split()[0]) for line in lines]
    if told != ids:
        lost, twice = sorted(set(ids) - set(told)), [number for number, count in Counter(told).items() if count > 1]
        yield f"the subscriber lost {lost[:20]}, saw {twice[:20]} twice, and out of order {_breaks(told)}"


def _breaks(ids: list[int]) -> list[tuple[int, int]]:
    return [(one, other) for one, other in zip([0, *ids], ids, strict=False) if other != one + 1][:10]


def _crowds(books: Books, limits: dict[str, int], most: int | None) -> Iterator[str]:
    """Count who was alive beside whom, by what each handler saw in /proc when it began."""
    who: dict[int, str] = {}
    for line in ledger.read("begin"):
        who[line["pid"]] = books.instances[line["instance"]][0] if line["instance"] in books.instances else "?"
        beside = Counter(who[pid] for pid in line["beside"])
        beside[who[line["pid"]]] += 1
        for name, limit in limits.items():
            if beside[name] > limit:
                yield f"{beside[name]} instances of {name} at once, of {limit}: {line}"
        if most is not None and sum(beside.values()) > most:
            yield f"{sum(beside.values())} processes at once, of {most}: {line}"
