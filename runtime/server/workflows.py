"""The workflows service: what users call to register, start, follow and steer workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.duration import DurationLike, parse_duration
from ..base.errors import (
    ConfigError,
    InstanceNotFound,
    InvalidInput,
    ServerNotRunning,
    WorkflowBlocked,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTimedOut,
)
from ..base.ids import check_instance_id, new_id
from ..base.probes import reach
from ..base.records import TERMINAL, Instance, Status
from ..base.values import ANY, Schema
from ..engine.definition import Definition
from ..engine.executor import check_input
from ..store.instances import NewInstance
from ..store.ops import Lease
from ..store.sqlite import SqliteStore
from .bus import EventBus
from .registry import Registered, Registry

__all__ = ["Workflows", "WorkflowsParts"]

_ENDS = {
    Status.FAILED: WorkflowFailed,
    Status.CANCELLED: WorkflowCancelled,
    Status.TIMED_OUT: WorkflowTimedOut,
    Status.BLOCKED: WorkflowBlocked,
}
_DONE = TERMINAL | {Status.BLOCKED}


@dataclass(frozen=True, slots=True)
class WorkflowsParts:
    """What the service works with once the server has started."""

    store: SqliteStore
    clock: Clock
    bus: EventBus
    queued: Callable[[], None]
    end: Callable[[Lease, str], Awaitable[None]]
    resume: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


class Workflows:
    """`server.workflows`."""

    def __init__(self, config: WorkflowsConfig) -> None:
        """Begin with no workflows; the server lends its parts when it starts."""
        self._config = config
        self.registry = Registry(config)
        self._parts: WorkflowsParts | None = None

    def attach(self, parts: WorkflowsParts | None) -> None:
        """Lend the parts of a started server, or take them back."""
        self._parts = parts

    def _live(self) -> WorkflowsParts:
        if self._parts is None:
            raise ServerNotRunning("the server is not started; use `async with server:` or `await server.start()`")
        return self._parts

    # --- registration ---

    def register(
        self,
        definition: Definition,
        *,
        module: str | None = None,
        max_concurrent: int | None = None,
        on_limit: Literal["queue", "reject"] = "queue",
        from_plugin: bool = False,
    ) -> None:
        """Register a workflow; before or after `start`.

        Args:
            definition: what `workflow(…)…build()` returned.
            module: where a child imports it from, when that is not the module that built it.
            max_concurrent: how many instances may run at once; 0 is unlimited, None leaves it to the configuration.
            on_limit: "queue" keeps instances pending, in order; "reject" makes `start` raise `ConcurrencyLimitReached`.
            from_plugin: registered by a plugin's `setup`, which does the same in every child.

        Raises:
            WorkflowAlreadyRegistered: the name is taken.
            WorkflowNotImportable: a child could not import the definition.
        """
        self.registry.add(
            definition, module=module, max_concurrent=max_concurrent, on_limit=on_limit, from_plugin=from_plugin
        )
        if self._parts is not None:
            self._parts.queued()

    # --- starting ---

    async def start(
        self,
        workflow: str | Definition,
        input: Any = None,
        *,
        id: str | None = None,
        delay: DurationLike | None = None,
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Queue an instance and return its id; the instance is durable once this returns.

        Args:
            workflow: the name or the definition.
            input: anything with a JSON form that fits the workflow's schema.
            id: an id of the caller's own; starting it again with the same input starts nothing and returns it.
            delay: how long the instance stays pending first.
            priority: a higher one runs first.
            metadata: the instance's first metadata.

        Raises:
            WorkflowNotFound, InvalidInput, NotSerializable, PayloadTooLarge, InvalidInstanceId, InstanceIdConflict: the call was wrong.
            ConcurrencyLimitReached: the workflow is at its limit and rejects.
            DatabaseUnavailable: nothing was stored.
        """
        parts = self._live()
        known = self.registry.get(workflow)
        new = self._new(known, input, id, delay, priority, metadata or {}, parts.clock.now())
        created = await parts.store.create(new, parts.clock.now())
        reach("server.start.inserted")
        if created:
            parts.queued()
        return new.id

    def _new(
        self,
        known: Registered,
        value: Any,
        ident: str | None,
        delay: DurationLike | None,
        priority: int,
        metadata: Mapping[str, Any],
        now: float,
    ) -> NewInstance:
        name = known.definition.name
        if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > 2**31:
            raise InvalidInput(f"priority must be a whole number, not {priority!r}")
        limit = self._config.max_payload
        text = ANY.encode(value, f"the input of workflow {name!r}", limit)
        check_input(known.definition, text)
        if not all(isinstance(key, str) and key for key in metadata):
            raise InvalidInput("metadata keys must be text")
        return NewInstance(
            id=check_instance_id(ident) if ident is not None else new_id(),
            workflow_name=name,
            input=text,
            priority=priority,
            wake_at=now + parse_duration(delay) if delay else None,
            metadata=tuple((key, ANY.encode(item, f"metadata {key!r}", limit)) for key, item in metadata.items()),
            reject_at=known.limit if known.on_limit == "reject" and known.limit else None,
        )

    async def run(self, workflow: str | Definition, input: Any = None, *, timeout: DurationLike | None = None) -> Any:
        """Start an instance and return its output.

        Raises:
            WorkflowFailed, WorkflowCancelled, WorkflowTimedOut, WorkflowBlocked: it ended otherwise, or cannot go on.
            TimeoutError: `timeout` passed; the instance goes on.
        """
        return await self.result(await self.start(workflow, input), timeout=timeout)

    # --- waiting ---

    async def wait(self, id: str, *, timeout: DurationLike | None = None) -> Instance:
        """Return the instance once it has ended, or is blocked.

        Raises:
            InstanceNotFound: there is none.
            TimeoutError: `timeout` passed; the instance goes on.
        """
        parts = self._live()
        try:
            async with asyncio.timeout(None if timeout is None else parse_duration(timeout)):
                while True:
                    waiter = parts.bus.outcome_of(id)
                    try:
                        instance = await parts.store.get(id)
                        if instance is None:
                            raise InstanceNotFound(f"no instance has the id {id!r:.150}")
                        if instance.status in _DONE:
                            return instance
                        await waiter
                    finally:
                        parts.bus.forget(id, waiter)
        except TimeoutError:
            raise TimeoutError(f"instance {id} has not ended within {timeout}; it goes on") from None

    async def result(self, id: str, *, timeout: DurationLike | None = None) -> Any:
        """Return the output of an instance once it has completed; the type is what the workflow's last step names.

        Raises:
            InstanceNotFound: there is none.
            WorkflowFailed, WorkflowCancelled, WorkflowTimedOut, WorkflowBlocked: it ended otherwise, or cannot go on.
            TimeoutError: `timeout` passed; the instance goes on.
        """
        instance = await self.wait(id, timeout=timeout)
        if instance.status is Status.COMPLETED:
            return self._typed_output(instance)
        raise _ENDS[instance.status](instance.id, instance.workflow_name, instance.error)

    def _typed_output(self, instance: Instance) -> Any:
        if instance.workflow_name not in self.registry:
            return instance.output
        schema: Schema | None = getattr(self.registry.get(instance.workflow_name).definition, "output_schema", None)
        if schema is None or not schema.typed:
            return instance.output
        return schema.decode(ANY.encode(instance.output, "the output"), f"the output of instance {instance.id}")

    # --- reading ---

    async def get_instance(self, id: str) -> Instance | None:
        """Return an instance with its steps and metadata, or None."""
        return await self._live().store.get(id)

    async def get_instances(
        self, name: str, status: Status | str | None = None, *, limit: int = 100, after: str | None = None
    ) -> list[Instance]:
        """Return instances of one workflow in the order of their ids; `after` is the last id of the page before."""
        return await self._live().store.find(name=name, status=_status(status), limit=limit, after=after)

    async def get_all_instances(
        self, status: Status | str | None = None, *, name: str | None = None, limit: int = 100, after: str | None = None
    ) -> list[Instance]:
        """Return instances of all workflows in the order of their ids."""
        return await self._live().store.find(name=name, status=_status(status), limit=limit, after=after)

    # --- steering ---

    async def cancel(self, id: str) -> bool:
        """Cancel an instance in whatever state it is; return True only if this call made it cancelled.

        The status is durable at once; the process and everything that it started is gone when this returns: it is asked to stop, then
        sent SIGTERM after `kill_grace`, then SIGKILL.

        Raises:
            InstanceNotFound: there is none.
        """
        parts = self._live()
        done, lease = await parts.store.end(id, Status.CANCELLED, parts.clock.now())
        if done:
            parts.bus.poke()
        if lease is not None and done:
            await parts.end(lease, "cancelled")
        return done

    async def update_metadata(self, id: str, metadata: Mapping[str, Any]) -> None:
        """Merge keys into an instance's metadata; keys that are not named stay.

        Raises:
            InstanceNotFound: there is none.
            InvalidInput: a key is no text, or a value has no JSON form.
        """
        if not all(isinstance(key, str) and key for key in metadata):
            raise InvalidInput("metadata keys must be text")
        limit = self._config.max_payload
        values = [(key, ANY.encode(item, f"metadata {key!r}", limit)) for key, item in metadata.items()]
        await self._live().store.merge_metadata(id, values)

    async def cleanup(self, id: str) -> None:
        """Delete a finished instance with its steps, events and logs.

        Raises:
            InstanceNotFound: there is none.
            InvalidTransition: it has not ended.
        """
        await self._live().store.remove(id)

    async def resume(self) -> None:
        """Go on with every unfinished instance; the server's start calls it unless `resume="skip"`."""
        await self._live().resume()

    async def stop(self) -> None:
        """Claim nothing more and stop what runs, resumable; the server's stop calls it."""
        if self._parts is not None:
            await self._parts.stop()


def _status(value: Status | str | None) -> Status | None:
    try:
        return None if value is None else Status(value)
    except ValueError:
        raise ConfigError(f"no status {value!r}; there are {', '.join(Status)}") from None
