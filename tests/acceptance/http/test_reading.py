"""What the API tells: workflows, instances, the machine."""

import asyncio
import json

import httpflows
import pytest
from contractkit import became
from httpkit import client

from paddock import AppServer, WorkflowsConfig
from paddock.runtime.http.history import runs_of, tries_of


async def ended(api, ident):
    return await became(lambda: _ended(api, ident))


async def _ended(api, ident):
    found = (await api.get(f"/api/instances/{ident}")).json()
    return found if found["completed_at"] else None


async def waiting(api, ident):
    async def look():
        found = (await api.get(f"/api/instances/{ident}")).json()
        return found if found["status"] == "waiting" else None

    return await became(look)


async def test_workflows(api, server):
    await server.workflows.run("greet", "Ada")
    found = {one["name"]: one for one in (await api.get("/api/workflows")).json()["workflows"]}
    assert {one.__paddock_definition__.name if isinstance(one, type) else one.name for one in httpflows.ALL} <= set(
        found
    )
    order = found["order"]
    assert (order["style"], order["tags"], order["total_steps"]) == ("graph", ["shop"], 7)
    assert order["description"] == "Counts the pieces of an order"
    assert order["limits"] == {"max_concurrent": 0, "on_limit": "queue", "rate": None, "keyed": False}
    assert order["input_schema"]["properties"]["lines"]["items"] == {"$ref": "#/$defs/Line"}
    nodes = {node["name"]: node for node in order["graph"]["nodes"]}
    assert [edge["label"] for edge in nodes["how"]["edges"]] == ["is_large", 'ctx.steps["count"] > 50', None]
    assert [edge["kind"] for edge in nodes["how"]["edges"]] == ["choice", "choice", "default"]
    assert [inner["name"] for inner in nodes["both"]["branches"][1]["nodes"]] == ["nap", "two"]
    assert nodes["count"]["details"]["retry"]["max_attempts"] == 2
    assert nodes["receipt"]["edges"] == [{"to": None, "kind": "end", "label": None}]
    assert found["greet"]["counts"]["completed"] == 1
    assert found["greet"]["output_schema"] == {"type": "string"}
    assert [node["name"] for node in found["approval"]["graph"]["nodes"]] == ["approve", "note"]
    assert found["approval"]["signals"][0]["schema"]["required"] == ["approved"]
    lamp = {node["name"]: [edge["to"] for edge in node["edges"]] for node in found["lamp"]["graph"]["nodes"]}
    assert lamp == {"off": ["on"], "on": ["off", None]}
    assert {signal["name"] for signal in found["lamp"]["signals"]} == {"on", "again"}
    assert (await api.get("/api/workflows/order")).json() == order


async def test_a_workflow_that_only_rows_tell_of(tmp_path, api, server):
    await server.workflows.run("greet", "Ada")
    await server.stop()
    other = AppServer(tmp_path / "app.db", workflows=WorkflowsConfig(launcher="inline"))
    async with other, client(other.asgi()) as bare:
        found = (await bare.get("/api/workflows/greet")).json()
        assert (found["registered"], found["counts"]["completed"], found["graph"]) == (False, 1, None)


async def test_pages_go_both_ways(api, server):
    ids = [await server.workflows.start("greet", f"n{number}", id=f"x{(number * 7) % 10}") for number in range(10)]
    ids.reverse()
    for ident in ids:
        await server.workflows.wait(ident)
    first = (await api.get("/api/instances", params={"limit": 4})).json()
    assert [one["id"] for one in first["instances"]] == ids[:4]
    assert first["newer"] is None
    second = (await api.get("/api/instances", params={"limit": 4, "before": first["older"]})).json()
    third = (await api.get("/api/instances", params={"limit": 4, "before": second["older"]})).json()
    assert [one["id"] for one in second["instances"]] == ids[4:8]
    assert [one["id"] for one in third["instances"]] == ids[8:]
    assert third["older"] is None
    back = (await api.get("/api/instances", params={"limit": 4, "after": third["newer"]})).json()
    assert back["instances"] == second["instances"]
    top = (await api.get("/api/instances", params={"limit": 4, "after": back["newer"]})).json()
    assert (top["instances"], top["newer"]) == (first["instances"], None)


async def test_filters(api, server):
    await server.workflows.run("greet", "Ada")
    waits = await server.workflows.start("approval", "a raise of 100%")
    failed = await server.workflows.start("broken", 17)
    await waiting(api, waits)
    await ended(api, failed)

    async def ids(**query):
        return {one["id"] for one in (await api.get("/api/instances", params=query)).json()["instances"]}

    assert await ids(workflow="approval") == {waits}
    assert await ids(workflow="approval,broken") == {waits, failed}
    assert await ids(status="active") == {waits}
    assert await ids(status=["failed", "waiting"]) == {waits, failed}
    assert await ids(q="100%") == {waits}
    assert await ids(q="17 is not") == {failed}
    assert await ids(q=waits[:20]) >= {waits}
    assert await ids(q="%") == {waits}
    assert (await api.get("/api/instances", params={"status": "dead"})).status_code == 422


