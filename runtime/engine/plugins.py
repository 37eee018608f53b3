"""Plugins: user code with a configuration, set up in the server and again in every child."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from ..base.errors import ConfigError, InvalidWorkflow, PluginConfigError, PluginSetupError
from ..base.ids import check_workflow_name
from ..base.values import describe_validation

if TYPE_CHECKING:
    import aiosqlite

    from .definition import Definition
    from .logs import StepLogger

__all__ = [
    "Core",
    "Plugin",
    "Plugins",
    "order_plugins",
    "resolve_plugins",
    "set_up",
    "tear_down",
]

ConfigT = TypeVar("ConfigT")


class Core(Protocol):
    """What a plugin and a handler get of the process they run in.

    Attributes:
        role: "server" or "child".
        config: the server's `config`.
        logger: a structlog logger.
        events: the event bus; in a child it takes subscriptions and delivers nothing, for the server's delivers it all.
    """

    role: str
    config: dict[str, Any]
    logger: StepLogger
    events: Any

    @property
    def db(self) -> aiosqlite.Connection:
        """Return this process's own connection to the database, for the plugin's own tables."""
        ...

    def register(self, definition: Definition, **options: Any) -> None:
        """Register a workflow, in the server and in every child."""
        ...

    def schedule(self, name: str, function: Callable[[], Any], *, every: Any = None, cron: str | None = None) -> None:
        """Run a function now and then, in the server only; give exactly one of `every` and `cron`."""
        ...

    def action(self, function: Callable[..., Any], *, name: str | None = None) -> Callable[..., Any]:
        """Register an action under its name."""
        ...


class Plugin(Generic[ConfigT]):
    """Base class of plugins.

    A subclass sets `name` and, where it needs others to be set up first, `requires`. A child rebuilds it from its module path and its
    config, so the class must be importable and the config must survive the round trip through JSON (secrets travel by value on the
    private channel and appear nowhere else).
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ConfigT | None = None) -> None:
        """Hold the config; without one, a declared config class with defaults is made."""
        declared = _declared_config(type(self))
        held: object = config
        if config is None and inspect.isclass(declared) and issubclass(declared, BaseModel):
            try:
                held = declared()
            except ValidationError as error:
                raise PluginConfigError(
                    f"plugin {_name_of(self)!r} needs a {declared.__name__}: {describe_validation(error)}"
                ) from None
        self.config = cast("ConfigT", held)

    async def setup(self, core: Core) -> None:
        """Get ready; runs in the server and again in every child, in the order of `requires`."""

    async def teardown(self) -> None:
        """Let go; runs in reverse order."""


