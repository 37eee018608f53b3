"""Stores of one's own: how they are found, and that the promises tell a good one from a bad one."""

import itertools
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pgkit import emptied
from tenantstore import Forgetful, Tenant

from paddock import AppServer, ConfigError, WorkflowsConfig, workflow
from paddock.runtime.store import schemes
from paddock.stores import Database, MemoryDatabase, SqliteDatabase, database_of
from paddock.testing import exercise_store


@pytest.mark.parametrize("kind", ["sqlite", "memory", "postgres", "own"])
async def test_every_store_keeps_its_promises(kind, tmp_path, request, monkeypatch):
    numbers = itertools.count()
    monkeypatch.setenv("TENANTS", str(tmp_path))
    url = request.getfixturevalue("kept_schema") if kind == "postgres" else ""

    def make() -> Database:
        if kind == "postgres":
            emptied(url)
            return database_of(url)
        names = {
            "sqlite": f"{tmp_path}/{next(numbers)}.db",
            "memory": "memory://",
            "own": f"tenantstore:Tenant://t{next(numbers)}",
        }
        return database_of(names[kind])

    kept = await exercise_store(make)
    assert len(kept) == 16
    assert "a limit is never passed and the order holds" in kept


async def test_a_store_that_forgets_is_found_out(tmp_path):
    numbers = itertools.count()
    with pytest.raises(AssertionError, match="breaks the promise 'events come once and in order'"):
        await exercise_store(lambda: Forgetful(f"{tmp_path}/{next(numbers)}.db"))


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("app.db", "{}/app.db"), (Path("app.db"), "{}/app.db"), ("sqlite://app.db", "{}/app.db"), ("sqlite:///srv/a.db", "/srv/a.db"),
        ("./x:y.db", "{}/x:y.db"), ("SQLITE://a.db", "{}/a.db"),
    ],
)  # fmt: skip
def test_what_names_a_file(given, path, tmp_path):
    found = database_of(given)
    assert type(found) is SqliteDatabase
    assert found.name == found.address == path.format(tmp_path)


def test_what_names_one_in_memory():
    assert {type(database_of(text)) for text in ("memory://", ":memory:")} == {MemoryDatabase}
    assert database_of("memory://").identity != database_of("memory://").identity
    with pytest.raises(ConfigError, match='launcher="inline"'):
        AppServer("memory://")


async def test_a_server_in_memory_runs_inline(tmp_path):
    async with AppServer("memory://", workflows=WorkflowsConfig(launcher="inline")) as server:
        server.workflows.register(workflow("hello").task("greet", lambda: "hello").build())
        assert await server.workflows.run("hello") == "hello"
        assert (await server.health())["ok"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("launcher", ["inline", "fork"])
async def test_a_store_that_no_child_could_import_does_for_inline_work(tmp_path, launcher):
    class Own(SqliteDatabase):
        """Of this function, and of no module."""

    hello = workflow("hello").isolated(False).task("greet", lambda: "hello").build()
    async with AppServer(Own(tmp_path / "own.db"), workflows=WorkflowsConfig(launcher=launcher)) as server:
        server.workflows.register(hello)
        assert await server.workflows.run(hello) == "hello"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "mysql://user:geheim@host/x",
            "the scheme 'mysql', which no store here has; there are memory, postgresql, sqlite",
        ),
        ("nowhere.at.all:Store://x", "'nowhere.at.all:Store' cannot be imported"),
        ("tenantstore:Nobody://x", "cannot be imported"),
        ("tenantstore:emptied_name://x", "no class that builds on paddock.stores.Database"),
        ("sqlite://", "names no file"),
    ],
)
def test_what_nobody_knows_is_refused(url, words):
    with pytest.raises(ConfigError) as caught:
        database_of(url)
    assert words in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_what_is_neither_path_nor_url():
    with pytest.raises(ConfigError, match="not int"):
        database_of(7)


def test_a_missing_library_names_the_command_that_brings_it(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("paddock.runtime.store.postgres.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r'pip install "paddock\[postgres\]"'):
        AppServer("postgresql://host/db")


def test_a_store_of_a_package_is_found_by_its_scheme(monkeypatch, tmp_path):
    monkeypatch.setenv("TENANTS", str(tmp_path))
    points = [
        EntryPoint("tenant", "tenantstore:Tenant", schemes.GROUP),
        EntryPoint("gone", "no.such:Thing", schemes.GROUP),
    ]
    monkeypatch.setattr(schemes, "entry_points", lambda group: points)
    found = database_of("tenant://acme")
    assert type(found) is Tenant
    assert found.address == "tenantstore:Tenant://acme"  # the child needs no entry point
    assert database_of(found.address).identity == found.identity
    with pytest.raises(ConfigError, match="'gone' of no.such:Thing cannot be imported"):
        database_of("gone://x")


def test_a_store_that_no_child_could_import_is_refused():
    class Local(SqliteDatabase):
        pass

    with pytest.raises(ConfigError, match="put it into a module"):
        _ = Local("app.db").address
