"""Waiting for what comes from outside: signals, and the end of other instances.

A wait is a row from its beginning, with its deadline and with a description of what it accepts, so that a signal can be refused at the
door. A signal is kept until a wait takes it; taking it and the wait's end are one commit.
"""

from __future__ import annotations

import builtins
import inspect
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..base.errors import (
    InstanceIdConflict,
    InvalidInput,
    InvalidSignal,
    StepFailed,
    WaitTimeout,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowTimedOut,
)
from ..base.ids import new_id
from ..base.records import TERMINAL, ErrorInfo, Status
from ..base.values import Schema, plain_json, unfit
from ..store.journal import StepRow
from ..store.ops import ChildStarted, Logged, SignalTaken, StepBegun, StepWaiting
from ..store.signals import ChildOutcome
from .execution import Execution
from .failure import recorded_failure
from .tracing import carried

__all__ = [
    "ChildCall",
    "check_signal",
    "describe_schema",
    "run_child_workflow",
    "start_child",
    "wait_event",
    "wait_for_child",
]

_ENDS = {Status.FAILED: WorkflowFailed, Status.CANCELLED: WorkflowCancelled, Status.TIMED_OUT: WorkflowTimedOut}


def describe_schema(schema: Schema) -> str | None:
    """Return what a wait's row says of the payloads that it accepts: the type's import path where it has one, and its JSON schema."""
    if not schema.typed:
        return None
    kind = schema.annotation
    path = (
        f"{kind.__module__}:{kind.__qualname__}"
        if inspect.isclass(kind) and "<locals>" not in kind.__qualname__
        else None
    )
    return json.dumps({"type": path, "schema": schema.json_schema()})


def check_signal(name: str, description: str | None, payload: str) -> None:
    """Refuse a payload that an open wait would not take.

    The type itself judges where this process has its module, else its JSON schema.

    Raises:
        InvalidSignal: it does not fit; the message says what would.
    """
    if description is None:
        return
    import jsonschema  # only the server asks, and only now and then: children need not carry it

    wanted = json.loads(description)
    kind = _loaded(wanted["type"])
    try:
        if kind is not None:
            TypeAdapter(kind).validate_json(payload)
        else:
            jsonschema.validate(plain_json(payload), wanted["schema"])
    except ValidationError as error:
        raise unfit(InvalidSignal, f"signal {name!r} does not fit {kind.__name__}", error) from None
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path))
        refused = InvalidSignal(
            f"signal {name!r} does not fit what is awaited: {where + ': ' if where else ''}{error.message}"
        )
        refused.fields = ((where, error.message),)
        raise refused from None


