"""The server's `core`: what plugins and inline handlers get."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import datetime
from traceback import format_exc
from typing import Any

from cronsim import CronSim, CronSimError

from ..authoring.action import Action, as_action
from ..base.duration import DurationLike, parse_duration
from ..base.errors import ConfigError
from ..base.log import get_logger
from ..engine.definition import WorkflowLike
from ..engine.logs import StepLogger
from .bus import EventBus
from .workflows import Workflows

__all__ = ["ServerCore"]

_log = get_logger("paddock.schedule")


class ServerCore:
    """`core` in the server."""

    role = "server"

    def __init__(
        self,
        *,
        config: dict[str, Any],
        logger: StepLogger,
        events: EventBus,
        workflows: Workflows,
        db: Any,
    ) -> None:
        """Hold the parts; the plugins' connection opens at its first use."""
        self.config = config
        self.logger = logger
        self.events = events
        self.db = db
        self._workflows = workflows
        self._schedules: dict[str, asyncio.Task[None]] = {}

    def register(self, definition: WorkflowLike, **options: Any) -> None:
        """Register a workflow that a plugin brings; the plugin registers it again in every child."""
        self._workflows.register(definition, from_plugin=True, **options)

    def action(self, function: Callable[..., Any], *, name: str | None = None) -> Action[Any, Any]:
        """Register a function (or what `@action` made of it) as an action, here and in every child; return the action."""
        made = as_action(function, name)
        self._workflows.registry.add_plugin_action(made)
        return made

    def schedule(self, name: str, function: Callable[[], Any], *, every: Any = None, cron: str | None = None) -> None:
        """Run a function in the server, every so often or by a cron expression (server's local time), while it runs.

        A run that lasts longer than the interval delays the next; one that raises is logged.

        Raises:
            ConfigError: not exactly one of `every` and `cron`, one that cannot work, or a name used twice.
        """
        if (every is None) == (cron is None):
            raise ConfigError(f"schedule {name!r}: give exactly one of every= and cron=")
        if name in self._schedules:
            raise ConfigError(f"a schedule {name!r} is there already")
        if cron is not None:
            try:
                CronSim(cron, datetime.now())  # noqa: DTZ005  local time is what a cron line means
            except CronSimError as error:
                raise ConfigError(f"schedule {name!r}: {cron!r} is no cron expression: {error}") from None
        seconds = _interval(name, every) if every is not None else None
        self._schedules[name] = asyncio.create_task(
            self._tick(name, function, seconds, cron), name=f"paddock-schedule-{name}"
        )

    async def _tick(self, name: str, function: Callable[[], Any], seconds: float | None, cron: str | None) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if seconds is not None:
                due = max(due + seconds, loop.time())
                await asyncio.sleep(due - loop.time())
            else:
                now = datetime.now()  # noqa: DTZ005
                await asyncio.sleep((next(CronSim(cron or "", now)) - now).total_seconds())
            try:
                found = function()
                if inspect.isawaitable(found):
                    await found
            except Exception:  # noqa: BLE001  the next run may go well
                _log.error("a scheduled function failed", name=name, exception=format_exc())

    async def close(self) -> None:
        """End the schedules and close the plugins' connection."""
        tasks = list(self._schedules.values())
        self._schedules.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.db.close()


def _interval(name: str, every: DurationLike) -> float:
    try:
        seconds = parse_duration(every)
    except ConfigError as error:
        raise ConfigError(f"schedule {name!r}: every={error}") from None
    if seconds == 0:
        raise ConfigError(f"schedule {name!r}: every= must be more than 0")
    return seconds
