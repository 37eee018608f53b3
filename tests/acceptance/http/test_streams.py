"""Event streams: nothing missed and nothing twice, whoever reads how slowly, and an end when there is one."""

import asyncio
import contextlib
import json
import random

import httpflows
import httpx
import pytest
from contractkit import became
from httpkit import client, frames, listening, read_all

from paddock import AppServer
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
async def test_200_readers_of_one_slow_instance_cost_it_nothing(server, monkeypatch):
    """Each event is read from the store and made a frame of once, however many read; all read the same."""
    made, frame = [], sse.frame

    def counted(data, **named):
        made.append(named.get("id"))
        return frame(data, **named)

    monkeypatch.setattr(sse, "frame", counted)
    app = server.asgi()
    async with listening(app) as url:
        ident = await server.workflows.start("approval", "a raise")
        request = f"GET /api/instances/{ident}/events?until=end HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode()

        async def read():
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(request)
            text = await reader.read()
            writer.close()
            return [int(line[4:]) for line in text.split(b"\n") if line.startswith(b"id: ")]

        reading = [asyncio.ensure_future(read()) for _ in range(200)]
        await became(lambda: app._app.state.readers.count == 200)
        await server.workflows.signal(ident, "approve", {"approved": True})
        found = await asyncio.gather(*reading)
    kept = [event.id for event in await server.events.history(instance_id=ident, limit=1000)]
    assert all(one == kept for one in found)
    assert made == kept


@pytest.mark.slow
async def test_one_that_does_not_read_holds_up_nobody(server):
    """It holds up neither others who read nor the instance."""
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

            found = await asyncio.gather(*(read() for _ in range(4)))
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


async def test_the_newest_first(api, server):
    ident = await server.workflows.start("chat", 5)
    await server.workflows.wait(ident)
    wanted = {"pattern": "workflow.stream", "order": "desc", "limit": 3}
    options = {"headers": {"Accept": "application/json"}}
    page = (await api.get("/api/events", params=wanted, **options)).json()
    rest = (await api.get("/api/events", params={**wanted, "before": page["before"]}, **options)).json()
    assert [event["data"]["index"] for event in page["events"] + rest["events"]] == [4, 3, 2, 1, 0]
    assert (page["next"], rest["before"]) == (None, None)
    tail = (await api.get(f"/api/instances/{ident}/events", params={"tail": 2}, **options)).json()
    assert [event["name"] for event in tail["events"]] == ["workflow.progress", "workflow.completed"]


async def test_a_stream_that_begins_with_the_last_ones(api, server):
    ident = await server.workflows.start("chat", 5)
    await server.workflows.wait(ident)
    wanted = {"pattern": "workflow.stream", "tail": 2, "follow": "false"}
    for path in ("/api/events", f"/api/instances/{ident}/events"):
        found = await read_all(await api.get(path, params=wanted))
        assert [one.data["data"]["index"] for one in found[:-1]] == [3, 4]


@pytest.mark.slow
async def test_a_stream_to_the_end_has_the_last_words_too(tmp_path):
    """What a process prints last is kept after the event of its instance's end, by the server once the process is dead."""
    made = AppServer(tmp_path / "app.db", plugins=[httpflows.Goodbye({})])
    made.workflows.register(httpflows.greet)
    async with made, client(made.asgi()) as api:
        ident = await made.workflows.start("greet", "Ada")
        path, headers = f"/api/instances/{ident}/logs", {"Accept": "text/event-stream"}
        found = await read_all(await api.get(path, params={"until": "end"}, headers=headers))
        assert [one.data["message"] for one in found[:-1]] == ["goodbye"]
        events = await read_all(await api.get(f"/api/instances/{ident}/events", params={"until": "end"}))
        assert [one.data["name"] for one in events if one.data][-3:-1] == ["workflow.completed", "log.workflow"]


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
        app.served.closing.set()
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


async def test_there_is_a_most_of_one_peer(server, monkeypatch):
    """A stream that nobody reads to its end holds a place; who asks from this machine may be a proxy, and stands for many."""
    monkeypatch.setattr(sse, "_MOST_OF_ONE", 1)
    app = server.asgi(allowed_hosts=["*"])
    running = asyncio.ensure_future(_ask(app, "203.0.113.7"))
    await became(lambda: app._app.state.readers.count == 1)
    async with contextlib.AsyncExitStack() as stack:
        for peer, status in (("203.0.113.7", 503), ("203.0.113.8", 200), ("127.0.0.1", 200)):
            api = await stack.enter_async_context(client(app, peer=(peer, 5000)))
            assert (await api.get("/api/events", params={"follow": "false"})).status_code == status
    app.served.closing.set()
    await running


async def _ask(app, peer):
    async with client(app, peer=(peer, 5000)) as api:
        await api.get("/api/events")


async def test_head_of_a_stream_ends(api):
    assert (await api.head("/api/events")).status_code == 200
