"""The child's `core`: what plugins and handlers get of their process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from ..authoring.action import Action, as_action
from ..base.records import Event
from ..engine.definition import Definition, WorkflowLike, definition_of
from ..engine.logs import StepLogger
from ..store.sql_store import SqlStore
from ..store.window import Window

__all__ = ["ChildCore", "QuietEvents"]


class QuietEvents:
    """The event bus as a child has it: it takes subscriptions and delivers nothing, for the server's bus delivers everything once."""

    def __init__(self, store: SqlStore) -> None:
        """Read history from the store."""
        self._store = store

    def on(self, pattern: str, handler: Callable[[Event], Any]) -> Callable[[], None]:
        """Accept a subscription that only the server serves; return what would end it."""
        return lambda: None

    async def history(
        self,
        pattern: str = "*",
        *,
        instance_id: str | None = None,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        reverse: bool = False,
    ) -> list[Event]:
        """Return events from the store."""
        return await self._store.events(Window(after, limit, before, reverse), pattern=pattern, instance_id=instance_id)

    async def subscribe(self, pattern: str = "*", **_options: Any) -> AsyncIterator[Event]:
        """Deliver nothing; subscribe in the server."""
        for event in list[Event]():
            yield event


class ChildCore:
    """`core` in a child."""

    role = "child"

    def __init__(self, *, store: SqlStore, db: Any, config: dict[str, Any], logger: StepLogger) -> None:
        """Hold the parts; the plugins' connection opens at its first use."""
        self.config = config
        self.logger = logger
        self.events = QuietEvents(store)
        self.db = db
        self.definitions: dict[str, Definition] = {}

    def register(self, definition: WorkflowLike, **_options: Any) -> None:
        """Know a workflow that a plugin brings."""
        found: Definition = definition_of(definition)
        self.definitions[found.name] = found

    def schedule(self, name: str, function: Callable[[], Any], *, every: Any = None, cron: str | None = None) -> None:
        """Do nothing: schedules run in the server only."""

    def action(self, function: Callable[..., Any], *, name: str | None = None) -> Action[Any, Any]:
        """Know an action that a plugin brings."""
        made = as_action(function, name)
        self.register(made.__paddock_definition__)
        return made
