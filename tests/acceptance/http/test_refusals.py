"""What is refused, with which status, and that nothing of the inside shows."""

import asyncio
import contextlib
import json
import sqlite3

import pytest
from httpkit import client, listening

from paddock import AppServer, WorkflowsConfig
from paddock.runtime.http import wire
from paddock.runtime.http.app import OPERATIONS

TOKEN = "correct horse battery staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def is_problem(response, status, code):
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"].startswith("urn:paddock:problem:")
    assert not [word for word in ("Traceback", ".py", "sqlite", "/tmp", "paddock_") if word in response.text]
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"not json", 400, "BadRequest"),
        (b'{"input": NaN}', 400, "BadRequest"),
        (b'{"input": "\xff"}', 400, "BadRequest"),
        (b"[" * 100_000, 400, "BadRequest"),
        (b'"text"', 422, "InvalidRequest"),
        (b'{"input": 5}', 422, "InvalidInput"),
        (b"{}", 422, "InvalidInput"),
        (b'{"input": "Ada", "extra": 1}', 422, "InvalidRequest"),
        (b'{"input": "Ada", "priority": "high"}', 422, "InvalidRequest"),
        (b'{"input": "Ada", "delay": "soon"}', 422, "InvalidRequest"),
        (b'{"input": "Ada", "delay": -1}', 422, "InvalidRequest"),
        (b'{"input": "Ada", "id": "../../etc/passwd"}', 422, "InvalidInstanceId"),
        (b'{"input": "Ada", "metadata": {"": 1}}', 422, "InvalidRequest"),
        (b'{"input": "\\ud800"}', 400, "BadRequest"),
        (json.dumps({"input": "x" * 150_000}).encode(), 413, "PayloadTooLarge"),
        (json.dumps({"input": "x" * 500_000}).encode(), 413, "BodyTooLarge"),
    ],
)
async def test_bodies(api, server, body, status, code):
    headers = {"Content-Type": "application/json"}
    is_problem(await api.post("/api/workflows/greet/start", content=body, headers=headers), status, code)
    assert await server.workflows.get_all_instances() == []


async def test_a_body_of_unknown_length_is_cut_off(api, server):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    is_problem(await api.post("/api/workflows/greet/start", content=endless(), headers=headers), 413, "BodyTooLarge")
    assert sent < 1_000_000


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/instances/unknown", 404, "InstanceNotFound"),
        ("GET", "/api/instances/unknown/events", 404, "InstanceNotFound"),
        ("GET", "/api/instances/unknown/logs", 404, "InstanceNotFound"),
        ("GET", "/api/instances/unknown/stream", 404, "InstanceNotFound"),
        ("GET", "/api/instances/unknown/result", 404, "InstanceNotFound"),
        ("POST", "/api/instances/unknown/cancel", 404, "InstanceNotFound"),
        ("DELETE", "/api/instances/unknown", 404, "InstanceNotFound"),
        ("GET", "/api/workflows/unknown", 404, "WorkflowNotFound"),
        ("POST", "/api/workflows/unknown/start", 404, "WorkflowNotFound"),
        ("GET", "/api/nothing", 404, "NotFound"),
        ("PUT", "/api/instances", 405, "MethodNotAllowed"),
        ("POST", "/metrics", 405, "MethodNotAllowed"),
        ("GET", "/assets/../../../etc/passwd", 404, "NotFound"),
        ("GET", "/assets/%2e%2e/%2e%2e/pyproject.toml", 404, "NotFound"),
        ("GET", "/assets//etc/passwd", 404, "NotFound"),
        ("GET", "/assets/__init__.py", 404, "NotFound"),
        ("GET", "/api/instances/..%2f..%2fetc%2fpasswd", 404, "NotFound"),
        ("GET", "/api/instances?limit=0", 422, "InvalidRequest"),
        ("GET", "/api/instances?limit=1_0", 422, "InvalidRequest"),
        ("GET", "/api/instances?before=-1", 422, "InvalidRequest"),
        ("GET", "/api/events?after=99999999999999999999", 422, "InvalidRequest"),
        ("GET", "/api/logs?level=loud", 422, "InvalidRequest"),
        ("GET", "/api/instances?q=a%00b", 422, "InvalidRequest"),
        ("GET", "/api/instances/a%00b", 404, "NotFound"),
    ],
)
async def test_paths(api, method, path, status, code):
    response = await api.request(method, path, headers={"Accept": "application/json"})
    is_problem(response, status, code)
    if status == 405:
        assert response.headers["allow"]


