"""The application within others: under a prefix of FastAPI and Starlette, and by itself."""

import contextlib
import warnings

import httpflows
from contractkit import became
from fastapi import FastAPI
from httpkit import client, read_all
from starlette.applications import Starlette
from starlette.routing import Mount

import paddock.testing
from paddock import AppServer, WorkflowsConfig


def made(tmp_path):
    server = AppServer(tmp_path / "app.db", workflows=WorkflowsConfig(launcher="inline"))
    for one in httpflows.ALL:
        server.workflows.register(one)
    return server


@contextlib.asynccontextmanager
async def living(app):
    """Do what a server does around an application: tell it of the beginning and the end."""
    async with app.router.lifespan_context(app):
        yield


async def works_under(api, prefix):
    found = await api.post(f"{prefix}/api/workflows/greet/start", json={"input": "Ada"})
    assert found.status_code == 201
    location = found.headers["location"]
    assert location.startswith(f"{prefix}/api/instances/")
    assert (await api.get(location)).json()["workflow_name"] == "greet"
    assert (await api.get(f"{prefix}/openapi.json")).json()["servers"] == [{"url": prefix or "/"}]
    assert (await api.get(f"{prefix}/")).headers["content-type"].startswith("text/html")
    assert (await api.get(f"{prefix}/api/none")).status_code == 404
    return found.json()["id"]


async def test_in_fastapi(tmp_path):
    server = made(tmp_path)
    app = FastAPI(lifespan=server.lifespan)
    app.mount("/paddock", server.asgi())

    @app.post("/orders")
    async def order(name: str) -> str:
        return await server.workflows.run("greet", name)

    async with living(app), client(app) as api:
        assert (await api.post("/orders", params={"name": "Ada"})).json() == "Hello, Ada!"
        await works_under(api, "/paddock")
    assert (await server.health())["problems"] == {"server": "not started"}


async def test_in_starlette_below_a_token(tmp_path):
    server = made(tmp_path)
    app = Starlette(lifespan=server.lifespan, routes=[Mount("/ops/flows", server.asgi(token="t" * 20))])
    async with living(app), client(app) as api:
        assert (await api.get("/ops/flows/api/overview")).status_code == 401
        cookie = (await api.post("/ops/flows/api/session", json={"token": "t" * 20})).headers["set-cookie"]
        assert "Path=/ops/flows/" in cookie
        await works_under(api, "/ops/flows")


async def test_by_itself_it_starts_and_stops_the_server(tmp_path):
    server = made(tmp_path)
    app = server.asgi()
    async with living(app._app), client(app) as api:
        ident = await works_under(api, "")
    assert (await server.health())["ok"] is False
    async with living(app._app), client(app) as api:  # and again, where it may have to go on
        await server.workflows.wait(ident, timeout=40)
        assert (await api.get("/api/overview")).json()["counts"]["completed"] == 1


def greeter(server):
    """Make an application as its users do; which server it uses is theirs to say."""
    app = FastAPI(lifespan=server.lifespan)
    app.mount("/paddock", server.asgi())

    @app.post("/orders")
    async def order(name: str) -> str:
        return await server.workflows.run("greet", name)

    return app


async def test_with_a_server_in_memory():
    """No process, no file; a signal, a wait of a week and a stream, through the application."""
    server = paddock.testing.server(register=httpflows.ALL)
    app = greeter(server)
    async with living(app), client(app, base_url="http://test", peer=("testclient", 50000)) as api:
        assert (await api.post("/orders", params={"name": "Ada"})).json() == "Hello, Ada!"
        ident = await works_under(api, "/paddock")
        await api.post("/paddock/api/workflows/approval/start", json={"input": "a raise", "id": "asked"})
        await became(lambda: _waits(api, "asked"))
        server.clock.advance("7d")
        assert (await api.get("/paddock/api/instances/asked/result")).json()["error"]["type"] == "WaitTimeout"
        found = await read_all(await api.get(f"/paddock/api/instances/{ident}/events", params={"until": "end"}))
        assert found[-2].data["name"] == "workflow.completed"
        overview = (await api.get("/paddock/api/overview")).json()
        assert (overview["ok"], overview["counts"]["completed"]) == (True, 2)
        [process] = (await api.get("/paddock/api/processes")).json()["processes"]
        assert process["role"] == "server"
        assert (await api.get(f"/paddock/api/instances/{ident}/stacks")).status_code == 409
        assert (await api.get("/paddock/metrics")).status_code == 200
    async with client(server.asgi(token="t" * 20)) as api:
        assert (await api.get("/api/overview")).status_code == 401
        assert (await api.get("/api/overview", headers={"Authorization": "Bearer " + "t" * 20})).status_code == 503


async def _waits(api, ident):
    return (await api.get(f"/paddock/api/instances/{ident}")).json()["status"] == "waiting"


def test_with_a_server_in_memory_and_a_client_that_does_not_await():
    with warnings.catch_warnings():  # the newest Starlette asks for another httpx
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient

    with TestClient(greeter(paddock.testing.server(register=httpflows.ALL))) as api:
        assert api.post("/orders", params={"name": "Ada"}).json() == "Hello, Ada!"
        body = {"input": 3}
        assert api.post("/paddock/api/workflows/chat/run", json=body).json()["output"] == 3


async def test_a_name_of_ones_own(tmp_path):
    server = made(tmp_path)
    app = server.asgi(allowed_hosts=["ops.example.com"])
    async with living(app._app):
        async with client(
            app, base_url="https://ops.example.com", headers={"Origin": "https://ops.example.com"}
        ) as api:
            await works_under(api, "")
        async with client(app, base_url="https://other.example.com") as api:
            assert (await api.get("/api/overview")).status_code == 403
