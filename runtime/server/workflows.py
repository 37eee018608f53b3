"""The workflows service: what users call to register, start, follow and steer workflows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from pydantic import BaseModel

from ..authoring.outline import describe
from ..base.config import WorkflowsConfig
from ..base.duration import DurationLike, parse_duration
from ..base.errors import (
    ConfigError,
    InstanceNotFound,
    InvalidInput,
    WorkflowBlocked,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTimedOut,
)
from ..base.ids import check_instance_id, new_id
from ..base.probes import reach
from ..base.records import TERMINAL, Instance, Status
from ..base.values import ANY, Schema
from ..engine.definition import WorkflowLike
from ..engine.executor import input_text
from ..engine.tracing import with_caller
from ..store.instances import NewInstance
from ..store.schedules import ScheduleRow
from .paging import instance_cursor, page_size, status_wanted
from .registry import Registered
from .scheduler import Schedule, first_tick
from .steering import Steering, WorkflowsParts, metadata_texts
from .streams import Stream

if TYPE_CHECKING:
    from ..authoring.flow import Flow
    from ..authoring.machine import StateMachine

__all__ = ["Workflows"]

T = TypeVar("T")
DataT = TypeVar("DataT", bound=BaseModel)

_ENDS = {
    Status.FAILED: WorkflowFailed,
    Status.CANCELLED: WorkflowCancelled,
    Status.TIMED_OUT: WorkflowTimedOut,
    Status.BLOCKED: WorkflowBlocked,
}
_DONE = TERMINAL | {Status.BLOCKED}
_PRIORITY_MOST = 2**31
_LONGEST_SCHEDULE = 100


class Workflows(Steering):
    """`server.workflows`."""

    def __init__(self, config: WorkflowsConfig, *, watched: bool | None) -> None:
        """Begin with no workflows; the server lends its parts when it starts. `watched`: see `Registry`."""
        super().__init__(config, watched=watched)

    def attach(self, parts: WorkflowsParts | None) -> None:
        """Lend the parts of a started server, or take them back."""
        self._parts = parts

    # --- registration ---

    def register(
        self,
        definition: WorkflowLike,
        *,
        module: str | None = None,
        max_concurrent: int | None = None,
        on_limit: Literal["queue", "reject"] = "queue",
        key: Callable[[Any], Any] | None = None,
        rate: str | None = None,
        memory_limit: int | str | None = None,
        cpu_limit: DurationLike | None = None,
        open_files: int | None = None,
        processes: int | None = None,
        env: Mapping[str, str | None] | Iterable[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        nice: int | None = None,
        python: str | os.PathLike[str] | None = None,
        from_plugin: bool = False,
    ) -> None:
        """Register a workflow; before or after `start`.

        Args:
            definition: what `workflow(…)…build()` returned, a flow, or a state class.
            module: where a child imports it from, when that is not the module that built it.
            max_concurrent: how many instances may run at once; 0 is unlimited, None leaves it to the configuration.
            on_limit: "queue" keeps instances pending, in order; "reject" makes `start` raise `ConcurrencyLimitReached`.
            key: a function of the input; the limit then counts for each key by itself.
            rate: how many instances may start in how long, such as "10/1min"; the others stay pending.
            memory_limit: bytes, or text such as "512MB", that an instance's process may hold with all that it has started. Who asks
                for more gets a `MemoryError`; what grows over it nevertheless is ended.
            cpu_limit: CPU time that each process of an instance may use, in whole seconds; one that has used it is ended.
            open_files: descriptors that each of its processes may have open.
            processes: processes and threads that an instance may have at once, beside Paddock's own few.
            env: names of the server's variables that its processes see ("AWS_*" is a pattern), or a dict of names and values, in
                which None passes the server's value on. `PATH`, `HOME`, `LANG` and the like are there in any case.
            cwd: the folder that its processes work in.
            nice: how much its processes yield to others, 0 to 19.
            python: another interpreter to run in, which can import this version of Paddock; its processes are spawned.
            from_plugin: registered by a plugin's `setup`, which does the same in every child.

        Raises:
            WorkflowAlreadyRegistered: the name is taken.
            WorkflowNotImportable: a child could not import the definition.
            ConfigError: an option cannot work.
            LimitNotEnforceable: this machine cannot keep one of the limits.
            InvalidWorkflow: values of one of its types would not come back from JSON; field and remedy are named.
        """
        self.registry.add(
            definition,
            module=module,
            max_concurrent=max_concurrent,
            on_limit=on_limit,
            from_plugin=from_plugin,
            key=key,
            rate=rate,
            limits={
                "memory_limit": memory_limit,
                "cpu_limit": cpu_limit,
                "open_files": open_files,
                "processes": processes,
                "env": env,
                "cwd": cwd,
                "nice": nice,
                "python": python,
            },
        )
        if self._parts is not None:
            self._parts.queued()

    def describe(self) -> list[dict[str, Any]]:
        """Return what there is to know of each workflow and action, by name, before it runs.

        Each has `name, style, description, tags, version, isolated, timeout, total_steps`, the JSON schemas `input, output, stream`
        (`{}` for plain JSON), and the `signals` that it is known to wait for.
        """
        self.registry.add_actions()
        return [describe(known.definition) for known in sorted(self.registry, key=lambda one: one.definition.name)]

    # --- starting ---

    async def start(
        self,
        name_or_definition: str | WorkflowLike,
        input: Any = None,
        *,
        id: str | None = None,
        delay: DurationLike | None = None,
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Queue an instance and return its id; the instance is durable once this returns.

        Args:
            name_or_definition: the name or the definition.
            input: anything with a JSON form that fits the workflow's schema. None stands for the default of the function's parameter, and
                for a model whose fields all have one.
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
        known = self.registry.get(name_or_definition)
        new = self._new(
            known,
            input,
            id,
            delay=delay,
            priority=priority,
            metadata={} if metadata is None else metadata,
            now=parts.clock.now(),
        )
        reach("server.start.before")
        storing = asyncio.ensure_future(parts.store.create(new, parts.clock.now()))
        admitted = new.wake_at is None and parts.admit()
        created = await storing
        reach("server.start.inserted")
        if created and not admitted:
            parts.queued()
        return new.id

    def _new(
        self,
        known: Registered,
        value: Any,
        ident: str | None,
        *,
        delay: DurationLike | None,
        priority: int,
        metadata: Mapping[str, Any],
        now: float,
    ) -> NewInstance:
        name = known.definition.name
        limit = self._config.max_payload
        text = input_text(known.definition, value, limit)
        return NewInstance(
            id=check_instance_id(ident) if ident is not None else new_id(),
            workflow_name=name,
            input=text,
            priority=_priority(priority),
            limit_key=known.key_of(text),
            wake_at=now + parse_duration(delay) if delay else None,
            metadata=metadata_texts(with_caller(metadata), limit),
            reject_at=known.limit if known.on_limit == "reject" and known.limit else None,
        )

    @overload
    async def run(
        self, name: Flow[..., Coroutine[Any, Any, T]], input: Any = None, *, timeout: DurationLike | None = None
    ) -> T: ...
    @overload
    async def run(self, name: Flow[..., T], input: Any = None, *, timeout: DurationLike | None = None) -> T: ...
    @overload
    async def run(
        self, name: type[StateMachine[DataT]], input: Any = None, *, timeout: DurationLike | None = None
    ) -> DataT: ...
    @overload
    async def run(self, name: str | WorkflowLike, input: Any = None, *, timeout: DurationLike | None = None) -> Any: ...
    async def run(self, name: str | WorkflowLike, input: Any = None, *, timeout: DurationLike | None = None) -> Any:
        """Start an instance and return its output.

        Raises:
            WorkflowFailed, WorkflowCancelled, WorkflowTimedOut, WorkflowBlocked: it ended otherwise, or cannot go on.
            TimeoutError: `timeout` passed; the instance goes on.
        """
        seconds = None if timeout is None else parse_duration(timeout)  # refused before anything is started
        return await self.result(await self.start(name, input), timeout=seconds)

    def stream(self, name: str | WorkflowLike, input: Any = None) -> Stream:
        """Start an instance and read its chunks: `async for chunk in s`, then `await s.result()`.

        The instance is started when the first chunk, the result or `await s.id()` is asked for.
        """
        return Stream(self, self._live().bus, lambda: self.start(name, input))

    def follow(self, id: str) -> Stream:
        """Read the chunks of an instance that was started before, from the first one on; any number of readers may."""
        return Stream(self, self._live().bus, lambda: _known(id))

    # --- waiting ---

    async def wait(self, id: str, *, timeout: DurationLike | None = None) -> Instance:
        """Return the instance once it has ended, or is blocked.

        Raises:
            InstanceNotFound: there is none.
            TimeoutError: `timeout` passed; the instance goes on.
        """
        parts = self._live()
        seconds = None if timeout is None else parse_duration(timeout)
        end = None if seconds is None else asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout(None) as limit:
                while True:
                    waiter = parts.bus.outcome_of(id)
                    try:
                        instance = await parts.store.get(id)
                        if instance is None:
                            raise InstanceNotFound(f"no instance has the id {id!r:.150}")
                        if instance.status in _DONE:
                            return instance
                        limit.reschedule(end)  # only now: what has ended is returned even where no time was given
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
        return await self._live().store.find(
            name=name, status=status_wanted(status), limit=page_size(limit), after=instance_cursor(after)
        )

    async def get_all_instances(
        self, status: Status | str | None = None, *, name: str | None = None, limit: int = 100, after: str | None = None
    ) -> list[Instance]:
        """Return instances of all workflows in the order of their ids."""
        return await self._live().store.find(
            name=name, status=status_wanted(status), limit=page_size(limit), after=instance_cursor(after)
        )

    # --- schedules ---

    async def schedule(
        self,
        name: str | WorkflowLike,
        cron: str | None = None,
        every: DurationLike | None = None,
        input: Any = None,
        id: str | None = None,
        *,
        tz: str = "UTC",
        catch_up: Literal["one", "all", "skip"] = "one",
    ) -> str:
        """Start instances by the clock, durably; return the schedule's id.

        Args:
            name: the name or the definition.
            cron: five fields (minute, hour, day, month, weekday), in the zone `tz`.
            every: the interval; the first instance starts one interval from now.
            input: the instances' input.
            id: the schedule's id, by default the workflow's name. An instance's id is `<id>@<UTC time of the tick>`.
            tz: an IANA time zone.
            catch_up: what becomes of ticks that passed while no server ran: "one" instance for all, "all" of them, or "skip".

        Raises:
            WorkflowNotFound, InvalidInput: the workflow or its input is wrong.
            ConfigError: the schedule cannot work, or its id is taken.
        """
        parts = self._live()
        known = self.registry.get(name)
        workflow = known.definition.name
        text = input_text(known.definition, input, self._config.max_payload)
        ident = check_instance_id(id if id is not None else workflow.replace(":", "."))
        if len(ident) > _LONGEST_SCHEDULE:
            raise ConfigError(f"schedule id {ident!r} is longer than {_LONGEST_SCHEDULE} characters")
        now = parts.clock.now()
        seconds, next_at = first_tick(cron, every, tz, catch_up, now)
        await parts.store.put_schedule(ScheduleRow(ident, workflow, cron, seconds, tz, catch_up, text, now, next_at))
        parts.queued()
        return ident

    async def unschedule(self, id: str) -> bool:
        """Delete a schedule; return whether it was there. Instances that it has started go on."""
        return await self._live().store.remove_schedule(id)

    async def get_schedules(self) -> list[Schedule]:
        """Return all schedules."""
        return [Schedule.of(row) for row in await self._live().store.schedules()]

    # --- life ---

    async def resume(self) -> None:
        """Go on with every unfinished instance; the server's start calls it unless `resume="skip"`."""
        await self._live().resume()

    async def stop(self) -> None:
        """Claim nothing more and stop what runs, resumable; the server's stop calls it."""
        if self._parts is not None:
            await self._parts.stop()


def _priority(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _PRIORITY_MOST:
        raise InvalidInput(f"priority must be a whole number up to {_PRIORITY_MOST:,}, not {value!r:.100}")
    return value


async def _known(ident: str) -> str:
    return ident