async def test_a_parameter_that_nothing_knows_is_named_everywhere(api):
    """A filter that is misspelt would be answered with what was not asked for."""
    for operation in OPERATIONS:
        path = operation.path.format(id="waiting", name="greet")
        body = {} if operation.method == "POST" else None
        response = await api.request(
            operation.method, f"{path}?surprise=1", json=body, headers={"Accept": "application/json"}
        )
        is_problem(response, 422, "InvalidRequest")
        assert [error["where"] for error in response.json()["errors"]] == ["query.surprise"], operation.name
        known = operation.query.model_fields
        said = response.json()["detail"]
        assert all(name in said for name in known) and ("none is taken" in said) == (not known), operation.name


@pytest.mark.parametrize("said", ["x", "-1", "1.5", "0x10", "1e5", "1,2", "9" * 19, "9" * 400, "\u0661"])
async def test_a_last_event_id_that_is_none(api, said):
    headers = {"Last-Event-ID": said.encode()}
    is_problem(await api.get("/api/events?follow=false", headers=headers), 422, "InvalidRequest")


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("instances/bulk", {"action": "burn"}, ["body"]),
        ("instances/bulk", 5, ["body"]),
        ("instances/bulk", {"ids": ["a"]}, ["body.action"]),
        ("instances/bulk", {"action": "cleanup", "older_than": "x"}, ["body.older_than"]),
        ("instances/bulk", {"action": "cancel", "status": "failed"}, ["body.status"]),
        ("schedules", {"workflow": "greet"}, ["body"]),
        ("schedules", {"workflow": "greet", "cron": "* * * * *", "every": "1s"}, ["body"]),
        ("schedules", {"workflow": "greet", "every": "soon"}, ["body.every"]),
    ],
)
async def test_what_does_not_fit_is_named_once_and_in_the_words_of_the_caller(api, path, body, where):
    response = await api.post(f"/api/{path}", json=body)
    is_problem(response, 422, "InvalidRequest")
    assert [error["where"] for error in response.json()["errors"]] == where
    assert not [
        word
        for word in ("Bulk", "Schedule", "Value error", "_kind", "(")
        if word
        in response.json()["detail"]
        .replace("(seconds)", "")
        .replace("(cancel, retry, cleanup)", "")
        .replace("(these, pause, unpause)", "")
    ]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 415, "UnsupportedMediaType"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "UnsupportedMediaType"),
        ({}, 415, "UnsupportedMediaType"),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403, "ForeignOrigin"),
        ({"Content-Type": "application/json", "Origin": "http://127.0.0.1:9999"}, 403, "ForeignOrigin"),
        ({"Content-Type": "application/json", "Origin": "null"}, 403, "ForeignOrigin"),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "same-site"}, 403, "ForeignOrigin"),
        ({"Content-Type": "application/json", "Host": "evil.example"}, 403, "ForeignHost"),
        ({"Content-Type": "application/json", "Host": "127.0.0.1.evil.example:8321"}, 403, "ForeignHost"),
        ({"Content-Type": "application/json", "Host": "evil@127.0.0.1.evil"}, 403, "ForeignHost"),
        ({"Content-Type": "application/json", "Host": ""}, 403, "ForeignHost"),
    ],
)
async def test_strangers(api, server, headers, status, code):
    is_problem(await api.post("/api/workflows/greet/start", content=b'{"input": "Ada"}', headers=headers), status, code)
    assert await server.workflows.get_all_instances() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/json", "Origin": "http://127.0.0.1:8321"},
        {"Content-Type": "application/json", "Host": "localhost:1", "Origin": "http://localhost:1"},
        {"Content-Type": "application/json", "Host": "[::1]:8321", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_friends(api, headers):
    response = await api.post("/api/workflows/greet/start", content=b'{"input": "Ada"}', headers=headers)
    assert response.status_code == 201


async def test_without_a_token_only_this_machine_is_answered(server):
    for peer, status in (
        ("10.0.0.7", 403),
        ("::ffff:10.0.0.7", 403),
        ("::ffff:127.0.0.1", 200),
        ("127.8.8.8", 200),
        ("::1", 200),
    ):
        async with client(server.asgi(), peer=(peer, 5000)) as api:
            assert (await api.get("/api/overview")).status_code == status
    async with client(server.asgi(allowed_hosts=["*"]), peer=("10.0.0.7", 1), base_url="http://any.example") as api:
        assert (await api.get("/api/overview")).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN} ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xe4"]
)  # fmt: skip
async def test_tokens(server, header):
    async with client(server.asgi(token=TOKEN)) as api:
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        for path in ("/api/overview", "/metrics", "/openapi.json", "/api/events", "/api/nothing"):
            response = await api.get(path, headers=headers)
            if header == f"Bearer {TOKEN} ":  # a space behind it is no part of it
                assert response.status_code in (200, 404) or path == "/api/events"
                break
            is_problem(response, 401, "Unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")
        assert (await api.get("/")).status_code == 200
        assert (await api.get("/api/overview", headers=BEARER)).status_code == 200


