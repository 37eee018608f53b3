"""Steering: what is done to instances, one or many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from ..authoring.machine import MachineDefinition
from ..base.errors import PaddockError
from ..base.ids import check_instance_id
from ..base.records import TERMINAL, Status
from ..store import browse
from . import answers
from .bodies import BulkBody, BulkCancel, BulkNamed, BulkRetry, ForkBody, SignalBody
from .operation import Handler, Operation, place, reply
from .problems import Problem, problem_of
from .requests import Call
from .workflow_routes import check_strictly, registered

__all__ = ["OPERATIONS"]

_AT_ONCE = 16


async def _status(call: Call, ident: str) -> Status:
    return Status((await call.served.store().view(browse.instance, ident))["status"])


async def cancel(call: Call) -> Response:
    """Cancel an instance; its processes are gone when this answers."""
    done = await call.served.workflows.cancel(call.id)
    return reply(answers.Cancelled(id=call.id, cancelled=done, status=await _status(call, call.id)))


async def retry(call: Call) -> Response:
    """Run a failed instance on, or try a blocked one again."""
    await call.served.workflows.retry(call.id)
    return await _steered(call)


async def pause(call: Call) -> Response:
    """Hold an instance."""
    await call.served.workflows.pause(call.id)
    return await _steered(call)


async def unpause(call: Call) -> Response:
    """Release an instance."""
    await call.served.workflows.unpause(call.id)
    return await _steered(call)


async def _steered(call: Call) -> Response:
    return reply(answers.Steered(id=call.id, status=await _status(call, call.id)))


async def fork(call: Call) -> Response:
    """Start a new instance that shares this one's journal before a step."""
    body, workflows = call.body, call.served.workflows
    row = await call.served.store().view(browse.instance, call.id)
    more: dict[str, Any] = {}
    if "input" in body.model_fields_set:
        more["input"] = body.input
        known = registered(call.served, row["workflow_name"])
        if known is not None:
            check_strictly(known, body.input)
    if body.id is not None and await _exists(call, check_instance_id(body.id)):
        raise Problem(409, "InstanceIdConflict", f"instance {body.id} exists already; use another id")
    made = await workflows.fork(call.id, body.from_step, new_id=body.id, **more)
    found = answers.Forked(id=made, forked_from=call.id, status=await _status(call, made))
    return reply(found, 201, place(call, made))


async def _exists(call: Call, ident: str) -> bool:
    return await call.served.workflows.get_instance(ident) is not None


async def signal(call: Call) -> Response:
    """Answer a wait."""
    await _alive(call, "InvalidSignal")
    await call.served.workflows.signal(call.id, call.body.name, call.body.payload)
    return reply(answers.Signalled(id=call.id, name=call.body.name, status=await _status(call, call.id)))


async def _alive(call: Call, code: str) -> browse.Row:
    """Return an instance that has not ended.

    Raises:
        Problem: it has; the call comes too late, whatever it says.
    """
    row: browse.Row = await call.served.store().view(browse.instance, call.id)
    if row["status"] in TERMINAL:
        raise Problem(409, code, f"instance {call.id} has ended as {row['status']}")
    return row


def _members(call: Call) -> dict[str, Any]:
    if not isinstance(call.body, dict):
        raise Problem(422, "InvalidRequest", "body: it must be a JSON object")
    return call.body


async def update_metadata(call: Call) -> Response:
    """Merge keys into an instance's metadata."""
    await call.served.workflows.update_metadata(call.id, _members(call))
    instance = await call.served.workflows.get_instance(call.id)
    return reply(answers.Metadata(id=call.id, metadata=instance.metadata if instance is not None else {}))


async def update_state(call: Call) -> Response:
    """Change the data of a state machine."""
    row = await _alive(call, "InvalidState")
    known = registered(call.served, row["workflow_name"])
    if known is None or not isinstance(known.definition, MachineDefinition):
        raise Problem(
            409, "InvalidState", f"workflow {row['workflow_name']!r} is no state machine; it has no data to update"
        )
    await call.served.workflows.update_state(call.id, _members(call))
    return await _steered(call)


# --- many ---


async def bulk(call: Call) -> Response:
    """Do one thing to many instances: cancel, retry, hold, release or delete them."""
    body, workflows = call.body.root, call.served.workflows
    if isinstance(body, BulkNamed):
        return reply(await _each(body.action, _one(call, body.action), body.ids))
    if isinstance(body, BulkCancel):
        count = await workflows.cancel_all(name=body.workflow, status=body.status)
    elif isinstance(body, BulkRetry):
        count = await workflows.retry_all(name=body.workflow)
    else:
        count = await workflows.cleanup_all(name=body.workflow, status=body.status, older_than=body.older_than or 0)
    return reply(answers.Bulk(action=body.action, count=count, failed=[]))


def _one(call: Call, action: str) -> Callable[[str], Awaitable[Any]]:
    workflows = call.served.workflows
    calls: dict[str, Callable[[str], Awaitable[Any]]] = {
        "cancel": workflows.cancel,
        "retry": workflows.retry,
        "cleanup": workflows.cleanup,
        "pause": workflows.pause,
        "unpause": workflows.unpause,
    }
    return calls[action]


async def _each(action: str, one: Callable[[str], Awaitable[Any]], ids: list[str]) -> answers.Bulk:
    turn = asyncio.Semaphore(_AT_ONCE)
    failed: list[answers.BulkFailure] = []

    async def act(ident: str) -> bool:
        async with turn:
            try:
                return await one(ident) is not False
            except PaddockError as error:
                problem = problem_of(error)
                failed.append(answers.BulkFailure(id=ident, code=problem.code, detail=problem.detail))
                return False

    done = await asyncio.gather(*(act(ident) for ident in dict.fromkeys(ids)))
    return answers.Bulk(action=action, count=sum(done), failed=failed)


_PAYLOAD = (404, 409, 413)


def _steering(word: str, handler: Handler, answer: Any, **more: Any) -> Operation:
    """Return what is done to one instance, by the last word of its path."""
    more = {"answers": {200: answer}, "errors": (404, 409), **more}
    return Operation("POST", f"/api/instances/{{id}}/{word}", handler, **more)


OPERATIONS = (
    Operation("POST", "/api/instances/bulk", bulk, body=BulkBody, answers={200: answers.Bulk}, errors=(409,)),
    _steering("cancel", cancel, answers.Cancelled),
    _steering("retry", retry, answers.Steered),
    _steering("pause", pause, answers.Steered),
    _steering("unpause", unpause, answers.Steered),
    _steering("fork", fork, None, body=ForkBody, answers={201: answers.Forked}, errors=_PAYLOAD),
    _steering("signal", signal, answers.Signalled, body=SignalBody, errors=_PAYLOAD),
    _steering("metadata", update_metadata, answers.Metadata, raw_body=True, errors=_PAYLOAD),
    _steering("state", update_state, answers.Steered, raw_body=True, errors=_PAYLOAD),
)
