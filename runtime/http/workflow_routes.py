"""Workflows: what is registered, and how instances of them are started."""

from __future__ import annotations

import functools
import hashlib
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from ..authoring.outline import json_schema, outline, signals_of, style_of
from ..base.errors import InstanceNotFound, InvalidInput, InvalidInstanceId, WorkflowNotFound
from ..base.ids import check_instance_id
from ..base.records import Status
from ..base.values import ANY
from ..server.registry import Registered
from ..store import browse
from . import answers
from .bodies import RunBody, StartBody
from .operation import Operation, place, reply
from .problems import Problem
from .requests import Call
from .result_routes import outcome, stream_of
from .served import Served

__all__ = ["OPERATIONS", "rate_of", "registered"]


def registered(served: Served, name: str) -> Registered | None:
    """Return a registered workflow, None for an unknown one."""
    registry = served.workflows.registry
    registry.add_actions()
    return registry.get(name) if name in registry else None


def rate_of(known: Registered | None) -> answers.Rate | None:
    """Return a workflow's rate."""
    if known is None or known.rate is None:
        return None
    return answers.Rate(count=known.rate[0], seconds=known.rate[1])


async def _counts(served: Served) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for row in await served.store().view(browse.counts):
        held = counts.setdefault(row["workflow_name"], dict.fromkeys(Status, 0))
        held[row["status"]] = row["count"]
    return counts


@functools.lru_cache(maxsize=1024)
def _described(definition: Any) -> dict[str, Any]:
    """Return what a definition says of itself; made once, for schemas take milliseconds."""
    return {
        "style": style_of(definition),
        "description": definition.description,
        "tags": list(definition.tags),
        "timeout": definition.timeout,
        "version": definition.fingerprint(),
        "total_steps": definition.total_steps,
        "input_schema": json_schema(definition.input_schema),
        "output_schema": json_schema(getattr(definition, "output_schema", None), output=True),
        "signals": signals_of(definition),
        "graph": outline(definition),
    }


_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(("style", "description", "timeout", "version", "total_steps", "graph")),
    "tags": [],
    "input_schema": {},
    "output_schema": {},
    "signals": [],
}


def _info(name: str, known: Registered | None, counts: dict[str, int] | None) -> answers.WorkflowInfo:
    limits = None
    if known is not None:
        limits = answers.Limits(
            max_concurrent=known.limit, on_limit=known.on_limit, rate=rate_of(known), keyed=known.key is not None
        )
    return answers.WorkflowInfo(
        name=name,
        registered=known is not None,
        isolated=known.isolated if known is not None else None,
        limits=limits,
        counts={str(key): value for key, value in (counts or dict.fromkeys(Status, 0)).items()},
        **(_described(cast("Any", known.definition)) if known is not None else _UNKNOWN),
    )


async def list_workflows(call: Call) -> Response:
    """List all workflows, also those that only instances tell of."""
    served = call.served
    counts = await _counts(served)
    served.workflows.registry.add_actions()
    names = sorted({*served.workflows.registry.names, *counts})
    found = [_info(name, registered(served, name), counts.get(name)) for name in names]
    return reply(answers.Workflows(workflows=found, last_event_id=await served.store().last_event_id()))


async def get_workflow(call: Call) -> Response:
    """Return one workflow."""
    name = call.request.path_params["name"]
    known, counts = registered(call.served, name), (await _counts(call.served)).get(name)
    if known is None and counts is None:
        raise WorkflowNotFound(f"no workflow {name!r:.150} is registered")
    return reply(_info(name, known, counts))


# --- starting ---


def _known(call: Call) -> Registered:
    name = call.request.path_params["name"]
    known = registered(call.served, name)
    if known is None:
        raise WorkflowNotFound(f"no workflow {name!r:.150} is registered")
    return known


def key_of(request: Request, ident: str | None) -> str | None:
    """Return the id that a call names: in its body, else as `Idempotency-Key`, which need not look like an id."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return ident
    key = key.strip(' \t"')
    if not key:
        raise Problem(422, "InvalidRequest", "Idempotency-Key is empty")
    if ident is not None:
        return ident
    try:
        return check_instance_id(key)
    except InvalidInstanceId:
        return f"key-{hashlib.sha256(key.encode()).hexdigest()[:40]}"


def check_strictly(known: Registered, value: Any) -> None:
    """Refuse an input that the published schema does not take: over HTTP, text is no number.

    Raises:
        InvalidInput: it does not fit; the fields are named.
    """
    schema = known.definition.input_schema
    if not schema.typed or (value is None and schema.unsaid() is not None):
        return
    what = f"the input of workflow {known.definition.name!r}"
    try:
        schema.decode(ANY.encode(value, what), what, strict=True)
    except InvalidInput:
        whole = _whole(value)
        if whole == value and repr(whole) == repr(value):
            raise
        schema.decode(ANY.encode(whole, what), what, strict=True)


def _whole(value: Any) -> Any:
    """Return a value with 5 for 5.0: JSON does not tell them apart, and an integer may be written so."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def _begin(call: Call, known: Registered) -> tuple[str, bool]:
    """Start an instance, or find the one that was started under this id; return its id and whether it is new."""
    body, served = call.body, call.served
    ident = key_of(call.request, body.id)
    check_strictly(known, body.input)
    created = True
    if ident is not None:
        created = await _status(served, check_instance_id(ident)) is None
    found = await served.workflows.start(
        known.definition.name,
        body.input,
        id=ident,
        delay=body.delay,
        priority=body.priority,
        metadata=body.metadata,
    )
    return found, created


async def _status(served: Served, ident: str) -> Status | None:
    try:
        return Status((await served.store().view(browse.instance, ident))["status"])
    except InstanceNotFound:
        return None


async def start(call: Call) -> Response:
    """Start an instance."""
    known = _known(call)
    ident, created = await _begin(call, known)
    status = await _status(call.served, ident) or Status.PENDING
    body = answers.Started(id=ident, workflow_name=known.definition.name, status=status, created=created)
    return reply(body, 201 if created else 200, place(call, ident))


async def run(call: Call) -> Response:
    """Start an instance and answer with its result, or stream its chunks and then the result."""
    known = _known(call)
    ident, _ = await _begin(call, known)
    if call.wants("text/event-stream"):
        return stream_of(call, ident, known.definition.name)
    return await outcome(call, ident, call.body.timeout)


OPERATIONS = (
    Operation("GET", "/api/workflows", list_workflows, answers={200: answers.Workflows}),
    Operation("GET", "/api/workflows/{name}", get_workflow, answers={200: answers.WorkflowInfo}, errors=(404,)),
    Operation(
        "POST",
        "/api/workflows/{name}/start",
        start,
        body=StartBody,
        answers={200: answers.Started, 201: answers.Started},
        errors=(404, 409, 413, 429),
    ),
    Operation(
        "POST",
        "/api/workflows/{name}/run",
        run,
        body=RunBody,
        answers={200: answers.Outcome, 202: answers.Outcome},
        errors=(404, 409, 413, 424, 429),
        stream=True,
        waits=True,
    ),
)
