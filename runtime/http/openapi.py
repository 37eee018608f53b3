"""The OpenAPI description, made of the table of operations and of the registered workflows' own schemas.

Starting and running have a path for each workflow, with that workflow's input and output. Nothing is described that is not answered so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pydantic_core
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from ..authoring.outline import json_schema
from ..server.registry import Registered
from .links import LOCATED, links, links_from
from .operation import Operation
from .problems import MEDIA_TYPE
from .served import Served

__all__ = ["Description", "describe"]

Mode = Literal["validation", "serialization"]

_REF = "#/components/schemas/"
_TEMPLATE = _REF + "{model}"
_LOCAL = "#/$defs/"
_TYPED = frozenset({"start", "run"})
_ABOUT = "Durable workflows over HTTP. A query parameter that is not described here is refused with 422, as is a body's member."
_ALWAYS = (400, 401, 403, 422, 500, 503)
_WITH_BODY = (408, 413, 415)
_ANY_OBJECT = {"type": "object", "propertyNames": {"minLength": 1, "maxLength": 1000}}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "the same key again starts nothing, and answers with what was started",
    "schema": {"type": "string", "pattern": '[^ \\t"]'},
}
_NO_NUL = r"^[^\u0000]*$"  # `read_query` refuses it
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=10` answers 202 when it takes longer than 10 seconds, `respond-async` at once (RFC 7240)",
    "schema": {"type": "string"},
}
_LOCATION = {"Location": {"description": "the instance", "required": True, "schema": {"type": "string"}}}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


class Description:
    """The description as text, made anew only where something was registered: it takes a while."""

    def __init__(self, operations: Sequence[Operation], served: Served, *, needs_token: bool) -> None:
        """Describe what a server answers."""
        self._operations = operations
        self._served = served
        self._needs_token = needs_token
        self._of: tuple[str, frozenset[str]] | None = None
        self._text = b""

    async def respond(self, request: Request) -> Response:
        """Answer with it."""
        root, names = request.scope.get("root_path", ""), self._served.workflows.registry.names
        if self._of != (root, names):
            found = describe(self._operations, self._served, needs_token=self._needs_token, root=root)
            self._of, self._text = (root, names), pydantic_core.to_json(found)
        return Response(self._text, media_type="application/json")


def describe(operations: Sequence[Operation], served: Served, *, needs_token: bool, root: str) -> dict[str, Any]:
    """Return the description as JSON; `root` is where the application is mounted."""
    models = _models(operations)
    _, shared = models_json_schema(models, ref_template=_TEMPLATE)
    schemas = {**shared.get("$defs", {}), "Problem": _PROBLEM}
    leads = links(operations)
    known = [one for one in served.workflows.registry if "action" not in one.definition.tags]
    paths: dict[str, Any] = {}
    for operation in operations:
        if operation.name in _TYPED:
            for one in known:
                path = operation.path.replace("{name}", one.definition.name)
                paths.setdefault(path, {})["post"] = _typed(operation, one, schemas, leads)
        else:
            paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, leads)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Paddock", "version": served.version, "description": _ABOUT},
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "links": leads},
    }
    if needs_token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _models(operations: Sequence[Operation]) -> list[tuple[Any, Mode]]:
    found: dict[tuple[Any, Mode], None] = {}
    for operation in operations:
        if operation.body is not None:
            found[operation.body, "validation"] = None
        for model in operation.answers.values():
            if isinstance(model, type) and issubclass(model, BaseModel):
                found[model, "serialization"] = None
    return list(found)


def _operation(operation: Operation, leads: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": list(_parameters(operation)),
        "responses": dict(_responses(operation, leads)),
    }
    if operation.takes_body:
        schema = _ANY_OBJECT if operation.body is None else {"$ref": _REF + operation.body.__name__}
        needed = operation.body is None or not _takes_nothing(operation.body)
        found["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema}}}
    if operation.path == "/api/session":
        found["security"] = []
    return found


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if operation.waits:
        yield _PREFER
    properties = operation.query.model_json_schema(mode="validation").get("properties", {})
    for name, schema in properties.items():
        plain = {key: value for key, value in schema.items() if key not in ("title", "default")}
        options = [one for one in plain.pop("anyOf", []) if one != {"type": "null"}]
        plain = {**plain, **(options[0] if len(options) == 1 else {"anyOf": options} if options else {})}
        if plain.get("type") == "array" and name == "status":
            plain["items"] = {"type": "string", "enum": _statuses()}
        text = plain.get("items", plain)
        if text.get("type") == "string" and not text.keys() & {"enum", "const", "pattern"}:
            text["pattern"] = _NO_NUL
        yield {"name": name, "in": "query", "required": False, "schema": plain}


def _statuses() -> list[str]:
    from ..base.records import Status

    return [*Status, "active", "ended"]


def _responses(operation: Operation, leads: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, model in operation.answers.items():
        content: dict[str, Any] = {}
        if isinstance(model, type) and issubclass(model, BaseModel):
            content["application/json"] = {"schema": {"$ref": _REF + model.__name__}}
        elif model is not None:
            content["application/json"] = {"schema": {}}
        if operation.stream and status == 200:  # noqa: PLR2004
            content["text/event-stream"] = {}
        answer: dict[str, Any] = {"description": "done"}
        if content:
            answer["content"] = content
        if model in LOCATED:
            answer["headers"] = _LOCATION
        if found := links_from(model, leads):
            answer["links"] = found
        yield str(status), answer
    if operation.stream and not operation.answers:
        yield "200", {"description": "events", "content": {"text/event-stream": {}}}
    bodies = _WITH_BODY if operation.method != "GET" else ()
    for status in sorted({*_ALWAYS, *bodies, *operation.errors} - set(operation.answers)):
        problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": _REF + "Problem"}}}}
        yield str(status), {"description": "a problem", **problem}


# --- workflows ---


def _typed(operation: Operation, known: Registered, schemas: dict[str, Any], leads: dict[str, Any]) -> dict[str, Any]:
    """Return the operation of one workflow, with its own schemas."""
    definition = known.definition
    name = definition.name
    label = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in name)
    input_schema = _adopt(json_schema(definition.input_schema), f"{label}.input", schemas)
    body = dict(schemas[operation.body.__name__]) if operation.body is not None else {}
    body["properties"] = {**body["properties"], "input": input_schema}
    given = definition.input_schema
    if given.typed and given.unsaid() is None and not _takes_null(given):
        body["required"] = ["input"]
    found = _operation(operation, leads)
    found["operationId"] = f"{operation.name}_{label}"
    found["summary"] = f"{operation.summary}: {name}"
    if definition.description:
        found["description"] = definition.description
    found["tags"] = list(definition.tags)
    found["parameters"] = [
        _IDEMPOTENCY_KEY,
        *(one for one in found["parameters"] if one["in"] == "header"),
    ]
    needed = bool(body.get("required"))
    found["requestBody"] = {"required": needed, "content": {"application/json": {"schema": body}}}
    output = _adopt(json_schema(getattr(definition, "output_schema", None), output=True), f"{label}.output", schemas)
    if operation.name == "run":
        schemas[f"{label}.Outcome"] = {
            **schemas["Outcome"],
            "properties": {**schemas["Outcome"]["properties"], "output": output},
        }
        done = found["responses"]["200"]["content"]["application/json"]
        done["schema"] = {"$ref": f"{_REF}{label}.Outcome"}
    return found


def _takes_nothing(body: type[BaseModel]) -> bool:
    """Tell whether an empty body, which is read as one without members, will do."""
    try:
        body.model_validate({})
    except ValidationError:
        return False
    return True


def _takes_null(schema: Any) -> bool:
    try:
        schema.decode("null", "the input", strict=True)
    except Exception:  # noqa: BLE001  validators of the user's
        return False
    return True


def _adopt(schema: dict[str, Any], prefix: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Move a schema's own definitions to the document's components, under names that no other schema has."""
    moved: dict[str, Any] = _moved(schema, prefix)
    for name, definition in moved.pop("$defs", {}).items():
        schemas[f"{prefix}.{_safe(name)}"] = definition
    return moved


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _moved(value: Any, prefix: str) -> Any:
    if isinstance(value, list):
        return [_moved(item, prefix) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _moved(item, prefix) for key, item in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith(_LOCAL):
        found["$ref"] = f"{_REF}{prefix}.{_safe(reference.removeprefix(_LOCAL))}"
    mapping = value.get("mapping")
    if isinstance(mapping, dict) and "propertyName" in value:
        found["mapping"] = {
            key: f"{_REF}{prefix}.{_safe(item.removeprefix(_LOCAL))}" if str(item).startswith(_LOCAL) else item
            for key, item in mapping.items()
        }
    return found
