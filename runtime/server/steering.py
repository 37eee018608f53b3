"""Steering: what people do to instances from outside. A part of the workflows service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..authoring.machine import MachineDefinition
from ..authoring.machine_data import merge_data
from ..authoring.machine_host import UPDATES
from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.duration import DurationLike, parse_duration
from ..base.errors import (
    InstanceNotFound,
    InvalidInput,
    InvalidSignal,
    InvalidState,
    InvalidTransition,
    ServerNotRunning,
)
from ..base.ids import check_instance_id, check_key, new_id
from ..base.probes import reach
from ..base.records import TERMINAL, Instance, Status
from ..base.values import ANY
from ..engine.executor import input_text
from ..engine.inbox import check_signal
from ..store.ops import Lease
from ..store.sql_store import SqlStore
from .bus import EventBus
from .paging import status_wanted
from .registry import Registry

__all__ = ["Steering", "WorkflowsParts", "metadata_texts"]

_PAGE = 500


@dataclass(frozen=True, slots=True)
class WorkflowsParts:
    """What the service works with once the server has started."""

    store: SqlStore
    clock: Clock
    bus: EventBus
    admit: Callable[[], bool]
    queued: Callable[[], None]
    end: Callable[[Lease, str], Awaitable[None]]
    nudge: Callable[[Lease], None]
    drain: Callable[[Lease, str], None]
    resume: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


class Steering:
    """The part of `server.workflows` that changes instances from outside."""

    def __init__(self, config: WorkflowsConfig, *, watched: bool | None) -> None:
        """Hold the configuration; the server lends its parts when it starts."""
        self._config = config
        self.registry = Registry(config, watched=watched)
        self._parts: WorkflowsParts | None = None
        self._cancels: set[asyncio.Task[bool]] = set()

    def _live(self) -> WorkflowsParts:
        if self._parts is None:
            raise ServerNotRunning("the server is not started; use `async with server:` or `await server.start()`")
        return self._parts

    # --- signals ---

    async def signal(self, id: str, name: str, payload: Any = None) -> None:
        """Answer a wait (`ctx.wait_event`, `ctx.interrupt`); durable once this returns.

        A signal that comes before its wait is kept for it; signals of one name are taken in their order.

        Raises:
            InstanceNotFound: there is no such instance.
            InvalidSignal: the instance has ended, or the payload does not fit what the open wait accepts; nothing was kept.
            NotSerializable, PayloadTooLarge: the payload cannot be stored.
        """
        parts = self._live()
        try:
            check_key(name, "a signal's name")
        except InvalidInput as error:
            raise InvalidSignal(str(error)) from None
        if name == UPDATES:
            raise InvalidSignal(
                f"the signal {name!r} is the runtime's own; use update_state(id, {{…}}), which checks the changes"
            )
        text = ANY.encode(payload, f"signal {name!r}", self._config.max_payload)
        for wait in (await parts.store.awaited(id, name))[:1]:
            check_signal(name, wait.schema, text)
        lease = await parts.store.put_signal(id, name, text, parts.clock.now())
        reach("server.signalled")
        parts.queued()
        if lease is not None:
            parts.nudge(lease)

    async def update_state(self, id: str, changes: Mapping[str, Any]) -> None:
        """Change a state machine's data from outside: top-level keys, validated by its model; durable once this returns.

        The machine takes the change at its next transition, or when its state's current wait or action is over.

        Raises:
            InstanceNotFound: there is no such instance.
            InvalidState: it is no state machine, has ended, or a value does not fit; the field is named.
        """
        parts = self._live()
        instance = await parts.store.get(id)
        if instance is None:
            raise InstanceNotFound(f"no instance has the id {id!r:.150}")
        check_update(self.registry, instance, dict(changes))
        text = ANY.encode(dict(changes), "the update", self._config.max_payload)
        lease = await parts.store.put_signal(id, UPDATES, text, parts.clock.now())
        if lease is not None:
            parts.nudge(lease)

    # --- ending and going on ---

    async def cancel(self, id: str) -> bool:
        """Cancel an instance in whatever state it is; return True only if this call made it cancelled.

        The status is durable at once; the process and everything that it started is gone when this returns: it is asked to stop, then
        sent SIGTERM after `kill_grace`, then SIGKILL.

        Raises:
            InstanceNotFound: there is none.
        """
        self._live()
        task = asyncio.create_task(self._cancel(id), name=f"paddock-cancel-{id}")
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)
        return await asyncio.shield(task)  # the caller may go away between the commit and the process's end

    async def _cancel(self, id: str) -> bool:
        parts = self._live()
        done, leases = await parts.store.end(id, Status.CANCELLED, parts.clock.now())
        reach("server.cancelled")
        if done:
            parts.bus.poke()
            parts.queued()
        await asyncio.gather(*(parts.end(lease, "cancelled") for lease in leases))
        return done

    async def update_metadata(self, id: str, metadata: Mapping[str, Any]) -> None:
        """Merge keys into an instance's metadata; keys that are not named stay.

        Raises:
            InstanceNotFound: there is none.
            InvalidInput: a key is no text, or a value has no JSON form.
        """
        await self._live().store.merge_metadata(id, metadata_texts(metadata, self._config.max_payload))

    async def cleanup(self, id: str) -> None:
        """Delete a finished instance with its steps, events and logs.

        Raises:
            InstanceNotFound: there is none.
            InvalidTransition: it has not ended.
        """
        parts = self._live()
        while (lease := await parts.store.remove(id)) is not None:
            await parts.end(
                lease, "its instance is deleted"
            )  # its process is about to exit anyway: the row is its slot
            await asyncio.sleep(0)
        parts.bus.deleted(id)

    async def retry(self, id: str) -> None:
        """Run a failed instance on from its failed step, or try a blocked one again.

        The step has all its tries again. Their numbers (`ctx.attempt`) go on from the last one, and its idempotency key is the same:
        what an earlier try has done to the outside is still done. Where the step waited for an instance that this one has started and
        that failed, that one is retried with it.

        Raises:
            InstanceNotFound: there is none.
            InvalidTransition: it has not failed, and is not blocked.
        """
        parts = self._live()
        await parts.store.reopen(id, parts.clock.now())
        parts.bus.poke()
        parts.queued()

    async def fork(self, id: str, from_step: str | None = None, input: Any = ..., *, new_id: str | None = None) -> str:
        """Start a new instance that shares an instance's journal before a step; return the new id.

        Args:
            id: the instance to fork.
            from_step: the key or the name of the first step to run again; from the beginning without it.
            input: another input; by default the same.
            new_id: an id of your own for the new instance.

        Raises:
            InstanceNotFound: there is none.
            InvalidTransition: it never came to that step.
            InstanceIdConflict: there is an instance of the new id.
            InvalidInput: the input does not fit the workflow.
        """
        parts = self._live()
        text = None if input is ... else await self._fork_input(id, input)
        made = check_instance_id(new_id) if new_id is not None else _new_id()
        await parts.store.fork(id, made, from_step, text, parts.clock.now())
        parts.queued()
        return made

    async def _fork_input(self, id: str, input: Any) -> str:
        instance = await self._live().store.get(id)
        limit = self._config.max_payload
        if instance is not None and instance.workflow_name in self.registry:
            return input_text(self.registry.get(instance.workflow_name).definition, input, limit)
        return ANY.encode(input, "the input", limit)

    async def pause(self, id: str) -> None:
        """Hold an instance: at once where it does not run, a running one at its next step's boundary.

        Raises:
            InstanceNotFound: there is none.
            InvalidTransition: it has ended.
        """
        parts = self._live()
        lease = await parts.store.pause(id, parts.clock.now())
        parts.bus.poke()
        if lease is not None:
            parts.drain(lease, "it is to be paused")

    async def unpause(self, id: str) -> None:
        """Release a paused instance.

        Raises:
            InstanceNotFound: there is none.
            InvalidTransition: it is not paused.
        """
        parts = self._live()
        await parts.store.unpause(id, parts.clock.now())
        parts.queued()

    # --- many at once ---

    async def _matching(self, name: str | None, status: Status | str | None, wanted: frozenset[Status]) -> list[str]:
        """Return the ids of instances of a workflow and a status that the call concerns at all."""
        found: list[str] = []
        chosen = status_wanted(status)
        for one in [chosen] if chosen is not None else sorted(wanted):
            after: str | None = None
            while page := await self._live().store.ids(name=name, status=one, limit=_PAGE, after=after):
                found += page
                after = page[-1]
        return found

    async def cancel_all(self, *, name: str | None = None, status: Status | str | None = None) -> int:
        """Cancel unfinished instances of a workflow, of a status, or all; return how many this call cancelled."""
        ids = await self._matching(name, status, frozenset(Status) - TERMINAL)
        done = await asyncio.gather(*(self.cancel(ident) for ident in ids))
        return sum(done)

    async def retry_all(self, *, name: str | None = None) -> int:
        """Retry all failed instances, or those of one workflow; return how many."""
        done = 0
        for ident in await self._matching(name, Status.FAILED, frozenset()):
            with contextlib.suppress(InvalidTransition, InstanceNotFound):  # retried with its parent, or gone meanwhile
                await self.retry(ident)
                done += 1
        return done

    async def cleanup_all(
        self, *, name: str | None = None, status: Status | str | None = None, older_than: DurationLike = 0
    ) -> int:
        """Delete finished instances that ended longer ago than `older_than`; return how many.

        Raises:
            InvalidTransition: `status` is not one in which an instance has ended.
        """
        chosen = status_wanted(status)
        if chosen is not None and chosen not in TERMINAL:
            raise InvalidTransition(f"only instances that have ended can be cleaned up, not {chosen.value} ones")
        parts = self._live()
        before = parts.clock.now() - parse_duration(older_than)
        statuses = [chosen] if chosen is not None else sorted(TERMINAL)
        removed = await parts.store.remove_matching(name, statuses, before)
        if removed:
            parts.bus.deleted()
        return removed


_new_id = new_id


def metadata_texts(values: Mapping[str, Any], limit: int) -> tuple[tuple[str, str], ...]:
    """Return metadata as it is stored.

    Raises:
        InvalidInput: it is no mapping, or a key is no text.
        NotSerializable, PayloadTooLarge: a value cannot be stored; its key is named.
    """
    if not isinstance(values, Mapping):
        raise InvalidInput(f"metadata must be a mapping of text to JSON, not {type(values).__name__}")
    return tuple(
        (check_key(key, "a metadata key"), ANY.encode(value, f"metadata {key!r}", limit))
        for key, value in values.items()
    )


def check_update(registry: Registry, instance: Instance, changes: dict[str, Any]) -> None:
    """Refuse an update of a state machine's data that its model would refuse now.

    Raises:
        InvalidState: see `Steering.update_state`.
    """
    definition = registry.get(instance.workflow_name).definition
    if not isinstance(definition, MachineDefinition):
        raise InvalidState(f"workflow {instance.workflow_name!r} is no state machine; it has no data to update")
    if instance.status in TERMINAL:
        raise InvalidState(f"instance {instance.id} has ended as {instance.status.value}; its data is final")
    visits = [step for step in instance.step_results.values() if step.kind == "state" and step.output]
    data = visits[-1].output["data"] if visits else instance.input
    merge_data(definition.machine, definition.machine.data_type.model_validate(data or {}), changes)
