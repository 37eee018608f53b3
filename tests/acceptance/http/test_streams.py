"""Event streams: nothing missed and nothing twice, whoever reads how slowly, and an end when there is one."""

import asyncio
import contextlib
import json
import random

import httpx
import pytest
from contractkit import became
from httpkit import client, frames, listening, read_all

from paddock.runtime.http import sse


@pytest.mark.slow
async def test_a_stream_cut_and_resumed_100_times_misses_and_repeats_nothing(server):
    chance = random.Random(7)
    seen: list[int] = []
    cuts = 0
    async with listening(server.asgi()) as url, httpx.AsyncClient(base_url=url, timeout=60) as api:
        ident = await server.workflows.start("drip", 130)
        over = False
        while not over:
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            take = chance.randint(1, 8)
            async with api.stream("GET", f"/api/instances/{ident}/events?until=end", headers=headers) as response:
                async for one in frames(response.aiter_lines()):
                    if one.event == "end":
                        over = True
                        break
                    seen.append(one.id)
                    take -= 1
                    if not take:
                        cuts += 1
                        break
    kept = [event.id for event in await server.events.history(instance_id=ident, limit=100_000)]
    assert seen == kept
    assert cuts >= 100


@pytest.mark.slow
async def test_many_readers_and_one_that_does_not_read(server):
    """40 readers see the same; one that never reads holds up neither them nor the instance."""
    async with listening(server.asgi()) as url:
        port = int(url.rpartition(":")[2])
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        idle.transport.pause_reading()
        idle.write(b"GET /api/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as api:
            ident = await server.workflows.start("drip", 30)

            async def read():
                async with api.stream("GET", f"/api/instances/{ident}/events?until=end") as response:
                    return [one.id for one in await read_all(response)][:-1]

            found = await asyncio.gather(*(read() for _ in range(40)))
        kept = [event.id for event in await server.events.history(instance_id=ident, limit=100_000)]
        assert all(one == kept for one in found)
        idle.close()
        with contextlib.suppress(ConnectionError):
            await idle.wait_closed()


async def test_the_frames(api, server):
    ident = await server.workflows.start("chat", 2)
    await server.workflows.wait(ident)
    response = await api.get(f"/api/instances/{ident}/events", params={"follow": "false", "pattern": "workflow.stream"})
    lines = response.text.split("\n")
    assert lines[:2] == ["retry: 1000", ""]
    assert lines[2].startswith("id: ")
    assert json.loads(lines[3].removeprefix("data: "))["data"]["chunk"] == {"count": 0}
    assert lines[-4:] == ["event: end", "data: {}", "", ""]
    assert "\r" not in response.text


async def test_a_page_of_events(api, server):
    ident = await server.workflows.start("chat", 5)
    await server.workflows.wait(ident)
    options = {"headers": {"Accept": "application/json"}}
    page = (await api.get("/api/events", params={"pattern": "workflow.stream", "limit": 3}, **options)).json()
    rest = (
        await api.get("/api/events", params={"pattern": "workflow.stream", "after": page["next"]}, **options)
    ).json()
    assert [event["data"]["index"] for event in page["events"] + rest["events"]] == [0, 1, 2, 3, 4]
    assert rest["next"] is None


async def test_long_values_are_cut_where_asked(api, server):
    ident = await server.workflows.start("greet", "x" * 10_000)
    await server.workflows.wait(ident)
    for short in ("0", "1"):
        response = await api.get(f"/api/instances/{ident}/events", params={"follow": "false", "short": short})
        first = (await read_all(response))[0].data["data"]["input"]
        assert (first["size"] if short == "1" else len(first)) >= 10_000
    assert len(first["head"]) == 1000


async def test_logs_as_they_come(api, server):
    ident = await server.workflows.start("drip", 20)
    headers = {"Accept": "text/event-stream"}
    found = await read_all(await api.get(f"/api/instances/{ident}/logs", params={"until": "end"}, headers=headers))
    assert [one.data["data"]["number"] for one in found[:-1]] == list(range(20))
    assert found[-1].event == "end"
    headers["Last-Event-ID"] = str(found[9].id)
    rest = await read_all(await api.get(f"/api/instances/{ident}/logs", params={"until": "end"}, headers=headers))
    assert [one.id for one in rest] == [one.id for one in found[10:]]


async def test_a_quiet_stream_is_kept_alive(server, monkeypatch):
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.01)
    async with (
        listening(server.asgi()) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as api,
        api.stream("GET", "/api/events") as response,
    ):
        lines = response.aiter_lines()
        assert [await anext(lines) for _ in range(4)] == ["retry: 1000", "", ": keep-alive", ""]
        await server.workflows.start("greet", "Ada")
        assert (await anext(frames(lines))).data["name"] == "workflow.started"


async def test_streams_end_with_the_server(server):
    app = server.asgi()
    async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as api:
        ident = await server.workflows.start("approval", "a raise")

        async def read(path):
            async with api.stream("GET", path) as response:
                return await read_all(response)

        reading = [
            asyncio.ensure_future(read(path))
            for path in ("/api/events", f"/api/instances/{ident}/events", f"/api/instances/{ident}/stream")
        ]
        waiting = asyncio.ensure_future(api.get(f"/api/instances/{ident}/result"))
        await became(lambda: app._app.state.readers.count == 3)
        app.let_go()
        await asyncio.gather(*reading)
        assert ((await waiting).status_code, (await waiting).json()["code"]) == (503, "ServerNotRunning")
        assert app._app.state.readers.count == 0


async def test_readers_that_hang_up_are_forgotten(server):
    app = server.asgi()
    async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as api:
        for _ in range(5):
            async with api.stream("GET", "/api/events") as response:
                await anext(response.aiter_lines())
        await became(lambda: app._app.state.readers.count == 0)


async def test_there_is_a_most(server, monkeypatch):
    monkeypatch.setattr(sse, "_MOST", 0)
    async with client(server.asgi()) as api:
        response = await api.get("/api/events")
        assert (response.status_code, response.json()["code"]) == (503, "TooManyStreams")


async def test_head_of_a_stream_ends(api):
    assert (await api.head("/api/events")).status_code == 200
