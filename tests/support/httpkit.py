"""What the tests of the HTTP side share: a client without a socket, a server with one, a reader of event streams."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from paddock.runtime.http.wire import Wire

LOCAL = "http://127.0.0.1:8321"


def client(app: Any, **options: Any) -> httpx.AsyncClient:
    """Return a client that calls an application directly."""
    base = options.pop("base_url", LOCAL)
    peer = options.pop("peer", ("127.0.0.1", 5000))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=peer)
    return httpx.AsyncClient(transport=transport, base_url=base, timeout=60, **options)


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an application at a free port of loopback; give its address."""
    config = uvicorn.Config(app, lifespan="off", http=Wire, log_level="critical", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass
class Frame:
    """One server-sent event."""

    event: str = "message"
    id: int | None = None
    data: Any = None


async def frames(lines: AsyncIterator[str]) -> AsyncIterator[Frame]:
    """Go through the events of a stream's lines, as a browser does."""
    current, held = Frame(), []
    async for line in lines:
        field, _, value = line.partition(": ")
        if field == "data":
            held.append(value)
        elif field == "event":
            current.event = value
        elif field == "id":
            current.id = int(value)
        elif not line:
            if held:
                current.data = json.loads("\n".join(held))
                yield current
            current, held = Frame(), []


async def read_all(response: httpx.Response) -> list[Frame]:
    """Return the events of a stream that ends."""
    return [frame async for frame in frames(response.aiter_lines())]
