"""A server for each way of running, shared by the tests of a module, and come to rest after each of them."""

import asyncio
import os
import threading

import contractflows
import contractplugins
import pytest
import pytest_asyncio
from contractkit import MODES, at_rest, became, sockets

from paddock import AppServer, WorkflowsConfig


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "modes(*names): run on a shared server of each of these modes, not only forked")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `server` forked; and in the modes that its marker names."""
    if "shared" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("modes")
        metafunc.parametrize("shared", marker.args if marker else ["fork"], indirect=True, scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Start a server, with the threads and processes that it keeps, before the guard looks at what there is."""
    mode = request.param
    server = AppServer(
        tmp_path_factory.mktemp(mode) / "app.db",
        plugins=[contractplugins.Stamp(contractplugins.StampConfig(text="ink"))],
        config={"feature_x": True, "nested": {"list": [1, "two"]}},
        workflows=WorkflowsConfig(**MODES[mode], kill_grace="2s", suspend_after="100ms", max_payload=256 * 1024),
    )
    for flow in contractflows.ALL:
        server.workflows.register(flow)
    before = sockets()
    async with server:
        barrier = threading.Barrier(min(32, (os.cpu_count() or 1) + 4))
        await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(barrier.parties)))
        before += 1 if mode == "inline" else 3  # listener, fork server and watchdog are there to stay
        before += MODES[mode].get("transport") != "tcp"  # and the bell
        await became(lambda: sockets() >= before)
        await server.workflows.run("slim", timeout=30)
        await at_rest(server, before)
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def server(shared: AppServer):
    """Lend the shared server, and wait until nothing of the test runs on it."""
    held = sockets()
    yield shared
    for status in ("pending", "running", "sleeping", "waiting"):  # a test that failed must not fail the next one
        for instance in await shared.workflows.get_all_instances(status, limit=1000):
            await shared.workflows.cancel(instance.id)
    await at_rest(shared, held)
