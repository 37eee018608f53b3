"""What each child is told: the server's settings and its claim, as a spec."""

from __future__ import annotations

from typing import Any

from ..base.errors import ConfigError, PluginConfigError
from ..base.tasks_group import group_of, groups_folder
from ..child.main_module import importable
from ..child.spec import ChildSpec, Needs, PluginText
from ..engine.plugin_spec import describe_plugin
from ..engine.plugins import Plugin
from ..store.admission import Claim
from .rundir import RunDirectory
from .settings import ServerSettings

__all__ = ["Orders"]

_BEAT_LONGEST = 0.5


class Orders:
    """Write the specs of a server's children."""

    def __init__(self, server: ServerSettings) -> None:
        """Describe the plugins.

        Raises:
            PluginConfigError: a plugin's config would not reach a child unchanged.
        """
        self._server = server
        isolated = server.workflows_config.launcher != "inline"
        self._plugins = tuple(_travelling(plugin, isolated=isolated) for plugin in server.plugin_list)

    def modules(self) -> list[str]:
        """Return the modules that children need: the store's, those of the workflows, and those of the plugins."""
        database = self._server.database
        modules = [type(database).__module__, *database.preload, *self._server.workflows.registry.modules()]
        for text in self._plugins:
            modules += [text.module, *(text.config_type or ())[:1]]
        return list(dict.fromkeys(modules))

    def needs(self, run_dir: RunDirectory) -> Needs | None:
        """Return what all children need, whatever their claims are; None where none could open the database, and each will be told so."""
        server = self._server
        try:
            address = server.database.address
        except ConfigError:
            return None
        return Needs(
            database=address,
            pragmas=server.workflows_config.sqlite_pragmas,
            beats_path=run_dir.beats_path,
        )

    def spec(self, claim: Claim, slot: int, run_dir: RunDirectory, address: str) -> ChildSpec:
        """Return what the child of a claim is told."""
        server, settings = self._server, self._server.workflows_config
        limits, group = server.workflows.registry.limits_of(claim.workflow_name, claim.parent), None
        if limits.processes is not None and (folder := groups_folder()) is not None:
            group = group_of(folder, run_dir.beats_path, claim.lease.instance, claim.lease.epoch)
        return ChildSpec(
            database=server.database.address,
            pragmas=settings.sqlite_pragmas,
            instance=claim.lease.instance,
            epoch=claim.lease.epoch,
            instance_id=claim.id,
            definition=server.workflows.registry.get(claim.workflow_name).path,
            plugins=self._plugins,
            config=server.config,
            address=address,
            token=run_dir.token,
            transport=settings.transport,
            run_dir=run_dir.path,
            slot=slot,
            beat_interval=min(_BEAT_LONGEST, server.watchdog_config.interval / 2),
            ready_timeout=settings.ready_timeout,
            kill_grace=settings.kill_grace,
            orphan_grace=settings.orphan_grace,
            suspend_after=settings.suspend_after,
            max_payload=settings.max_payload,
            max_output=settings.max_output,
            limits=limits,
            tasks_group=group,
        )


def _travelling(plugin: Plugin[Any], *, isolated: bool) -> PluginText:
    spec = describe_plugin(plugin)
    for module in (spec.module, *(spec.config_type or ())[:1]):
        if isolated and not importable(module):
            raise PluginConfigError(
                f"plugin {plugin.name!r}: nothing leads a child process to its module {module!r}; put its folder on sys.path"
            )
    try:
        secret = spec.config.get_secret_value() if spec.config is not None else None
        return PluginText(
            module=spec.module, qualname=spec.qualname, name=spec.name, config_type=spec.config_type, config=secret
        )
    except ValueError as error:
        raise PluginConfigError(f"plugin {plugin.name!r}: {error}") from None
