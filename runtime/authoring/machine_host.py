"""A state machine on a server: each visit of a state is a durable step around the steps that it asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..base.errors import InvalidState
from ..base.values import ANY, Schema, plain_json
from ..engine.context import Frame
from ..engine.failure import recorded_failure
from ..engine.inbox import wait_event
from ..engine.waits import sleep
from ..store.journal import StepRow
from ..store.ops import SignalTaken
from .flow_context import FlowContext
from .machine_data import change_data, next_state
from .steps_done import StepsDone

if TYPE_CHECKING:
    from .machine import StateMachine

__all__ = ["UPDATES", "run_machine"]

#: The name under which outside updates of a machine's data are kept as signals.
UPDATES = "paddock.update_state"


async def run_machine(kind: type[StateMachine[Any]], frame: Frame) -> Any:
    """Run an instance of a state class and return its final data."""
    execution = frame.execution
    data = Schema(kind.data_type)
    machine = kind(execution.replay.decode_input(data, f"the input of workflow {kind.name!r}"))
    frame.input = machine.data
    name: str | None = kind.start
    while name is not None:
        key = execution.key("", name)
        row = await execution.open(key, name, "state")
        if row.status == "failed":
            raise recorded_failure(row)
        if row.status == "completed":
            held = plain_json(row.output or "{}")
            for inner in list(execution.journal.steps):
                if inner.startswith(f"{key}/"):
                    execution.replay.reach(inner)
            machine.data = execution.replay.decode(data, json.dumps(held["data"]), f"the data after state {key!r}", key)
            name = held["next"]
            if name is not None and name not in kind.states:
                execution.replay.block(
                    key,
                    f"state {key!r} has gone on to {name!r}, which is no state of {kind.name!r} any more; bring it back",
                )
            continue
        machine.state = name
        host = _VisitHost(machine, replace(frame, scope=f"{key}/", key=key, steps=StepsDone()))
        machine._host = host  # noqa: SLF001  the machine is ours
        name = await _visit(machine, name, host, row)
    return machine.data


async def _visit(machine: StateMachine[Any], name: str, host: _VisitHost, row: StepRow) -> str | None:
    """Run one visit; its data and its successor are its output."""
    execution = host.execution
    try:
        await host.take_updates("enter")
        following = next_state(type(machine), await getattr(machine, name)())
        what = f"the data after state {name!r}"
        data = Schema(machine.data_type)
        held = data.encode(machine.data, what, execution.max_payload)
        record = {"next": following, "data": plain_json(held)}
        text = ANY.encode(record, what, execution.max_payload)
        settled = data.decode(held, what)
    except Exception as error:
        row.failures += 1
        broken = execution.writer.broken
        if broken is not None:
            raise broken from error
        await execution.fail(row, error)
    execution.complete(row, text)
    machine.data = settled
    return following


class _VisitHost:
    """What one visit of a state asks for, journaled under the visit's key."""

    def __init__(self, machine: StateMachine[Any], frame: Frame) -> None:
        self._machine = machine
        self._context = FlowContext(frame)
        self._frame = frame
        self.execution = frame.execution

    async def action(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        value = await self._context.step(name, function, *args, **options)
        await self.take_updates(name)
        return value

    async def wait_event(self, name: str, schema: Schema, timeout: float | None) -> Any:
        key = self.execution.key(self._frame.scope, name)
        value = await wait_event(self.execution, key, name, name, schema, timeout)
        await self.take_updates(name)
        return value

    async def sleep(self, name: str, seconds: float) -> None:
        key = self.execution.key(self._frame.scope, name)
        await sleep(self.execution, key, name, seconds)
        await self.take_updates(name)

    def log(self, message: str, data: dict[str, Any], *, level: str = "info") -> None:
        if not self.execution.replaying:
            getattr(self._frame.logger, level)(message, **data)

    async def take_updates(self, place: str) -> None:
        """Take outside updates that have come; which came where is journaled, so a replay applies them at the same places."""
        execution = self.execution
        key = execution.key(self._frame.scope, f"{place}:update")
        row = execution.recall(key, "update")
        if row is None:
            if execution.replaying:
                return
            patches = []
            while (kept := await execution.writer.store.next_signal(execution.writer.lease, UPDATES)) is not None:
                if kept.id in execution.signals_taken:  # by an action beside this one; its commit is under way
                    await execution.writer.flush()
                    continue
                execution.signals_taken.add(kept.id)
                patches.append(plain_json(kept.payload))
                execution.writer.add(SignalTaken(kept.id, key))
                row = StepRow(key, "update", "update", "new", attempts=1)
                execution.complete(row, json.dumps(patches), begin=True, quiet=True)  # one commit with the taking
                await execution.writer.flush()
            if row is None:
                return
        for patch in plain_json(row.output or "[]"):
            try:
                change_data(type(self._machine), self._machine.data, patch)
            except InvalidState as error:  # it fitted the data that were known when it was accepted
                self.log(f"an update from outside was dropped: {error}", {}, level="warning")
