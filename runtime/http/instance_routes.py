"""Instances: pages of them, one with all that belongs to it, and single values."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.responses import Response

from ..authoring.machine import MachineDefinition
from ..authoring.machine_host import UPDATES
from ..authoring.outline import json_schema, style_of
from ..base.clock import as_datetime
from ..base.errors import InstanceNotFound, MachineError
from ..base.records import ACTIVE, TERMINAL, Status
from ..server.registry import Registered
from ..store import browse
from ..store.browse import Row
from ..store.transaction import Transaction
from . import answers
from .history import Pressure, abilities, current_data, runs_of, tries_of, wait_schema, waits_of
from .operation import Operation, empty, reply
from .problems import Problem
from .requests import Call, DetailQuery, InstancesQuery, PayloadQuery
from .served import Served
from .shapes import LONG, child, error_info, kill, summary, summary_fields, value
from .workflow_routes import registered

__all__ = ["OPERATIONS", "statuses", "total_steps"]

_DAY = 86400.0
_FEW, _MANY = 12, 50
_EVENTS, _CHILDREN, _SIGNALS, _KILLS = 5000, 500, 200, 20
_PLAIN = ("key", "kind", "status", "attempts", "poll_count", "loop_count", "event_name", "child_id")
_GROUPS = {"active": ACTIVE, "ended": TERMINAL}


def total_steps(known: Registered | None) -> int | None:
    """Return how many steps a workflow has, None where its code decides or it is not registered."""
    return known.definition.total_steps if known is not None else None


def statuses(names: list[str]) -> list[str]:
    """Return the statuses that a query names; `active` and `ended` stand for several.

    Raises:
        Problem: there is no such status.
    """
    found: list[str] = []
    for name in names:
        if name not in _GROUPS and name not in list(Status):
            known = ", ".join([*Status, *_GROUPS])
            raise Problem(422, "InvalidRequest", f"query.status: there is no such status; there are {known}")
        found += sorted(_GROUPS[name]) if name in _GROUPS else [name]
    return found


async def list_instances(call: Call) -> Response:
    """Return a page of instances, the newest first."""
    query, served = call.query, call.served
    wanted = browse.Filter(query.workflow, statuses(query.status), query.q, query.parent)
    page = await served.store().view(browse.instances_page, wanted, query.limit, query.before, query.after)
    return reply(
        answers.InstancesPage(
            instances=_shown(served, page.rows),
            older=str(page.rows[-1]["seq"]) if page.has_older else None,
            newer=str(page.rows[0]["seq"]) if page.has_newer else None,
            last_event_id=page.last_event_id,
        )
    )


async def now(call: Call) -> Response:
    """Return what is looked at first: what runs, what goes on next, what has ended badly of late."""
    served = call.served
    found = await served.store().view(browse.current, time.time() - _DAY, _FEW, _MANY)
    return reply(
        answers.Current(
            running=_shown(served, found.running),
            again=_shown(served, found.again),
            broken=_shown(served, found.broken),
        )
    )


def _shown(served: Served, rows: list[Row]) -> list[answers.Summary]:
    return [summary(row, total_steps(registered(served, row["workflow_name"]))) for row in rows]


async def get_instance(call: Call) -> Response:
    """Return one instance with all that belongs to it."""
    served = call.served
    found = await served.store().view(_gather, call.id)
    known = registered(served, found["row"]["workflow_name"])
    return reply(_detail(served, found, known, short=call.query.values == "short"))


def _gather(tx: Transaction, ident: str) -> dict[str, Any]:
    """Read everything about an instance, as of one moment."""
    row = browse.instance(tx, ident)
    seq = row["seq"]
    events, more = browse.step_events(tx, seq, _EVENTS)
    parent = None
    if row["parent_id"] is not None:
        try:
            parent = browse.instance(tx, row["parent_id"])
        except InstanceNotFound:  # cleaned up
            parent = None
    _, running = browse.queues(tx) if row["status"] == "pending" else ([], [])
    return {
        "row": row,
        "steps": browse.steps(tx, seq),
        "events": events,
        "more": more,
        "parent": parent,
        "children": browse.children(tx, ident, _CHILDREN),
        "signals": browse.signals(tx, seq, _SIGNALS),
        "data": browse.machine_data(tx, seq, UPDATES),
        "metadata": browse.metadata(tx, seq),
        "input": browse.payload(tx, ident, "input"),
        "output": browse.payload(tx, ident, "output"),
        "kills": browse.kills(tx, _KILLS, instance_id=ident),
        "running": running,
    }


def _detail(served: Served, found: dict[str, Any], known: Registered | None, *, short: bool) -> answers.Detail:
    row = found["row"]
    style = style_of(known.definition) if known is not None else None
    tries = tries_of(found["events"])
    return answers.Detail(
        **summary_fields(row, total_steps(known)),
        error=error_info(row["error"]),
        input=value(found["input"], short=short),
        output=value(found["output"], short=short),
        metadata={key: value(text, short=short) for key, text in found["metadata"].items()},
        steps=[_step(step, tries, short=short) for step in found["steps"]],
        waits_for=waits_of(row, found["steps"], _pressure(served, row, known, found["running"])),
        children=[child(one) for one in found["children"]],
        parent=child(found["parent"]) if found["parent"] is not None else None,
        signals=[_signal(one, short=short) for one in found["signals"]],
        runs=runs_of(found["events"]),
        kills=[kill(one) for one in found["kills"]],
        can=abilities(row, style, known=known is not None),
        style=style,
        state=_state(found, short=short) if style == "machine" else None,
        state_schema=_state_schema(known),
        history_truncated=found["more"],
        last_event_id=row["last_event_id"],
    )


def _state(found: dict[str, Any], *, short: bool) -> Any:
    """Return a machine's data as far as its journal tells: what a state has changed shows when it has gone on to the next."""
    data = current_data(found["data"], found["input"])
    text = json.dumps(data, ensure_ascii=False)
    return value(text, short=True) if short and len(text) > LONG else data