async def test_a_cookie_for_the_token(server):
    app = server.asgi(token=TOKEN)
    async with client(app) as api:
        assert (await api.get("/api/session")).json() == {"required": True, "authenticated": False}
        is_problem(await api.post("/api/session", json={"token": "wrong"}), 401, "Unauthorized")
        given = await api.post("/api/session", json={"token": TOKEN})
        cookie = given.headers["set-cookie"]
        assert given.status_code == 204
        assert TOKEN not in cookie
        assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age="))
        assert (await api.get("/api/session")).json() == {"required": True, "authenticated": True}
        assert (await api.get("/api/overview")).status_code == 200
        name, _, value = cookie.partition(";")[0].partition("=")
        end, _, signature = value.partition(".")
        await api.delete("/api/session")
        assert (await api.get("/api/overview")).status_code == 401
    for forged in (
        f"{int(end) + 1}.{signature}",
        f"1.{signature}",
        signature,
        f"{end}.",
        f"{end}.{'0' * 64}",
        "ä.ä",
        f"{'9' * 400}.{signature}",
    ):
        async with client(app, headers={"Cookie": f"{name}={forged}".encode()}) as api:
            assert (await api.get("/api/overview")).status_code == 401
    async with client(server.asgi(token="another"), headers={"Cookie": f"{name}={value}"}) as api:
        assert (await api.get("/api/overview")).status_code == 401


async def test_a_database_that_cannot_be_read(server, monkeypatch):
    from paddock.runtime.http import instance_routes

    def broken(*_):
        raise sqlite3.OperationalError("disk I/O error in /secret/place")

    monkeypatch.setattr(instance_routes.browse, "instances_page", broken)
    async with client(server.asgi()) as api:
        is_problem(await api.get("/api/instances"), 503, "DatabaseUnavailable")

    def wrong(*_):
        raise ValueError("the inside")

    monkeypatch.setattr(instance_routes.browse, "instances_page", wrong)
    async with client(server.asgi()) as api:
        response = await api.get("/api/instances")
        is_problem(response, 500, "InternalError")
        assert "the inside" not in response.text


HOST = b"Host: 127.0.0.1\r\n"
START = b"POST /api/workflows/greet/start HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
LOOK = b"GET /api/overview HTTP/1.1\r\n" + HOST


async def say(url, raw, *, end=True):
    """Send bytes, and return what comes until the other side hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    found = b""
    try:
        with contextlib.suppress(ConnectionError):  # it hung up on what it had not read
            writer.write(raw)
            if end:
                writer.write_eof()
            while more := await reader.read(65536):
                found += more
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return found


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (LOOK + b"Host: evil.example\r\n\r\n", 400),
        (b"GET /api/overview HTTP/1.1\r\n\r\n", 400),
        (LOOK + b"Bad Header: x\r\n\r\n", 400),
        (LOOK + b"X: a\x00b\r\n\r\n", 400),
        (b"GET /api/\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (START + b"Content-Length: -1\r\n\r\n", 400),
        (START + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (b"GET /assets/%00 HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (START + b"Content-Length: 99999999999\r\n\r\n", 413),
        (LOOK + b"".join(b"X-%d: y\r\n" % number for number in range(20_000)), 431),
        (LOOK + b"X: " + b"y" * 300_000, 431),
    ],
)
async def test_raw_requests_that_no_client_sends(server, raw, status):
    """What comes over a socket that httpx would not send is answered as everything is, or not at all."""
    async with listening(server.asgi()) as url:
        head, _, body = (await say(url, raw)).partition(b"\r\n\r\n")
        if body or status != 431:  # an answer that comes before all was sent may be lost
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"content-type: application/problem+json" in head
            assert b"x-content-type-options: nosniff" in head.lower()
            assert json.loads(body)["status"] == status
        await say(url, START + b"Content-Length: 100\r\n\r\n{")
    assert await server.workflows.get_all_instances() == []


async def test_a_head_has_to_be_whole_in_time(server, monkeypatch):
    monkeypatch.setattr(wire, "_HEAD_SECONDS", 0.2)
    async with listening(server.asgi()) as url:
        assert await say(url, b"", end=False) == b""
        assert await say(url, LOOK, end=False) == b""
        found = await say(url, LOOK + b"\r\n" + LOOK, end=False)  # the second one is not
        assert found.startswith(b"HTTP/1.1 200 ")
        assert found.count(b"HTTP/1.1") == 1


async def test_at_the_limit_of_a_workflow(tmp_path):
    import httpflows

    made = AppServer(tmp_path / "l.db", workflows=WorkflowsConfig(launcher="inline"))
    made.workflows.register(httpflows.drip, max_concurrent=1, on_limit="reject")
    async with made, client(made.asgi()) as api:
        assert (await api.post("/api/workflows/drip/start", json={"input": 1000})).status_code == 201
        is_problem(await api.post("/api/workflows/drip/start", json={"input": 1}), 429, "ConcurrencyLimitReached")
