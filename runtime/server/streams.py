"""A stream: one instance's chunks, in order, from the first one on, for one of any number of readers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..base.records import TERMINAL, Event
from ..base.values import ANY
from .bus import EventBus

if TYPE_CHECKING:
    from .workflows import Workflows

__all__ = ["Stream"]

_ENDS = frozenset({"workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.timed_out"})


class Stream:
    """The chunks of an instance: `async for chunk in s`, then `await s.result()`."""

    def __init__(self, workflows: Workflows, bus: EventBus, start: Callable[[], Awaitable[str]]) -> None:
        """Hold what starts the instance; nothing is started yet."""
        self._workflows = workflows
        self._bus = bus
        self._start = start
        self._id: str | None = None

    async def id(self) -> str:
        """Return the instance's id, starting it at the first call."""
        if self._id is None:
            self._id = await self._start()
        return self._id

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Go through the chunks until the instance ends or is blocked."""
        ident = await self.id()
        async for event in self._bus.subscribe("workflow.*", instance_id=ident, after=0):
            if event.name == "workflow.stream":
                yield self._typed(event)
            elif _may_end(event) and await self._over(ident):
                return

    def _typed(self, event: Event) -> Any:
        """Return a chunk as the type that its flow names, plain JSON where it names none."""
        registry, name, chunk = self._workflows.registry, event.workflow_name, event.data["chunk"]
        schema = getattr(registry.get(name).definition, "chunk_schema", ANY) if name in registry else ANY
        return schema.decode(ANY.encode(chunk, "a chunk"), f"a chunk of {name!r}") if schema.typed else chunk

    async def _over(self, ident: str) -> bool:
        """Tell whether the end that was read is the last word: a retry opens an instance again."""
        instance = await self._workflows.get_instance(ident)
        return instance is None or instance.status in TERMINAL or instance.status == "blocked"

    async def result(self, *, timeout: Any = None) -> Any:
        """Return the instance's output; raises like `server.workflows.result`."""
        return await self._workflows.result(await self.id(), timeout=timeout)


def _may_end(event: Event) -> bool:
    return event.name in _ENDS or (event.name == "workflow.suspended" and event.data.get("status") == "blocked")