def _loaded(path: str | None) -> Any:
    if path is None:
        return None
    module, _, name = path.partition(":")
    if module == "builtins":
        return getattr(builtins, name, None)
    found: Any = sys.modules.get("__main__" if module == "__paddock_main__" else module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if inspect.isclass(found) else None


async def wait_event(
    execution: Execution,
    key: str,
    name: str,
    event: str,
    schema: Schema,
    timeout: float | None,
    *,
    kind: str = "wait_event",
) -> Any:
    """Wait for a signal called `event` and return its payload, as `schema` has it.

    Raises:
        WaitTimeout: `timeout` seconds passed; the same on every replay.
        InterruptError: the instance suspends until the signal comes.
    """
    row = execution.recall(key, kind)
    if row is not None:
        await execution.replay.in_order(row)
    if row is not None and row.status == "completed":
        return execution.recorded(row, schema)
    if row is not None and row.status == "failed":
        raise recorded_failure(row)
    if row is None:
        await execution.replay.arrive(key)
        wake_at = None if timeout is None else execution.clock.now() + timeout
        row = StepRow(key, name, kind, "waiting", attempts=1, wake_at=wake_at, event_name=event)
        execution.journal.steps[key] = row
        execution.writer.add(StepWaiting(key, name, kind, wake_at, event_name=event, schema=describe_schema(schema)))
    else:
        await execution.replay.resume()
    while True:
        await execution.writer.flush()
        kept = await execution.writer.store.next_signal(execution.writer.lease, event)
        if kept is not None and kept.id in execution.signals_taken:
            continue  # by another wait beside this one; its commit is under way
        if kept is not None:
            execution.signals_taken.add(kept.id)
            execution.writer.add(SignalTaken(kept.id, key))
            try:
                value = schema.decode(kept.payload, f"signal {event!r}")
            except InvalidInput as error:
                _warn(execution, f"a kept signal does not fit and was dropped: {error}", name)
                continue
            execution.complete(row, kept.payload)
            return value
        if row.wake_at is not None and execution.clock.now() >= row.wake_at:
            await execution.fail(row, WaitTimeout(f"no signal {event!r} came for step {key!r} in time"))
        await execution.suspension.park(row.wake_at, look=True)


def _warn(execution: Execution, message: str, step: str) -> None:
    execution.writer.add(Logged(30, "warning", message, {}, step, None, "runtime", execution.clock.now()))


@dataclass(frozen=True, slots=True)
class ChildCall:
    """An instance to be started from within another; `input` gives its JSON text, asked for only where it is not started yet.

    `metadata` is its first metadata: keys, and values as JSON texts.
    """

    workflow_name: str
    input: Callable[[], Awaitable[str]]
    id: str | None = None
    delay: float | None = None
    priority: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()


async def start_child(execution: Execution, key: str, name: str, call: ChildCall) -> str:
    """Start another instance and return its id, the same at every replay: the start and its record are one commit.

    Raises:
        StepFailed: its id belongs to another workflow or input (`InstanceIdConflict`), or there is no such workflow
            (`WorkflowNotFound`), as far as this process knows.
    """
    row = execution.recall(key, "start")
    if row is not None and row.status == "completed":
        return str(plain_json(row.output or '""'))
    if row is not None and row.status == "failed":
        raise recorded_failure(row)
    await execution.replay.arrive(key)
    row = StepRow(key, name, "start", "new", attempts=1, failures=1)
    try:
        ident = await _start(execution, key, call)
    except (InstanceIdConflict, WorkflowNotFound) as error:
        execution.journal.steps[key] = row
        execution.writer.add(StepBegun(key, name, "start", 1))
        await execution.fail(row, error)
    execution.complete(row, json.dumps(ident), begin=True)
    await execution.writer.flush()
    execution.queued()
    return ident


async def _start(execution: Execution, key: str, call: ChildCall) -> str:
    ident = call.id or new_id()
    text = await call.input()
    if not execution.knows(call.workflow_name):
        raise WorkflowNotFound(
            f"no workflow {call.workflow_name!r} is registered; register it beside the one that starts it"
        )
    if call.id is not None:
        await _check_id(execution, ident, call.workflow_name, text)
    priority = execution.journal.priority if call.priority is None else call.priority
    wake_at = execution.clock.now() + call.delay if call.delay else None
    execution.writer.add(
        ChildStarted(ident, call.workflow_name, text, key, priority, wake_at, metadata=_with_trace(call.metadata))
    )
    return ident


def _with_trace(metadata: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Let the started instance belong to the trace of the one that starts it."""
    given = {key for key, _ in metadata}
    return (*metadata, *((key, json.dumps(text)) for key, text in carried().items() if key not in given))


async def _check_id(execution: Execution, ident: str, workflow_name: str, text: str) -> None:
    """Refuse an id that belongs to another start: in the commit itself a conflict could only end the process."""
    await execution.writer.flush()  # a start beside this one may be what took it
    found = await execution.writer.store.started_as(ident)
    if found is not None and (found[0] != workflow_name or plain_json(found[1]) != plain_json(text)):
        raise InstanceIdConflict(
            f"instance {ident} exists already, with another {'workflow' if found[0] != workflow_name else 'input'}; "
            "use another id, or the same workflow and input"
        )


async def run_child_workflow(
    execution: Execution,
    key: str,
    name: str,
    kind: str,
    call: ChildCall,
    output: Schema,
    *,
    transform: Callable[[Any], Any] | None = None,
) -> Any:
    """Start another instance and wait for its output, as one step; `transform` makes the step's output of the instance's.

    Raises:
        StepFailed: it ended otherwise. Where it ran an action, the failure is the action's own.
        InterruptError: the instance suspends until then.
    """
    row = execution.recall(key, kind)
    if row is not None:
        await execution.replay.in_order(row)
    if row is not None and row.status == "completed":
        return execution.recorded(row, output)
    if row is not None and row.status == "failed":
        raise recorded_failure(row)
    if row is None:
        row = await _begin_child(execution, StepRow(key, name, kind, "waiting", attempts=1, failures=1), call)
    else:
        await execution.replay.resume()
    child_id = row.child_id or ""
    found = await _end_of(execution, row, child_id)
    execution.chunks.look_again()
    if found.status is not Status.COMPLETED:
        await execution.fail(row, _own_failure(row, found) or _ended_badly(child_id, found))
    return await _take_output(execution, row, found.output or "null", output, transform)


async def _begin_child(execution: Execution, row: StepRow, call: ChildCall) -> StepRow:
    """Start the other instance; returns once that, and the wait for it, are committed."""
    await execution.replay.arrive(row.key)
    execution.journal.steps[row.key] = row
    try:
        row.child_id = await _start(execution, row.key, call)
    except Exception as error:  # noqa: BLE001  a mapper's failure is the step's
        execution.writer.add(StepWaiting(row.key, row.name, row.kind, None))
        await execution.fail(row, error)
    execution.writer.add(StepWaiting(row.key, row.name, row.kind, None, child_id=row.child_id))
    await execution.writer.flush()
    execution.queued()
    return row


async def _take_output(
    execution: Execution, row: StepRow, text: str, output: Schema, transform: Callable[[Any], Any] | None
) -> Any:
    """Complete the step with the other instance's output, or with what `transform` makes of it."""
    what = f"the output of step {row.key!r}"
    try:
        if transform is not None:
            made = transform(plain_json(text))
            made = await made if inspect.isawaitable(made) else made
            text = output.encode(made, what, execution.max_payload)
        value = output.decode(text, what)
    except Exception as error:  # noqa: BLE001  every failure of the user's function or type is the step's
        await execution.fail(row, error)
    execution.complete(row, text)
    return value


def _own_failure(row: StepRow, found: ChildOutcome) -> StepFailed | None:
    """Return the failure of an action as if it had run here; None where the other instance is a workflow, or did not fail."""
    if row.kind == "child" or found.status is not Status.FAILED or not found.error:
        return None
    row.attempts = row.failures = max(found.attempts, 1)
    info = ErrorInfo.model_validate_json(found.error)
    return StepFailed(row.key, info.type, info.message, row.attempts, info.traceback)


async def wait_for_child(execution: Execution, key: str, name: str, child_id: str, output: Schema) -> Any:
    """Wait for the end of an instance that was started before, and return its output.

    Raises:
        WorkflowFailed, WorkflowCancelled, WorkflowTimedOut: it ended otherwise; the same on every replay.
        StepFailed: there is no such instance.
    """
    row = execution.recall(key, "wait_for")
    if row is not None:
        await execution.replay.in_order(row)
    if row is not None and row.status == "failed":
        raise recorded_failure(row)
    if row is None:
        await execution.replay.arrive(key)
        row = StepRow(key, name, "wait_for", "waiting", attempts=1, child_id=child_id)
        execution.journal.steps[key] = row
        execution.writer.add(StepWaiting(key, name, "wait_for", None, child_id=child_id))
    elif row.status != "completed":
        await execution.replay.resume()
    if row.status != "completed":
        found = await _end_of(execution, row, child_id)
        record = {
            "status": found.status.value,
            "workflow_name": found.workflow_name,
            "output": found.output,
            "error": found.error,
        }
        execution.complete(row, json.dumps(record))
    held = plain_json(row.output or "{}")
    outcome = ChildOutcome(Status(held["status"]), held["workflow_name"], held["output"], held["error"])
    if outcome.status is not Status.COMPLETED:
        error = _ended_badly(child_id, outcome)
        error.paddock_step = key  # type: ignore[attr-defined]
        raise error
    return execution.replay.decode(output, outcome.output or "null", f"the output of instance {child_id}", key)


async def _end_of(execution: Execution, row: StepRow, child_id: str) -> ChildOutcome:
    while True:
        await execution.writer.flush()
        found = await execution.writer.store.outcome_of(child_id)
        if found is None:
            await execution.fail(row, InvalidInput(f"there is no instance {child_id!r} to wait for"))
        if found.status in TERMINAL:
            return found
        await execution.suspension.park(None, look=True)


def _ended_badly(child_id: str, found: ChildOutcome) -> Exception:
    error = ErrorInfo.model_validate_json(found.error) if found.error else None
    return _ENDS[found.status](child_id, found.workflow_name, error)
