"""What is refused, with which status, and that nothing of the inside shows."""

import asyncio
import contextlib
import json
import sqlite3

import pytest
from httpkit import client, listening

from paddock import AppServer, WorkflowsConfig

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
    ],
)
async def test_paths(api, method, path, status, code):
    response = await api.request(method, path, headers={"Accept": "application/json"})
    is_problem(response, status, code)
    if status == 405:
        assert response.headers["allow"]


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


async def test_raw_requests_that_no_client_sends(server):
    """What comes over a socket that httpx would not send: two hosts, a long head, a path with a null, half a body."""
    async with listening(server.asgi()) as url:
        port = int(url.rpartition(":")[2])

        async def say(raw):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(raw)
                writer.write_eof()
                return await reader.read()
            except ConnectionError:  # it hung up on what it had not read
                return b"HTTP/1.1 400"
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        host = b"Host: 127.0.0.1\r\n"
        two = await say(b"GET /api/overview HTTP/1.1\r\n" + host + b"Host: evil.example\r\n\r\n")
        assert two[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 403")
        long = await say(b"GET /api/overview HTTP/1.1\r\n" + host + b"X: " + b"y" * 200_000 + b"\r\n\r\n")
        assert long[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")
        assert (await say(b"GET /assets/%00 HTTP/1.1\r\n" + host + b"\r\n"))[:12] == b"HTTP/1.1 404"
        assert (await say(b"GET /api/overview HTTP/1.1\r\n\r\n"))[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 403")
        head = b"POST /api/workflows/greet/start HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
        await say(head + b"Content-Length: 100\r\n\r\n{")
        huge = await say(head + b"Content-Length: 99999999999\r\n\r\n")
        assert huge[:12] == b"HTTP/1.1 413"
    assert await server.workflows.get_all_instances() == []


async def test_at_the_limit_of_a_workflow(tmp_path):
    import httpflows

    made = AppServer(tmp_path / "l.db", workflows=WorkflowsConfig(launcher="inline"))
    made.workflows.register(httpflows.drip, max_concurrent=1, on_limit="reject")
    async with made, client(made.asgi()) as api:
        assert (await api.post("/api/workflows/drip/start", json={"input": 1000})).status_code == 201
        is_problem(await api.post("/api/workflows/drip/start", json={"input": 1}), 429, "ConcurrencyLimitReached")
