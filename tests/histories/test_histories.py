"""Journals that this and earlier versions have recorded: today's code takes them up where they stand, and they end the same."""

import json
import time
from pathlib import Path

import historyflows
import pytest

from paddock.runtime.base.config import WorkflowsConfig
from paddock.runtime.store.sqlite import MemoryStore
from paddock.runtime.testing.server import MemoryServer

RECORDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "journals").glob("*.json"))
}
JOURNALS = [(name, number) for name, record in RECORDS.items() for number in range(len(record["journals"]))]
TIMES = ("created_at", "started_at", "completed_at", "wake_at", "deadline_at", "at")


def load(tx, journal):
    """Insert a journal's rows as if it had been recorded now; what ran or had ended is queued, so that it replays."""
    later = time.time() - journal["at"]
    for table, rows in journal["tables"].items():
        for row in rows:
            values = {name: value + later if name in TIMES else value for name, value in row.items()}
            if table == "paddock_instances" and main(values, journal) and values["status"] in ("running", "completed"):
                values |= {"status": "pending", "completed_at": None}
            elif table == "paddock_instances" and values["status"] == "running":
                values["status"] = "pending"
            tx.execute(
                f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )


def main(row, journal):
    return row["workflow_name"] == journal["workflow"]


def test_there_are_journals_of_every_workflow():
    assert {name.partition("-")[2] for name in RECORDS} == set(historyflows.RECORDED)
    assert all(len(record["journals"]) >= 3 for record in RECORDS.values())
    statuses = {journal["status"] for record in RECORDS.values() for journal in record["journals"]}
    assert statuses >= {"sleeping", "waiting", "completed"}


@pytest.mark.parametrize(("name", "number"), JOURNALS)
async def test_a_journal_goes_on_with_todays_code_and_ends_the_same(name, number):
    record = RECORDS[name]
    journal = record["journals"][number]
    store = MemoryStore()
    store._writer.call_now(lambda tx: load(tx, journal))
    server = MemoryServer((), {}, WorkflowsConfig(), store)
    for one in historyflows.ALL:
        server.workflows.register(one)
    (held,) = [row for row in journal["tables"]["paddock_instances"] if main(row, journal)]
    done = {
        row["key"]: row
        for row in journal["tables"]["paddock_steps"]
        if row["instance"] == held["seq"] and row["status"] in ("completed", "failed")
    }
    historyflows.RAN.clear()
    async with server:
        server.clock.advance("2s")  # the wait that nobody answers
        instance = await server.workflows.wait(held["id"], timeout=20)
        begun = await server.events.history("workflow.step.started", instance_id=held["id"], limit=1000)
    assert instance.status == "completed", instance.error
    assert instance.output == record["output"]
    assert not {event.data["step"] for event in begun} & done.keys(), "what was over began again"
    if journal["status"] == "completed":
        assert historyflows.RAN == []
        assert begun == []
