"""Plugins: their order, their configs, their secrets, setups that fail or hang, and what `core` offers them."""

import asyncio
import contextlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import contractflows as flows
import contractpluginflows as pluginflows
import contractplugins as plugins
import psutil
import pytest
from contractkit import MODES, UNWATCHED, became
from contractnotes import notes
from pydantic import BaseModel, SecretStr

from paddock import (
    AppServer,
    ConfigError,
    PaddockError,
    Plugin,
    PluginConfigError,
    PluginSetupError,
    WorkflowFailed,
    WorkflowsConfig,
)

modes = pytest.mark.parametrize("mode", ["inline", "fork"])
all_modes = pytest.mark.parametrize("mode", ["inline", "fork", "spawn"])
isolated = pytest.mark.parametrize("mode", ["fork", "spawn"])


def _server(tmp_path: Path, given: list, mode: str = "inline", **config) -> AppServer:
    return AppServer(
        tmp_path / "app.db", plugins=given, workflows=WorkflowsConfig(**MODES[mode], **config), watchdog=UNWATCHED
    )


# --- order and life ---------------------------------------------------------------------------------------------------


@modes
async def test_setup_goes_by_requires_and_teardown_in_reverse_in_server_and_child(tmp_path: Path, mode: str):
    config = plugins.LogConfig(log=str(tmp_path / "log"))
    server = _server(
        tmp_path, [plugins.Top(config), plugins.BadEnd(config), plugins.Middle(config), plugins.Base(config)], mode
    )
    server.workflows.register(pluginflows.names_flow)
    order = ["base", "middle-one", "top", "bad-end"]
    async with server:
        assert notes(tmp_path / "log") == [f"server setup {name}" for name in order]
        assert await server.workflows.run("plugin-names", timeout=30) == order
        assert [plugin.name for plugin in server.plugins] == order
        assert server.plugins.middle_one is server.plugins["middle-one"]
        assert "top" in server.plugins
        assert "bottom" not in server.plugins
        assert len(server.plugins) == 4
        with pytest.raises(AttributeError, match=r"bottom.*base"):
            _ = server.plugins.bottom
        lines = notes(tmp_path / "log")[4:]
        if mode != "inline":
            await became(lambda: len(notes(tmp_path / "log")) == 12)
            lines = notes(tmp_path / "log")[4:]
            assert lines == [f"child setup {n}" for n in order] + [f"child teardown {n}" for n in reversed(order)]
        else:
            assert lines == []
    assert notes(tmp_path / "log")[-4:] == [f"server teardown {n}" for n in reversed(order)]


def test_plugins_that_cannot_be_ordered_are_refused_at_once(tmp_path: Path):
    config = plugins.LogConfig(log="x")

    class Circle(Plugin[None]):
        name = "circle"
        requires = ("square",)

    class Square(Plugin[None]):
        name = "square"
        requires = ("circle",)

    for given, words in (
        ([plugins.Middle(config)], ["middle-one", "base"]),
        ([plugins.Base(config), plugins.Base(config)], ["base"]),
        ([Circle(), Square()], ["circle", "square"]),
        ([plugins.Nameless()], ["Nameless", "name"]),
        ([plugins.Uninitialised()], ["uninitialised", "super"]),
        ([object()], ["object"]),
        (["no.such.module:Thing"], ["no.such.module:Thing"]),
        (["contractplugins:Missing"], ["contractplugins:Missing"]),
        (["contractplugins:note"], ["contractplugins:note"]),
        (["not-an-entry-point"], ["not-an-entry-point"]),
    ):
        with pytest.raises(ConfigError) as caught:
            AppServer(tmp_path / "app.db", plugins=given)
        assert all(word in str(caught.value) for word in words), caught.value
    assert list(tmp_path.iterdir()) == []


async def test_plugins_by_import_path_and_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "site"
    info = site / "somebodys_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paddock.plugins]\ntabular = contractplugins:Tables\n")
    monkeypatch.syspath_prepend(str(site))
    server = _server(tmp_path, ["tabular", "contractplugins:Defaulted"], "fork")
    server.workflows.register(pluginflows.names_flow)
    async with server:
        assert await server.workflows.run("plugin-names", timeout=30) == ["tables", "defaulted"]
        assert isinstance(server.plugins.tables, plugins.Tables)


