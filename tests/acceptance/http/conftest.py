"""A server whose workflows run inline, and a client of its application."""

import contextlib

import httpflows
import pytest_asyncio
from httpkit import client

from paddock import AppServer, WorkflowsConfig


@pytest_asyncio.fixture(loop_scope="function")
async def server(tmp_path):
    made = AppServer(tmp_path / "app.db", workflows=WorkflowsConfig(launcher="inline", max_payload=128 * 1024))
    for one in httpflows.ALL:
        made.workflows.register(one)
    async with made:
        yield made


@pytest_asyncio.fixture(loop_scope="function")
async def api(server):
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(client(server.asgi()))