class Plugins:
    """The plugins of one process, by attribute: `plugins.reports` (a dash in a name is an underscore here)."""

    def __init__(self, plugins: Sequence[Plugin[Any]] = ()) -> None:
        """Hold plugins in their order."""
        self._plugins = {plugin.name: plugin for plugin in plugins}

    def __getattr__(self, name: str) -> Any:
        """Return a plugin by its name."""
        held = self.__dict__.get("_plugins", {})
        for candidate in (name, name.replace("_", "-")):
            if candidate in held:
                return held[candidate]
        raise AttributeError(f"no plugin {name!r}; there are: {', '.join(held) or 'none'}")

    def __getitem__(self, name: str) -> Any:
        """Return a plugin by its name."""
        return self._plugins[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a plugin of this name."""
        return name in self._plugins

    def __iter__(self) -> Iterator[Plugin[Any]]:
        """Go through the plugins in the order of their setup."""
        return iter(self._plugins.values())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._plugins)

    def of(self, kind: type[Plugin[Any]]) -> Plugin[Any]:
        """Return the plugin of a class.

        Raises:
            ConfigError: there is none.
        """
        for plugin in self._plugins.values():
            if isinstance(plugin, kind):
                return plugin
        raise ConfigError(f"no plugin of class {kind.__name__}; pass one to AppServer(plugins=[…])")


def _name_of(plugin: Plugin[Any]) -> str:
    return getattr(plugin, "name", type(plugin).__name__)


def _declared_config(kind: type) -> Any:
    for base in inspect.getmro(kind):
        for parent in getattr(base, "__orig_bases__", ()):
            arguments = get_args(parent)
            if (
                arguments
                and not isinstance(arguments[0], TypeVar)
                and getattr(parent, "__origin__", None) is not Generic
            ):
                return arguments[0]
    return None


def resolve_plugins(plugins: Sequence[Plugin[Any] | str]) -> list[Plugin[Any]]:
    """Return plugin objects; text is an import path ("package.module:Class") or a name in the entry-point group `paddock.plugins`.

    Raises:
        ConfigError: one cannot be found, is no plugin, or has no usable name.
    """
    return [_resolve(plugin) for plugin in plugins]


def _resolve(plugin: Plugin[Any] | str) -> Plugin[Any]:
    found: Any = plugin
    if isinstance(plugin, str):
        if ":" in plugin:
            module, _, attribute = plugin.partition(":")
            try:
                found = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise ConfigError(f"plugin {plugin!r} cannot be imported: {error}") from None
        else:
            points = {point.name: point for point in entry_points(group="paddock.plugins")}
            if plugin not in points:
                raise ConfigError(
                    f"no plugin {plugin!r} among the entry points of paddock.plugins ({', '.join(points) or 'none'})"
                )
            found = points[plugin].load()
    if inspect.isclass(found) and issubclass(found, Plugin):
        found = found()
    if not isinstance(found, Plugin):
        raise ConfigError(f"{plugin!r} is no plugin: make it a subclass of paddock.Plugin")
    _check_name(found)
    if not hasattr(found, "config"):
        raise ConfigError(f"plugin {found.name!r}: its __init__ must call super().__init__(config)")
    return found


def _check_name(plugin: Plugin[Any]) -> None:
    try:
        check_workflow_name(getattr(plugin, "name", None))
    except InvalidWorkflow:
        raise ConfigError(
            f"plugin {type(plugin).__qualname__} has no usable name: set `name` to 1 to 128 letters, digits, or . _ : -"
        ) from None


def order_plugins(plugins: Sequence[Plugin[Any]]) -> list[Plugin[Any]]:
    """Return plugins so that each comes after what it requires, else in the order given.

    Raises:
        ConfigError: two share a name, one requires what is not there, or they require each other in a circle.
    """
    by_name: dict[str, Plugin[Any]] = {}
    for plugin in plugins:
        if plugin.name in by_name:
            raise ConfigError(f"two plugins are called {plugin.name!r}")
        by_name[plugin.name] = plugin
    ordered: list[Plugin[Any]] = []
    states: dict[str, bool] = {}

    def visit(plugin: Plugin[Any], path: tuple[str, ...]) -> None:
        if states.get(plugin.name):
            return
        if plugin.name in path:
            raise ConfigError(f"plugins require each other in a circle: {' → '.join([*path, plugin.name])}")
        for needed in plugin.requires:
            if needed not in by_name:
                raise ConfigError(
                    f"plugin {plugin.name!r} requires {needed!r}, which is not there; there are: {', '.join(by_name)}"
                )
            visit(by_name[needed], (*path, plugin.name))
        states[plugin.name] = True
        ordered.append(plugin)

    for plugin in plugins:
        visit(plugin, ())
    return ordered


async def set_up(
    plugins: Sequence[Plugin[Any]], core: Core, timeout: float, entering: Callable[[str], None] = lambda _name: None
) -> None:
    """Set plugins up one after the other; on failure tear down those that were, in reverse.

    Args:
        plugins: in their order.
        core: what they get.
        timeout: seconds for all of them together.
        entering: told each name before its setup.

    Raises:
        PluginSetupError: one failed or outran the time; it is named.
    """
    done: list[Plugin[Any]] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    for plugin in plugins:
        entering(plugin.name)
        try:
            async with asyncio.timeout_at(end):
                await _maybe(plugin.setup(core))
        except BaseException as error:
            await tear_down(done)
            if isinstance(error, TimeoutError) and loop.time() >= end:
                raise PluginSetupError(
                    plugin.name, f"its setup took longer than ready_timeout ({timeout:g}s)"
                ) from None
            if not isinstance(error, Exception):
                raise
            raise PluginSetupError(plugin.name, f"its setup failed: {type(error).__name__}: {error}") from error
        done.append(plugin)


async def tear_down(
    plugins: Sequence[Plugin[Any]],
    report: Callable[[str, Exception], None] = lambda _name, _error: None,
    timeout: float | None = None,
) -> None:
    """Tear plugins down in reverse order; one that fails, or takes longer than `timeout` seconds, is reported and stops nobody else."""
    for plugin in reversed(plugins):
        try:
            await _within(timeout, _maybe(plugin.teardown()))
        except Exception as error:  # noqa: BLE001  each plugin gets its turn
            report(plugin.name, error)


async def _within(timeout: float | None, work: Coroutine[Any, Any, None]) -> None:
    """Await work for so many seconds; what takes longer is cancelled and left behind, whether it lets itself be cancelled or not."""
    if timeout is None:
        await work
        return
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=timeout)
    if not task.done():
        task.cancel()
        raise TimeoutError(f"its teardown took longer than {timeout:g}s")
    task.result()


async def _maybe(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        await result