def _state_schema(known: Registered | None) -> dict[str, Any] | None:
    if known is None or not isinstance(known.definition, MachineDefinition):
        return None
    return json_schema(known.definition.input_schema)


def _pressure(served: Served, row: Row, known: Registered | None, running: list[Row]) -> Pressure:
    mine = [
        one["running"]
        for one in running
        if one["workflow_name"] == row["workflow_name"]
        and (known is None or known.key is None or one["limit_key"] == row["limit_key"])
    ]
    return Pressure(
        running=sum(mine),
        limit=known.limit if known is not None else 0,
        processes=sum(one["running"] for one in running),
        max_processes=served.settings.process_limit,
    )


def _step(row: Row, tries: dict[str, list[answers.Try]], *, short: bool) -> answers.Step:
    plain = {name: row[name] for name in _PLAIN}
    times = {name: as_datetime(row[name]) for name in ("started_at", "completed_at", "wake_at", "deadline_at")}
    return answers.Step.model_validate(
        {
            **plain,
            **times,
            "step_name": row["name"],
            "input": value(row["input"], short=short),
            "output": value(row["output"], short=short),
            "error": error_info(row["error"]),
            "schema": wait_schema(row["schema"]),
            "tries": tries.get(row["key"], []),
        }
    )


def _signal(row: Row, *, short: bool) -> answers.Signal:
    return answers.Signal(
        id=row["id"],
        name=row["name"],
        payload=value(row["payload"], short=short),
        created_at=as_datetime(row["created_at"]),
        taken_by=row["taken_by"],
    )


async def get_payload(call: Call) -> Response:
    """Return an input or an output as it is."""
    kind: Literal["input", "output"] = call.query.of
    text = await call.served.store().view(browse.payload, call.id, kind, call.query.step)
    if text is None:
        what = f"step {call.query.step!r:.100}" if call.query.step is not None else "the instance"
        raise Problem(404, "NotFound", f"{what} has no {kind}")
    return Response(text, media_type="application/json")


async def delete_instance(call: Call) -> Response:
    """Delete an instance that has ended."""
    await call.served.workflows.cleanup(call.id)
    return empty()


async def get_stacks(call: Call) -> Response:
    """Return what the threads of a running instance's process are doing just now."""
    try:
        found = await call.served.stacks(call.id)
    except MachineError as error:
        if type(error) is not MachineError:
            raise
        raise Problem(409, "NoStacks", str(error)) from None  # of the process that was asked for: the caller may know
    return reply(answers.Stacks(id=call.id, pid=found.pid, taken_at=datetime.now(UTC), stacks=found.text))


OPERATIONS = (
    Operation("GET", "/api/instances", list_instances, query=InstancesQuery, answers={200: answers.InstancesPage}),
    Operation("GET", "/api/now", now, answers={200: answers.Current}),
    Operation(
        "GET",
        "/api/instances/{id}",
        get_instance,
        query=DetailQuery,
        answers={200: answers.Detail},
        errors=(404,),
    ),
    Operation("DELETE", "/api/instances/{id}", delete_instance, answers={204: None}, errors=(404, 409)),
    Operation(
        "GET",
        "/api/instances/{id}/payload",
        get_payload,
        query=PayloadQuery,
        answers={200: Any},
        errors=(404,),
    ),
    Operation("GET", "/api/instances/{id}/stacks", get_stacks, answers={200: answers.Stacks}, errors=(404, 409)),
)