async def test_a_server_may_be_started_again_with_all_that_its_plugins_bring(tmp_path: Path):
    bringer = plugins.Bringer({"word": "again", "log": str(tmp_path / "log")})
    server = _server(tmp_path, [bringer], "fork")
    for _ in range(2):
        async with server:
            assert await server.workflows.run("brought", 1, timeout=30) == [1, "again", "child"]


# --- configs ----------------------------------------------------------------------------------------------------------


@all_modes
async def test_a_config_reaches_the_child_as_it_is(tmp_path: Path, mode: str):
    given = [
        plugins.Plain(plugins.PlainConfig(3, timedelta(seconds=1.5))),
        plugins.Mapped({"a": [1, None, "ü"], "b": {"c": True}}),
        plugins.Loose(plugins.AnyConfig(value=[1, {"x": 2.5}])),
        plugins.Defaulted(),
        plugins.Base(plugins.LogConfig(log=os.devnull, every=timedelta(days=1))),
    ]
    server = _server(tmp_path, given, mode)
    server.workflows.register(pluginflows.configs_flow)
    async with server:
        found = await server.workflows.run("configs", timeout=30)
    assert found == {plugin.name: repr(plugin.config) for plugin in given}


@pytest.mark.parametrize(
    "value", [object(), (1, 2), {1, 2}, datetime(2024, 1, 1, tzinfo=UTC), float("nan"), {1: "a"}, b"\xff"]
)
async def test_a_config_that_would_change_on_its_way_is_refused_at_start(tmp_path: Path, value):
    for plugin in (plugins.Loose(plugins.AnyConfig(value=value)), plugins.Mapped({"good": 1, "value": value})):
        server = _server(tmp_path, [plugin])
        with pytest.raises(PluginConfigError) as caught:
            await server.start()
        assert plugin.name in str(caught.value)
        assert "'value'" in str(caught.value)
        assert "'good'" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(PluginConfigError, match=r"base.*log"):
        AppServer(tmp_path / "app.db", plugins=[plugins.Base()])


async def test_a_plugin_that_a_child_cannot_import_is_refused_at_start(tmp_path: Path):
    class Local(Plugin[None]):
        name = "local"

    class Elsewhere(Plugin[None]):
        name = "elsewhere"

    Elsewhere.__qualname__ = "Elsewhere"
    Elsewhere.__module__ = "a_module_that_nobody_finds"
    for plugin in (Local(), Elsewhere()):
        with pytest.raises(PluginConfigError, match=plugin.name):
            await _server(tmp_path, [plugin], "fork").start()


# --- setups that fail -------------------------------------------------------------------------------------------------


async def test_a_setup_that_fails_in_the_server_makes_start_raise_and_leaves_nothing(tmp_path: Path):
    config = plugins.LogConfig(log=str(tmp_path / "log"))
    for plugin, word in (
        (plugins.Failing(plugins.WhereConfig(where="server")), "no way through"),
        (plugins.Hanging(plugins.WhereConfig(where="server")), "ready_timeout"),
    ):
        server = _server(tmp_path, [plugins.Base(config), plugin], ready_timeout="100ms")
        with pytest.raises(PluginSetupError, match=rf"{plugin.name}.*{word}") as caught:
            await server.start()
        assert caught.value.plugin == plugin.name
        assert (await server.health())["ok"] is False
        assert await server.processes() == []
    assert notes(tmp_path / "log") == ["server setup base", "server teardown base"] * 2
    assert {p.name for p in tmp_path.iterdir()} <= {"app.db", "log"}
    async with _server(tmp_path, []):
        pass


@pytest.mark.parametrize("mode", ["fork"])
async def test_a_setup_that_fails_only_in_the_child_fails_the_instance(tmp_path: Path, mode: str):
    config = plugins.LogConfig(log=str(tmp_path / "log"))
    server = _server(tmp_path, [plugins.Base(config), plugins.Failing(plugins.WhereConfig(where="child"))], mode)
    server.workflows.register(pluginflows.names_flow)
    async with server:
        with pytest.raises(WorkflowFailed) as caught:
            await server.workflows.run("plugin-names", timeout=30)
        error = caught.value.error
        assert error.type == "PluginSetupError"
        assert "failing" in error.message
        assert "no way through" in error.message
        assert "ConnectionError" in error.traceback
        assert error.step is None
        assert (await server.workflows.get_instance(caught.value.instance_id)).status == "failed"
        await became(lambda: notes(tmp_path / "log")[1:] == ["child setup base", "child teardown base"])


