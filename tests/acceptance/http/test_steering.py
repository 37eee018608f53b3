"""What the API does: start, run, signal, steer, one and many."""

import asyncio

import pytest
from contractkit import became
from httpkit import read_all


async def status(api, ident):
    return (await api.get(f"/api/instances/{ident}")).json()["status"]


async def comes_to(api, ident, wanted):
    await became(lambda: _is(api, ident, wanted))


async def _is(api, ident, wanted):
    return await status(api, ident) == wanted


async def test_start_and_the_same_again(api):
    body = {"input": "Ada", "id": "first", "metadata": {"who": "me"}, "priority": 3}
    made = await api.post("/api/workflows/greet/start", json=body)
    assert (made.status_code, made.headers["location"]) == (201, "/api/instances/first")
    assert made.json()["created"] is True
    again = await api.post("/api/workflows/greet/start", json=body)
    assert (again.status_code, again.json()["created"]) == (200, False)
    other = await api.post("/api/workflows/greet/start", json={"input": "Eve", "id": "first"})
    assert (other.status_code, other.json()["code"]) == (409, "InstanceIdConflict")
    found = (await api.get("/api/instances/first")).json()
    assert (found["metadata"], found["priority"]) == ({"who": "me"}, 3)


@pytest.mark.parametrize("key", ["once", "a key with spaces, ünd so", "../../etc/passwd"])
async def test_idempotency_key(api, key):
    headers = {"Idempotency-Key": key.encode()}
    first = await api.post("/api/workflows/greet/start", json={"input": "Ada"}, headers=headers)
    second = await api.post("/api/workflows/greet/run", json={"input": "Ada"}, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert second.json()["output"] == "Hello, Ada!"
    assert len((await api.get("/api/instances")).json()["instances"]) == 1


async def test_run_plain(api):
    found = await api.post(
        "/api/workflows/order/run", json={"input": {"number": "A-1", "lines": [{"sku": "x", "count": 3}]}}
    )
    assert (found.status_code, found.json()["output"]) == (200, {"pieces": 3})
    assert found.headers["paddock-instance-id"] == found.json()["id"]


async def test_run_as_a_stream(api):
    headers = {"Accept": "text/event-stream"}
    response = await api.post("/api/workflows/chat/run", json={"input": 3}, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = await read_all(response)
    assert [one.event for one in found] == ["started", "chunk", "chunk", "chunk", "result"]
    assert [one.data["chunk"]["count"] for one in found[1:4]] == [0, 1, 2]
    assert found[-1].data["output"] == 3
    ident = found[0].data["id"]
    again = await read_all(await api.get(f"/api/instances/{ident}/stream", headers={"Last-Event-ID": str(found[2].id)}))
    assert [one.data for one in again] == [found[0].data, found[3].data, found[4].data]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_run_that_fails_says_what_but_not_where(api, accept):
    response = await api.post("/api/workflows/broken/run", json={"input": 5}, headers={"Accept": accept})
    if accept == "application/json":
        problem = response.json()
        assert (response.status_code, response.headers["content-type"]) == (424, "application/problem+json")
    else:
        problem = (await read_all(response))[-1].data
    assert (problem["status"], problem["code"]) == (424, "WorkflowFailed")
    assert problem["error"] == {"type": "RuntimeError", "message": "5 is not what it was", "step": None}
    assert "Traceback" not in response.text
    assert ".py" not in response.text


async def test_run_with_a_timeout_goes_on(api):
    found = await api.post("/api/workflows/approval/run", json={"input": "a raise", "timeout": "50ms"})
    assert (found.status_code, found.json()["output"]) == (202, None)
    ident = found.json()["id"]
    answer = await api.post(f"/api/instances/{ident}/signal", json={"name": "approve", "payload": {"approved": True}})
    assert answer.status_code == 200
    result = await api.get(f"/api/instances/{ident}/result", params={"timeout": "30s"})
    assert (result.status_code, result.json()["output"]) == (200, {"approved": True, "reason": None})


@pytest.mark.parametrize(
    ("prefer", "timeout", "applied"),
    [
        ("wait=0", None, "wait=0"),
        ("respond-async", "1h", "respond-async"),
        ("unknown, respond-async; foo, wait=0", None, "wait=0"),
        ("wait=3600", "10ms", None),
        ("wait=soon", "10ms", None),
    ],
)
async def test_a_caller_that_prefers_not_to_wait(api, prefer, timeout, applied):
    headers = {"Prefer": prefer}
    found = await api.post(
        "/api/workflows/approval/run", json={"input": "a raise", "timeout": timeout}, headers=headers
    )
    assert (found.status_code, found.json()["output"]) == (202, None)
    assert found.headers.get("preference-applied") == applied
    ident = found.json()["id"]
    assert found.headers["location"] == f"/api/instances/{ident}"
    await comes_to(api, ident, "waiting")
    await api.post(f"/api/instances/{ident}/signal", json={"name": "approve", "payload": {"approved": True}})
    await comes_to(api, ident, "completed")
    result = await api.get(f"/api/instances/{ident}/result", headers={"Prefer": "respond-async"})
    assert (result.status_code, result.json()["output"]["approved"]) == (200, True)


async def test_a_signal_that_does_not_fit(api):
    ident = (await api.post("/api/workflows/approval/start", json={"input": "a raise"})).json()["id"]
    await comes_to(api, ident, "waiting")
    wrong = await api.post(f"/api/instances/{ident}/signal", json={"name": "approve", "payload": {"approved": "maybe"}})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "InvalidSignal")
    assert [error["where"] for error in wrong.json()["errors"]] == ["body.payload.approved"]
    assert await status(api, ident) == "waiting"
    assert (await api.get(f"/api/instances/{ident}")).json()["signals"] == []


async def test_cancel_pause_retry_fork_and_delete(api):
    ident = (await api.post("/api/workflows/approval/start", json={"input": "a raise"})).json()["id"]
    await comes_to(api, ident, "waiting")
    assert (await api.post(f"/api/instances/{ident}/pause")).json() == {"id": ident, "status": "paused"}
    assert (await api.get(f"/api/instances/{ident}")).json()["waits_for"][0]["kind"] == "person"
    assert (await api.post(f"/api/instances/{ident}/unpause")).json()["status"] != "paused"
    assert (await api.delete(f"/api/instances/{ident}")).status_code == 409
    assert (await api.post(f"/api/instances/{ident}/cancel")).json()["cancelled"] is True
    assert (await api.post(f"/api/instances/{ident}/cancel")).json() == {
        "id": ident,
        "cancelled": False,
        "status": "cancelled",
    }
    refused = await api.post(f"/api/instances/{ident}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "InvalidTransition")
    made = await api.post(f"/api/instances/{ident}/fork", json={"input": "another"})
    assert (made.status_code, made.json()["forked_from"]) == (201, ident)
    fork = made.json()["id"]
    assert (await api.get(f"/api/instances/{fork}")).json()["input"] == "another"
    assert (await api.post(f"/api/instances/{ident}/fork", json={"id": fork})).status_code == 409
    assert (await api.post(f"/api/instances/{ident}/fork", json={"input": 7})).status_code == 422
    assert (await api.delete(f"/api/instances/{ident}")).status_code == 204
    assert (await api.get(f"/api/instances/{ident}")).status_code == 404


async def test_stacks_of_what_has_no_process(api):
    ident = (await api.post("/api/workflows/approval/start", json={"input": "a raise"})).json()["id"]
    await comes_to(api, ident, "waiting")
    for asked, expected in ((ident, (409, "InvalidTransition")), ("unknown", (404, "InstanceNotFound"))):
        refused = await api.get(f"/api/instances/{asked}/stacks")
        assert (refused.status_code, refused.json()["code"]) == expected
    assert (await api.get(f"/api/instances/{ident}")).json()["can"]["stacks"] is False


async def test_metadata_and_state(api):
    ident = (await api.post("/api/workflows/lamp/start", json={"input": {}})).json()["id"]
    await comes_to(api, ident, "waiting")
    assert (await api.post(f"/api/instances/{ident}/metadata", json={"room": "hall"})).json()["metadata"] == {
        "room": "hall"
    }
    assert (await api.post(f"/api/instances/{ident}/state", json={"changes": 5})).status_code == 200
    wrong = await api.post(f"/api/instances/{ident}/state", json={"changes": -5})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "InvalidState")
    [named] = wrong.json()["errors"]
    assert (named["where"], named["message"]) == ("body.changes", "Input should be greater than or equal to 0")
    assert (await api.post(f"/api/instances/{ident}/state", json=[1])).status_code == 422
    assert "no field 'size'" in (await api.post(f"/api/instances/{ident}/state", json={"size": 1})).json()["detail"]
    found = (await api.get(f"/api/instances/{ident}")).json()
    assert found["state"] == {"changes": 5}  # not taken yet: the machine waits
    assert found["state_schema"]["properties"]["changes"]["minimum"] == 0
    assert [wait["name"] for wait in found["waits_for"]] == ["on"]
    await api.post(f"/api/instances/{ident}/signal", json={"name": "on", "payload": "green"})
    await became(lambda: _waits_for(api, ident, "again"))
    assert (await api.get(f"/api/instances/{ident}")).json()["state"] == {"color": "green", "changes": 5}
    await api.post(f"/api/instances/{ident}/state", json={"color": "blue"})
    assert (await api.get(f"/api/instances/{ident}")).json()["state"] == {"color": "blue", "changes": 5}
    await api.post(f"/api/instances/{ident}/signal", json={"name": "again", "payload": False})
    await comes_to(api, ident, "completed")
    assert (await api.get(f"/api/instances/{ident}")).json()["state"] == {"color": "blue", "changes": 6}


async def _waits_for(api, ident, name):
    found = (await api.get(f"/api/instances/{ident}")).json()
    return [wait["name"] for wait in found["waits_for"]] == [name]


async def test_many_at_once(api):
    ids = [(await api.post("/api/workflows/approval/start", json={"input": str(n)})).json()["id"] for n in range(4)]
    await asyncio.gather(*(comes_to(api, ident, "waiting") for ident in ids))
    found = (await api.post("/api/instances/bulk", json={"action": "cancel", "ids": [*ids[:2], "unknown"]})).json()
    assert (found["count"], [one["code"] for one in found["failed"]]) == (2, ["InstanceNotFound"])
    rest = (await api.post("/api/instances/bulk", json={"action": "cancel", "workflow": "approval"})).json()
    assert rest["count"] == 2
    gone = (await api.post("/api/instances/bulk", json={"action": "cleanup", "status": "cancelled"})).json()
    assert gone["count"] == 4
    for wrong in ({"action": "burn"}, {"action": "pause"}, {"action": "cancel", "status": "dead"}, {"action": "retry", "status": "running"},
                  {"action": "cancel", "ids": [], "workflow": "x"}, {"action": "cleanup", "status": "running"}):  # fmt: skip
        assert (await api.post("/api/instances/bulk", json=wrong)).status_code in (409, 422), wrong
