"""What an instance's events and rows tell of its past and of what it waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..authoring.machine_host import UPDATES
from ..base.clock import as_datetime
from ..base.records import TERMINAL, Status
from ..base.values import plain_json
from ..store.browse import MachineData, Row
from .answers import Run, Try, Wait
from .shapes import error_info, short_error

__all__ = ["Pressure", "abilities", "current_data", "runs_of", "tries_of", "waits_of"]

_BEGINS = frozenset({"workflow.started", "workflow.resumed"})
_OUTCOMES = {
    "workflow.step.retry": "retry",
    "workflow.step.failed": "failed",
    "workflow.step.completed": "completed",
}
_OPEN_STEPS = frozenset({"running", "retrying", "waiting"})


def tries_of(events: Iterable[Row]) -> dict[str, list[Try]]:
    """Return each step's attempts, by its key. One that its process left unfinished crashed, or was interrupted by its server's stop."""
    open_tries: dict[str, dict[str, Any]] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        name, at = event["name"], event["created_at"]
        if name in ("workflow.crashed", "workflow.resumed"):
            _end(open_tries, at, plain_json(event["data"] or "{}").get("error") if name == "workflow.crashed" else None)
        if not name.startswith("workflow.step."):
            continue
        data = plain_json(event["data"] or "{}")
        key = data.get("step")
        if name == "workflow.step.started":
            fresh = {"attempt": data.get("attempt", 1), "started_at": at, "wait": "wake_at" in data}
            open_tries[key] = fresh
            found.setdefault(key, []).append(fresh)
        elif (current := open_tries.pop(key, None)) is not None:
            current.update(
                ended_at=at, outcome=_OUTCOMES[name], error=short_error(data.get("error")), delay=data.get("delay")
            )
    return {key: [_try(item) for item in items] for key, items in found.items()}


def _end(open_tries: dict[str, dict[str, Any]], at: float, error: Mapping[str, Any] | None) -> None:
    """End the attempts that were under way when a process went; a wait goes on without one. Without an error none crashed."""
    for key, item in list(open_tries.items()):
        if not item["wait"]:
            item.update(ended_at=at, outcome="crashed" if error else "interrupted", error=short_error(error))
            del open_tries[key]


def _try(item: Mapping[str, Any]) -> Try:
    return Try(
        attempt=item["attempt"],
        started_at=as_datetime(item["started_at"]),
        ended_at=as_datetime(item.get("ended_at")),
        outcome=item.get("outcome", "running"),
        error=item.get("error"),
        delay=item.get("delay"),
    )


def runs_of(events: Iterable[Row]) -> list[Run]:
    """Return the executions, each with why it ended: the status that it was left in, "crash", or "interrupted"."""
    runs: list[dict[str, Any]] = []
    for event in events:
        name, at = event["name"], event["created_at"]
        if name.startswith("workflow.step."):
            continue
        current = runs[-1] if runs and runs[-1]["ended_at"] is None else None
        if name in _BEGINS:
            if current is not None:
                current.update(ended_at=at, why="interrupted")
            runs.append(
                {"event": name, "at": at, "pid": plain_json(event["data"] or "{}").get("pid"), "ended_at": None}
            )
        elif current is not None and name == "workflow.crashed":
            current.update(ended_at=at, why="crash")
        elif current is not None:
            why = plain_json(event["data"] or "{}").get("status") or name.removeprefix("workflow.")
            current.update(ended_at=at, why=why)
    return [
        Run(
            event=run["event"],
            at=as_datetime(run["at"]),
            pid=run["pid"],
            ended_at=as_datetime(run["ended_at"]),
            why=run.get("why"),
        )
        for run in runs
    ]


@dataclass(frozen=True, slots=True)
class Pressure:
    """What holds the queue up: how many of a workflow run and may, and how many processes do and may. A limit of 0 is none."""

    running: int
    limit: int
    processes: int
    max_processes: int

    @property
    def reason(self) -> str:
        """Return it in words."""
        if self.limit and self.running >= self.limit:
            return f"its workflow is at its limit of {self.limit}"
        if self.processes >= self.max_processes:
            return f"all {self.max_processes} processes are busy"
        return "it is about to start"


def waits_of(row: Row, steps: Iterable[Row], pressure: Pressure) -> list[Wait]:
    """Return what an instance waits for now."""
    status = Status(row["status"])
    if status in TERMINAL:
        return []
    error = error_info(row["error"])
    if status is Status.BLOCKED:
        return [Wait(kind="code", reason=f"{error.type}: {error.message}" if error else "it is blocked")]
    found = [wait for step in steps if step["status"] in _OPEN_STEPS and (wait := _step_wait(step)) is not None]
    if status is Status.PAUSED:
        return [Wait(kind="person", reason="it is paused"), *found]
    if status is Status.PENDING:
        if row["wake_at"] is not None:
            reason = "after a crash" if row["crash_count"] else "it was started with a delay"
            return [Wait(kind="time", until=as_datetime(row["wake_at"]), reason=reason)]
        return [Wait(kind="slot", ahead=row["ahead"], reason=pressure.reason)]
    return found


def _step_wait(step: Row) -> Wait | None:
    until = as_datetime(step["wake_at"])
    if step["event_name"] is not None:
        if step["event_name"] == UPDATES:
            return None
        return Wait(
            kind="signal", step=step["key"], name=step["event_name"], schema=wait_schema(step["schema"]), until=until
        )
    if step["child_id"] is not None:
        return Wait(kind="instance", step=step["key"], instance_id=step["child_id"], until=until)
    if step["wake_at"] is not None and step["status"] != "running":
        reason = "it is tried again" if step["status"] == "retrying" else None
        return Wait(kind="time", step=step["key"], until=until, reason=reason)
    return None


def wait_schema(description: str | None) -> dict[str, Any] | None:
    """Return the JSON schema of what a wait accepts, None for anything."""
    return plain_json(description)["schema"] if description else None


def current_data(found: MachineData, given: str | None) -> dict[str, Any]:
    """Return a state machine's data: those of its last transition, or its input, with the updates from outside since then."""
    data: dict[str, Any] = (
        plain_json(found.transition)["data"] if found.transition else plain_json(given or "null") or {}
    )
    for taken in found.taken:
        for patch in plain_json(taken):
            data |= patch
    for patch in found.kept:
        data |= plain_json(patch)
    return data


def abilities(row: Row, style: str | None, *, known: bool) -> dict[str, bool]:
    """Return what can be done to an instance now, by the word of the call."""
    status = Status(row["status"])
    alive = status not in TERMINAL
    return {
        "cancel": alive,
        "retry": status in (Status.FAILED, Status.BLOCKED),
        "fork": known,
        "signal": alive,
        "pause": alive and status is not Status.PAUSED,
        "unpause": status is Status.PAUSED,
        "cleanup": not alive,
        "update_state": alive and style == "machine",
        "stacks": status is Status.RUNNING and row["pid"] is not None and bool(row["isolated"]),
    }