async def test_one_that_waits(api, server):
    ident = await server.workflows.start("approval", "a raise")
    found = await waiting(api, ident)
    (wait,) = found["waits_for"]
    assert (wait["kind"], wait["name"], wait["schema"]["required"]) == ("signal", "approve", ["approved"])
    assert wait["until"] > found["started_at"]
    assert found["metadata"] == {"what": "a raise"}
    assert found["can"] == {
        "cancel": True, "retry": False, "fork": True, "signal": True, "pause": True, "unpause": False,
        "cleanup": False, "update_state": False, "stacks": False,
    }  # fmt: skip
    assert found["runs"][-1]["why"] == "waiting"


async def test_one_that_failed_with_its_tries(api, server):
    ident = await server.workflows.start("broken", 3)
    found = await ended(api, ident)
    assert (found["status"], found["error"]["type"]) == ("failed", "RuntimeError")
    assert "Traceback" in found["error"]["traceback"]
    (step,) = found["steps"]
    assert (step["key"], step["output"], step["status"]) == ("prepare", 3, "completed")
    assert [(one["attempt"], one["outcome"]) for one in step["tries"]] == [(1, "completed")]
    assert [(run["event"], run["why"]) for run in found["runs"]] == [("workflow.started", "failed")]


async def test_one_that_is_tried_again_later_says_so_in_a_list(api, server):
    ident = await server.workflows.start("errand")

    async def asleep():
        (row,) = (await api.get("/api/instances", params={"workflow": "errand"})).json()["instances"]
        return row if row["status"] == "sleeping" else None

    row = await became(asleep)
    assert row["retrying"] == {"type": "ConnectionError", "message": "nobody answers", "step": "call"}
    (wait,) = (await api.get(f"/api/instances/{ident}")).json()["waits_for"]
    assert (wait["kind"], wait["step"], wait["reason"]) == ("time", "call", "it is tried again")
    await server.workflows.cancel(ident)
    (row,) = (await api.get("/api/instances", params={"workflow": "errand"})).json()["instances"]
    assert row["retrying"] is None


def test_a_try_that_its_process_left_crashed_or_was_interrupted():
    def event(name, at, **data):
        return {"name": name, "created_at": at, "data": json.dumps({"step": "a", **data})}

    died = {"type": "ProcessDied", "message": "process 7 was killed"}
    events = [
        event("workflow.started", 1.0, pid=7),
        event("workflow.step.started", 2.0, attempt=1),
        event("workflow.crashed", 3.0, error=died),
        event("workflow.resumed", 4.0, pid=8),
        event("workflow.step.started", 5.0, attempt=2),
        event("workflow.resumed", 6.0, pid=9),  # its server stopped and took the process along
        event("workflow.step.started", 7.0, attempt=3),
    ]
    tries = tries_of(events)["a"]
    assert [one.outcome for one in tries] == ["crashed", "interrupted", "running"]
    assert [one.error and one.error.message for one in tries] == ["process 7 was killed", None, None]
    assert [(run.pid, run.why) for run in runs_of(events)] == [(7, "crash"), (8, "interrupted"), (9, None)]


async def test_parents_and_children(api, server):
    ident = await server.workflows.start("parent", "Ada")
    found = await ended(api, ident)
    (child,) = found["children"]
    assert (child["workflow_name"], child["status"]) == ("greet", "completed")
    inner = (await api.get(f"/api/instances/{child['id']}")).json()
    assert inner["parent"] == {"id": ident, "workflow_name": "parent", "status": "completed", "step": None}


async def test_what_is_retried_is_looked_at_first_however_old_it_is(api, server):
    old = await server.workflows.start("broken", 1)
    await ended(api, old)
    young = await server.workflows.start("broken", 2)
    await ended(api, young)
    errand = await server.workflows.start("errand")

    async def tried():
        found = (await api.get("/api/now")).json()
        return found if found["again"] and not found["running"] else None

    found = await became(tried)
    assert [one["id"] for one in found["broken"]] == [young, old]
    assert [(one["id"], one["retrying"]["type"]) for one in found["again"]] == [(errand, "ConnectionError")]
    assert (await api.post(f"/api/instances/{old}/retry", json={})).status_code == 200

    async def failed_again():
        return [one["id"] for one in (await api.get("/api/now")).json()["broken"]] == [old, young]

    await became(failed_again)
    assert (await api.post(f"/api/instances/{young}/fork", json={"input": 3, "id": "in-its-place"})).status_code < 300

    async def done_about_it():
        return [one["id"] for one in (await api.get("/api/now")).json()["broken"]] == ["in-its-place", old]

    await became(done_about_it)