@pytest.mark.parametrize("kind", [plugins.Hanging, plugins.Blocking])
async def test_a_setup_that_outruns_ready_timeout_in_the_child_fails_the_instance(tmp_path: Path, kind):
    server = _server(tmp_path, [kind(plugins.WhereConfig(where="child"))], "fork", ready_timeout="300ms")
    server.workflows.register(pluginflows.names_flow)
    async with server:
        with pytest.raises(WorkflowFailed) as caught:
            await server.workflows.run("plugin-names", timeout=30)
        error = caught.value.error
        assert error.type == "PluginSetupError"
        assert kind.name in error.message
        assert "ready_timeout" in error.message


@pytest.mark.parametrize("kind", [plugins.HangingEnd, plugins.BlockingEnd])
async def test_a_teardown_that_never_ends_in_the_child_holds_no_process(tmp_path: Path, kind):
    config = plugins.LogConfig(log=str(tmp_path / "log"))
    server = _server(tmp_path, [plugins.Base(config), kind(config)], "fork", kill_grace="1s")
    server.workflows.register(pluginflows.names_flow)
    async with server:
        assert await server.workflows.run("plugin-names", timeout=30) == ["base", kind.name]

        async def gone():
            return not [process for process in await server.processes() if process["role"] == "child"]

        await became(gone)
        if kind is plugins.HangingEnd:
            assert notes(tmp_path / "log")[-1] == "child teardown base", "the others have their turn"


# --- secrets ----------------------------------------------------------------------------------------------------------


def _in_the_open(secret: bytes, places: list[Path]) -> list[str]:
    """Return where a secret can be read: command lines, environments, files."""
    found = []
    for process in psutil.process_iter():
        for name in ("cmdline", "environ"):
            try:
                if secret in Path(f"/proc/{process.pid}/{name}").read_bytes():
                    found.append(f"{name} of {process.pid}")
            except OSError:
                continue
    for place in places:
        for folder, _, files in os.walk(place):  # which passes over what goes meanwhile, as a rehearsal's folder does
            for path in (os.path.join(folder, name) for name in files):
                with contextlib.suppress(OSError):
                    found += [path] if secret in Path(path).read_bytes() else []
    return found


@isolated
async def test_a_secret_reaches_the_child_and_appears_nowhere_else(tmp_path: Path, mode: str, capfd):
    secret, second = "s3cr3t-of-the-vault", "an0ther-of-them"
    config = plugins.VaultConfig(key=SecretStr(secret), inner={"a": SecretStr(second)})
    server = AppServer(
        tmp_path / "app.db",
        plugins=[plugins.Vault(config)],
        run_dir=tmp_path / "run",
        workflows=WorkflowsConfig(**MODES[mode]),
    )
    server.workflows.register(pluginflows.vault_flow)
    async with server:
        given = {"began": str(tmp_path / "began"), "gate": str(tmp_path / "gate")}
        ident = await server.workflows.start("vault", given)
        await became((tmp_path / "began").exists)
        for text in (secret, second):
            # app.db is the store's own: reading it here would drop this process's locks
            assert _in_the_open(text.encode(), [tmp_path / "run"]) == []
        (tmp_path / "gate").touch()
        assert await server.workflows.result(ident, timeout=30) == server.plugins.vault.digest()
        shown = [repr(await server.workflows.get_instance(ident)), repr(await server.events.history(limit=1000))]
        shown.append(repr(await server.logs.query(limit=1000)))
        assert "**********" in shown[2]
    said = capfd.readouterr()
    for text in (secret, second):
        assert text not in "".join([*shown, said.out, said.err])
        assert _in_the_open(text.encode(), [tmp_path]) == []


