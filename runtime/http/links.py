"""Links of the OpenAPI description: where what an answer names can be given. Who reads them need not guess where an id goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..server.scheduler import Schedule
from . import answers
from .operation import Operation

__all__ = ["LOCATED", "links", "links_from"]

#: Answers about one instance that was started or waited for; their `Location` names it.
LOCATED = (answers.Started, answers.Outcome, answers.Forked)

_INSTANCE, _SCHEDULED = "/api/instances/{id}", "deleteSchedule"


def links(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return what can be done with an instance, or a schedule, whose id an answer holds; by operation."""
    found = [one.name for one in operations if one.path.startswith(_INSTANCE)]
    return {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in (*found, _SCHEDULED)}


def links_from(model: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Return the links of an answer; `known` are those that the description holds once for all."""
    names = [_SCHEDULED] if model is Schedule else []
    if model in LOCATED or model is answers.Detail:
        names = [name for name in known if name != _SCHEDULED]
    return {name: {"$ref": f"#/components/links/{name}"} for name in names}
