"""The machine: processes, kills, queues, schedules, health."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from starlette.responses import Response

from ..base.clock import as_datetime
from ..base.errors import ConfigError, MachineError, WorkflowNotFound
from ..base.records import Status
from ..server.registry import Registered
from ..server.scheduler import Schedule
from ..store import browse
from ..store.browse import Row
from . import answers, machine_answers
from .bodies import ScheduleBody
from .operation import Operation, empty, reply
from .problems import Problem
from .requests import Call, KillsQuery
from .served import Served
from .shapes import kill
from .workflow_routes import check_strictly, rate_of, registered

__all__ = ["OPERATIONS"]


async def overview(call: Call) -> Response:
    """Return the server at a glance."""
    served = call.served
    store = served.store()
    counts: dict[str, int] = dict.fromkeys(Status, 0)
    for row in await store.view(browse.counts):
        counts[row["status"]] = counts.get(row["status"], 0) + row["count"]
    health = await served.health()
    _, running = await store.view(browse.queues)
    return reply(
        machine_answers.Overview(
            version=served.version,
            started_at=as_datetime(served.started_at()),
            pid=os.getpid(),
            database=served.database,
            counts={str(status): count for status, count in counts.items()},
            processes={"children": sum(row["running"] for row in running), "limit": served.settings.process_limit},
            ok=health["ok"],
            problems=health["problems"],
            workflows=len(served.workflows.registry.names),
            schedules=len(await served.workflows.get_schedules()),
            last_event_id=await store.last_event_id(),
        )
    )


async def processes(call: Call) -> Response:
    """Return what runs for this server."""
    served = call.served
    rows = await served.processes()
    names = await served.store().view(browse.names_of, [row["instance_id"] for row in rows if row["instance_id"]])
    found = [_process(row, names.get(row["instance_id"])) for row in rows]
    return reply(machine_answers.Processes(processes=found, limit=served.settings.process_limit))


def _process(row: dict[str, Any], workflow_name: str | None) -> machine_answers.Process:
    known = {name: row.get(name) for name in machine_answers.Process.model_fields}
    return machine_answers.Process.model_validate(
        {**known, "workflow_name": workflow_name, "started_at": as_datetime(row.get("started_at"))}
    )


async def kills(call: Call) -> Response:
    """Return what the watchdog has ended."""
    query = call.query
    rows = await call.served.store().view(browse.kills, query.limit, query.before, query.instance_id)
    older = rows[-1]["id"] if len(rows) == query.limit else None
    return reply(answers.KillsPage(kills=[kill(row) for row in rows], older=older))


# --- queues ---


async def queues(call: Call) -> Response:
    """Return what is queued and what runs, by workflow, and by limit key where a workflow has one."""
    served = call.served
    queued, running = await served.store().view(browse.queues)
    rows = _join(served, queued, running)
    total = sum(row["running"] for row in running)
    return reply(machine_answers.Queues(max_processes=served.settings.process_limit, processes=total, queues=rows))


def _join(served: Served, queued: Iterable[Row], running: Iterable[Row]) -> list[machine_answers.Queue]:
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    known: dict[str, Registered | None] = {}
    for row in [*queued, *running]:
        name = row["workflow_name"]
        if name not in known:
            known[name] = registered(served, name)
        one = known[name]
        key = row["limit_key"] if one is not None and one.key is not None else None
        held = found.setdefault((name, key), {"pending": 0, "delayed": 0, "running": 0, "oldest_at": None})
        for count in ("pending", "delayed", "running"):
            held[count] += row.get(count, 0)
        if (oldest := row.get("oldest_at")) is not None:
            held["oldest_at"] = min(oldest, held["oldest_at"] or oldest)
    return [
        machine_answers.Queue(
            workflow_name=name,
            key=key,
            limit=one.limit if (one := known[name]) is not None else 0,
            rate=rate_of(one),
            **{**held, "oldest_at": as_datetime(held["oldest_at"])},
        )
        for (name, key), held in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    ]


# --- schedules ---


async def list_schedules(call: Call) -> Response:
    """Return all schedules."""
    return reply(machine_answers.Schedules(schedules=await call.served.workflows.get_schedules()))


async def create_schedule(call: Call) -> Response:
    """Start instances by the clock from now on."""
    body, workflows = call.body.root, call.served.workflows
    known = registered(call.served, body.workflow)
    if known is None:
        raise WorkflowNotFound(f"no workflow {body.workflow!r:.150} is registered")
    check_strictly(known, body.input)
    taken = {one.id for one in await workflows.get_schedules()}
    if (body.id or body.workflow.replace(":", ".")) in taken:
        raise Problem(
            409, "ScheduleExists", "a schedule of this id is there already; delete it first, or give another id"
        )
    ident = await workflows.schedule(
        body.workflow,
        cron=body.cron,
        every=body.every,
        input=body.input,
        id=body.id,
        tz=body.tz,
        catch_up=body.catch_up,
    )
    made = next((one for one in await workflows.get_schedules() if one.id == ident), None)
    if made is None:
        raise ConfigError(f"schedule {ident} was deleted meanwhile")
    return reply(made, 201)


async def delete_schedule(call: Call) -> Response:
    """End a schedule; instances that it has started go on."""
    if not await call.served.workflows.unschedule(call.id):
        raise Problem(404, "ScheduleNotFound", f"no schedule has the id {call.id!r:.150}")
    return empty()


# --- health ---


async def health(call: Call) -> Response:
    """Tell whether all is well."""
    served = call.served
    found = await served.health()
    try:
        await served.store().view(browse.reachable)
    except MachineError:
        found = {"ok": False, "problems": {**found["problems"], "database": "it cannot be read now"}}
    broken = {"server", "database"} & set(found["problems"])
    return reply(machine_answers.Health(ok=found["ok"], problems=found["problems"]), 503 if broken else 200)


OPERATIONS = (
    Operation("GET", "/api/overview", overview, answers={200: machine_answers.Overview}),
    Operation("GET", "/api/processes", processes, answers={200: machine_answers.Processes}),
    Operation("GET", "/api/kills", kills, query=KillsQuery, answers={200: answers.KillsPage}, errors=(404,)),
    Operation("GET", "/api/queues", queues, answers={200: machine_answers.Queues}),
    Operation("GET", "/api/schedules", list_schedules, answers={200: machine_answers.Schedules}),
    Operation(
        "POST",
        "/api/schedules",
        create_schedule,
        body=ScheduleBody,
        answers={201: Schedule},
        errors=(404, 409, 413),
    ),
    Operation("DELETE", "/api/schedules/{id}", delete_schedule, answers={204: None}, errors=(404,)),
    Operation("GET", "/api/health", health, answers={200: machine_answers.Health, 503: machine_answers.Health}),
)