async def test_errors_about_a_plugin_with_secrets_do_not_tell_them(tmp_path: Path, capfd):
    secret = SecretStr("s3cr3t-of-the-vault")
    with pytest.raises(PluginConfigError) as refused:
        await _server(tmp_path, [plugins.Vault(plugins.VaultConfig(key=secret, extra=object()))]).start()
    server = _server(tmp_path, [plugins.Vault(plugins.VaultConfig(key=secret, fail=True))], "fork")
    server.workflows.register(pluginflows.vault_flow)
    async with server:
        with pytest.raises(WorkflowFailed) as failed:
            await server.workflows.run("vault", timeout=30)
        shown = repr(await server.logs.query()) + repr(await server.events.history())
    said = capfd.readouterr()
    assert "cannot open" in failed.value.error.message
    for text in (str(refused.value), repr(failed.value.error), str(failed.value), shown, said.out, said.err):
        assert "s3cr3t" not in text


# --- core -------------------------------------------------------------------------------------------------------------


@modes
async def test_core_db_is_shared_between_server_and_children(tmp_path: Path, mode: str):
    server = _server(tmp_path, [plugins.Tables()], mode)
    server.workflows.register(pluginflows.rows_flow)
    async with server:
        await server.plugins.tables.add("server")
        pid, seen = await server.workflows.run("rows", "child", timeout=30)
        assert seen[0] == ["server", os.getpid()]
        assert sorted(seen[1:]) == sorted([[f"child{n}", pid] for n in ("", 0, 1, 2)])
        assert [list(row) for row in await server.plugins.tables.rows()] == seen
        # the plugin's writers and the workflows' take turns
        work = [server.workflows.run("rows", f"w{n}-", timeout=30) for n in range(3)]
        await asyncio.gather(*work, *(server.plugins.tables.add(f"s{n}") for n in range(20)))
        assert len(await server.plugins.tables.rows()) == 5 + 3 * 4 + 20


@modes
async def test_an_open_transaction_of_a_plugin_holds_up_no_workflow_for_ever(tmp_path: Path, mode: str):
    server = _server(tmp_path, [plugins.Tables()], mode)
    server.workflows.register(pluginflows.open_transaction)
    async with server:
        assert await server.workflows.run("open-transaction", "row", timeout=60) == "ROW"
        assert [row[0] for row in await server.plugins.tables.rows()] == ["row"]


async def test_core_schedule_runs_in_the_server_only(tmp_path: Path):
    log = tmp_path / "log"
    server = _server(tmp_path, [plugins.Clockwork(plugins.LogConfig(log=str(log)))], "fork")
    server.workflows.register(flows.echo_flow)
    async with server:
        await server.workflows.run("echo", 1, timeout=30)
        await became(lambda: len(notes(log)) > 10)
        lines = set(notes(log))
    assert lines == {f"async server {os.getpid()}", f"sync server {os.getpid()}"}
    assert not [task for task in asyncio.all_tasks() if "schedule" in task.get_name()]


async def test_core_schedule_by_cron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "log"

    class LateInTheMinute(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2024, 2, 29, 23, 59, 59, 950_000)

    monkeypatch.setattr("paddock.runtime.server.core.datetime", LateInTheMinute)
    async with _server(tmp_path, [plugins.Cron(plugins.LogConfig(log=str(log)))]):
        await became(lambda: notes(log))


@pytest.mark.parametrize(
    "calls",
    [
        [{}],
        [{"every": 1, "cron": "* * * * *"}],
        [{"every": "soon"}],
        [{"every": 0}],
        [{"cron": "never"}],
        [{"cron": "61 * * * *"}],
        [{"every": 5}, {"every": 5}],
    ],
)
async def test_a_schedule_that_cannot_work_is_refused(tmp_path: Path, calls):
    with pytest.raises(PluginSetupError, match=r"bad-schedule") as caught:
        await _server(tmp_path, [plugins.BadSchedule({"calls": calls})]).start()
    assert "nightly" in str(caught.value)


@modes
async def test_a_workflow_and_a_subscription_brought_by_a_plugin(tmp_path: Path, mode: str):
    log = tmp_path / "log"
    server = _server(tmp_path, [plugins.Bringer({"word": "w", "log": str(log)})], mode)
    async with server:
        expected = "server" if mode == "inline" else "child"
        assert await server.workflows.run("brought", {"a": 1}, timeout=30) == [{"a": 1}, "w", expected]
        await became(lambda: notes(log))
        assert notes(log) == ["heard by server"]


def test_plugin_errors_are_paddocks():
    assert issubclass(PluginSetupError, PaddockError)
    assert issubclass(PluginConfigError, PaddockError)
    assert issubclass(plugins.StampConfig, BaseModel)
