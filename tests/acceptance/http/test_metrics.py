"""What Prometheus scrapes."""

import os
import signal
import sqlite3

import httpflows
import pytest
from contractkit import became
from httpkit import client
from prometheus_client.parser import text_string_to_metric_families

from paddock import AppServer, WatchdogConfig
from paddock.runtime.store import browse


async def scrape(api):
    response = await api.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_counts_durations_and_sizes(api, server):
    await scrape(api)
    await server.workflows.run("greet", "Ada")
    await server.workflows.run("order", {"number": "A-1", "size": "large"})
    failed = await server.workflows.start("broken", 1)
    waits = await server.workflows.start("approval", "a raise")
    await server.workflows.wait(failed)

    async def there():
        found = await scrape(api)
        return found if found.get(("paddock_instances", "waiting", "approval")) else None

    found = await became(there)
    assert found["paddock_instances", "completed", "greet"] == 1
    assert found["paddock_instances_ended_total", "failed", "broken"] == 1
    assert found["paddock_instances_started_total", "approval"] == 1
    assert found["paddock_step_duration_seconds_count", "task", "completed", "order"] == 1
    assert found["paddock_processes", "server"] == 1
    assert found["paddock_memory_bytes", "server"] > 1e6
    assert found["paddock_database_bytes",] > 10_000
    assert found["paddock_event_lag_seconds_count",] > 5
    assert found["paddock_commit_duration_seconds_count",] > 2
    await server.workflows.signal(waits, "approve", {"approved": True})
    await server.workflows.wait(waits)
    found = await scrape(api)
    assert found["paddock_resumes_total", "approval"] == 1
    assert ("paddock_crashes_total", "approval") not in found


@pytest.mark.slow
async def test_a_crash_is_counted_and_told(tmp_path):
    server = AppServer(tmp_path / "c.db", watchdog=WatchdogConfig(enabled=False))
    server.workflows.register(httpflows.drip)
    async with server, client(server.asgi()) as api:
        ident = await server.workflows.start("drip", 100_000)

        async def working():
            found = (await api.get(f"/api/instances/{ident}")).json()
            return found if found["pid"] and found["completed_steps"] > 2 else None

        pid = (await became(working))["pid"]
        os.kill(pid, signal.SIGKILL)

        async def again():
            found = (await api.get(f"/api/instances/{ident}")).json()
            return found if found["executions"] == 2 else None

        found = await became(again)
        assert [(run["event"], run["why"]) for run in found["runs"]] == [
            ("workflow.started", "crash"),
            ("workflow.resumed", None),
        ]
        outcomes = [one["outcome"] for step in found["steps"] for one in step["tries"]]
        assert outcomes.count("crashed") <= 1
        assert (await scrape(api))["paddock_crashes_total", "drip"] == 1
        await server.workflows.cancel(ident)


async def test_a_scrape_reads_indexes_and_no_rows_of_instances(tmp_path, server):
    path = tmp_path / "app.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        for statement in (browse._COUNTS, browse._QUEUED, browse._RUNNING):
            plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
            assert "SCAN paddock_instances" not in plan.replace("SCAN paddock_instances USING COVERING INDEX", "")
    connection.close()