async def test_long_values_are_cut_where_asked(api, server):
    name = "Ada" * 4000
    ident = await server.workflows.start("greet", name)
    await ended(api, ident)
    short = (await api.get(f"/api/instances/{ident}", params={"values": "short"})).json()
    assert short["input"]["$truncated"] is True
    assert short["input"]["size"] == len(name) + 2
    assert (await api.get(f"/api/instances/{ident}/payload", params={"of": "input"})).json() == name
    assert (await api.get(f"/api/instances/{ident}/payload", params={"step": "none"})).status_code == 404


async def test_queues_and_why_one_waits(tmp_path):
    made = AppServer(tmp_path / "q.db", workflows=WorkflowsConfig(launcher="inline"))
    made.workflows.register(httpflows.drip, max_concurrent=1)
    async with made, client(made.asgi()) as api:
        for _ in range(3):
            last = await made.workflows.start("drip", 1000)
        delayed = await made.workflows.start("drip", 1, delay="1h")

        async def queue():
            (one,) = (await api.get("/api/queues")).json()["queues"]
            return one if one["running"] == 1 else None

        one = await became(queue)
        assert (one["pending"], one["delayed"], one["running"], one["limit"], one["key"]) == (2, 1, 1, 1, None)
        (wait,) = (await api.get(f"/api/instances/{last}")).json()["waits_for"]
        assert (wait["kind"], wait["ahead"]) == ("slot", 1)
        assert "limit of 1" in wait["reason"]
        (wait,) = (await api.get(f"/api/instances/{delayed}")).json()["waits_for"]
        assert wait["kind"] == "time"


async def test_schedules(api):
    body = {"workflow": "greet", "every": "1h", "input": "Ada", "id": "hourly"}
    made = await api.post("/api/schedules", json=body)
    assert (made.status_code, made.json()["every"], made.json()["input"]) == (201, 3600.0, "Ada")
    assert (await api.post("/api/schedules", json=body)).status_code == 409
    assert [one["id"] for one in (await api.get("/api/schedules")).json()["schedules"]] == ["hourly"]
    assert (await api.delete("/api/schedules/hourly")).status_code == 204
    gone = await api.delete("/api/schedules/hourly")
    assert (gone.status_code, gone.json()["code"]) == (404, "ScheduleNotFound")
    for wrong in (
        {"cron": "x"},
        {},
        {"cron": "* * * * *", "every": 5},
        {"every": "1h", "tz": "Mars/Base"},
        {"every": 1e12},
    ):
        assert (
            await api.post("/api/schedules", json={"workflow": "greet", "input": "Ada", **wrong})
        ).status_code == 422


async def test_the_machine(api, server):
    overview = (await api.get("/api/overview")).json()
    assert (overview["ok"], overview["database"], overview["workflows"] >= len(httpflows.ALL)) == (True, "app.db", True)
    assert [row["role"] for row in (await api.get("/api/processes")).json()["processes"]] == ["server"]
    assert (await api.get("/api/kills")).json() == {"kills": [], "older": None}
    assert (await api.get("/api/health")).json() == {"ok": True, "problems": {}}
    await server.stop()
    stopped = await api.get("/api/health")
    assert (stopped.status_code, stopped.json()["ok"]) == (503, False)
    refused = await api.get("/api/instances")
    assert (refused.status_code, refused.json()["code"]) == (503, "ServerNotRunning")


async def test_logs(api, server):
    ident = await server.workflows.start("drip", 30)
    await ended(api, ident)
    page = (await api.get(f"/api/instances/{ident}/logs", params={"limit": 20})).json()
    rest = (await api.get(f"/api/instances/{ident}/logs", params={"after": page["next"]})).json()
    assert [log["data"]["number"] for log in page["logs"] + rest["logs"]] == list(range(30))
    tail = (await api.get(f"/api/instances/{ident}/logs", params={"tail": 5})).json()
    assert [log["data"]["number"] for log in tail["logs"]] == list(range(25, 30))
    older = (await api.get("/api/logs", params={"tail": 5, "before": tail["before"]})).json()
    assert [log["data"]["number"] for log in older["logs"]] == list(range(20, 25))
    newest = (await api.get("/api/logs", params={"order": "desc", "limit": 2})).json()
    assert [log["data"]["number"] for log in newest["logs"]] == [29, 28]
    assert (await api.get("/api/logs", params={"level": "error"})).json()["logs"] == []


@pytest.mark.parametrize("count", [1, 2])
async def test_reading_while_writing_is_consistent(api, server, count):
    await asyncio.gather(*(server.workflows.start("greet", "Ada") for _ in range(count)))
    assert len((await api.get("/api/instances")).json()["instances"]) == count
