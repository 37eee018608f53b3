"""What a request says, checked: the query, and a JSON body that is bounded before it is read."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
)
from starlette.requests import Request

from ..base.duration import parse_duration
from ..base.errors import ConfigError
from .problems import Problem
from .served import Served

__all__ = [
    "KEY",
    "LARGEST",
    "NOTHING",
    "Call",
    "DetailQuery",
    "DurationText",
    "EventsQuery",
    "InstanceEventsQuery",
    "InstanceId",
    "InstancesQuery",
    "Key",
    "KillsQuery",
    "LogsQuery",
    "PayloadQuery",
    "Query",
    "ResultQuery",
    "integral",
    "read_body",
    "read_json",
    "read_query",
    "refuse",
]

#: A body that was left out; null is a value.
NOTHING: Any = object()

_SLACK = 64 * 1024
_BODY_TIMEOUT = 60.0
LARGEST = 2**62  # of what a cursor may be: a database's integers end at twice that
_PART = r"[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|sec|m|min|h|d|w)"
_DURATION_PATTERN = f"^{_PART}( ?{_PART})*$"
_LONGEST_KEY = 1000
_LONGEST = 1e9


def _digits(value: object) -> object:
    """Read a whole number of a query: digits and nothing else, so that what is answered is what the description promises."""
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) < 20:  # noqa: PLR2004
            return int(value)
        raise ValueError("it must be a whole number")
    return value


def _duration(value: object) -> object:
    """Read a duration: seconds, or text of the pattern that is described."""
    if isinstance(value, str) and not re.fullmatch(_DURATION_PATTERN, value):
        raise ValueError('it must be a duration, such as 30 (seconds), "5min" or "1h 30min"')
    if isinstance(value, int | float) and value > _LONGEST:
        raise ValueError(f"it must be at most {_LONGEST:.0f} seconds")
    try:
        return parse_duration(value)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ValueError(str(error)) from None


def integral(value: object) -> object:
    """Take 5.0 for 5: JSON does not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The bounds stand before the validator, for what stands behind it is not described.
Cursor = Annotated[int, Field(ge=0, le=LARGEST), BeforeValidator(_digits)]
Count = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_digits)]
PageSize = Annotated[int, Field(ge=1, le=500), BeforeValidator(_digits)]
Key = Annotated[str, Field(min_length=1, max_length=_LONGEST_KEY)]
KEY: dict[str, JsonValue] = {"minLength": 1, "maxLength": _LONGEST_KEY}
Flag = Literal["0", "1", "true", "false"]
_DURATION_SCHEMA = {
    "anyOf": [{"type": "number", "minimum": 0, "maximum": _LONGEST}, {"type": "string", "pattern": _DURATION_PATTERN}],
    "description": 'seconds, or text such as "5min" or "1h 30min"',
}
#: Seconds, or text such as "5min"; seconds once it is read.
DurationText = Annotated[float, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]

#: Only described here: `check_instance_id` judges, and says what may stand in an id.
InstanceId = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._:@+=~-]{0,127}$"})]


class Query(BaseModel):
    """What an operation without a query takes: nothing. The base of the others, where `None` is what was not asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResultQuery(Query):
    """How long to wait for a result."""

    timeout: (
        Annotated[
            float,
            BeforeValidator(_duration),
            WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN}),
        ]
        | None
    ) = None


class InstancesQuery(Query):
    """Which page of instances."""

    workflow: list[str] = Field(default_factory=list)
    status: list[str] = Field(default_factory=list)
    q: str | None = Field(default=None, max_length=200)
    parent: str | None = Field(default=None, max_length=200)
    limit: PageSize = 50
    before: Cursor | None = None
    after: Cursor | None = None


class DetailQuery(Query):
    """How long values may be."""

    values: Literal["full", "short"] = "full"


class PayloadQuery(Query):
    """Which value."""

    of: Literal["input", "output"] = "output"
    step: str | None = Field(default=None, max_length=2000)


class FollowQuery(Query):
    """Which page, or from where on."""

    after: Cursor | None = None
    before: Cursor | None = None
    order: Literal["asc", "desc"] = "asc"
    limit: Count = 100
    tail: Count | None = None
    follow: Flag = "true"
    until: Literal["end"] | None = None


class InstanceEventsQuery(FollowQuery):
    """Which events of an instance."""

    pattern: str = Field(default="*", min_length=1, max_length=300)
    short: Flag = "0"


class EventsQuery(InstanceEventsQuery):
    """Which events of all."""

    instance_id: str | None = Field(default=None, max_length=200)


class LogsQuery(FollowQuery):
    """Which log records."""

    level: Literal["debug", "info", "warning", "error", "critical"] | None = None


class KillsQuery(Query):
    """Which kills."""

    limit: PageSize = 50
    before: Cursor | None = None
    instance_id: str | None = Field(default=None, max_length=200)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read and checked."""

    served: Served
    request: Request
    query: Any = None
    body: Any = None

    @property
    def id(self) -> str:
        """Return the id in the path."""
        return str(self.request.path_params["id"])

    def wants(self, media: str) -> bool:
        """Tell whether the caller names a media type that it accepts."""
        return any(
            part.partition(";")[0].strip().lower() == media
            for part in self.request.headers.get("accept", "").split(",")
        )


def refuse(error: ValidationError, where: str) -> Problem:
    """Return the problem of values that do not fit, field by field, without the values."""
    found = [
        {
            # the tags of unions are our own
            "where": ".".join([where, *(str(part) for part in item["loc"] if not str(part).startswith("("))]),
            "message": item["msg"].removeprefix("Value error, "),
        }
        for item in error.errors(include_url=False, include_input=False, include_context=False)[:20]
    ]
    detail = "; ".join(f"{item['where']}: {item['message']}" for item in found[:3])
    return Problem(422, "InvalidRequest", detail, errors=found)


def read_query(kind: type[Query], request: Request) -> Query:
    """Return the query of a request.

    Raises:
        Problem: a value does not fit, or there is no such parameter: one that is misspelt would answer another question.
    """
    for name in request.query_params:
        if name not in kind.model_fields:
            there_are = f"there are {', '.join(kind.model_fields)}" if kind.model_fields else "none is taken here"
            message = f"there is no such parameter; {there_are}"
            where = f"query.{name:.100}"
            raise Problem(422, "InvalidRequest", f"{where}: {message}", errors=[{"where": where, "message": message}])
    given: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        values = request.query_params.getlist(name)
        if not values:
            continue
        if any("\0" in value for value in values):
            raise Problem(422, "InvalidRequest", f"query.{name}: it holds a NUL character")
        if field.annotation == list[str]:
            given[name] = [part for value in values for part in value.split(",") if part]
        elif len(values) > 1:
            raise Problem(422, "InvalidRequest", f"query.{name}: it is given more than once")
        else:
            given[name] = values[0]
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise refuse(error, "query") from None


async def read_json(request: Request, limit: int) -> Any:
    """Return a body's JSON value, `NOTHING` for an empty body. Never holds more than `limit` bytes and a little.

    Raises:
        Problem: it is too large, too slow, or no JSON.
    """
    most = limit + _SLACK
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
    except TimeoutError:
        raise Problem(408, "RequestTimeout", "the body did not come in time", headers={"Connection": "close"}) from None
    raw = b"".join(parts)
    if not raw.strip():
        return NOTHING
    try:
        return pydantic_core.from_json(raw, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "BadRequest", f"the body is no JSON: {str(error)[:200]}") from None


def _too_large(most: int) -> Problem:
    return Problem(413, "BodyTooLarge", f"the body is larger than {most:,} bytes", headers={"Connection": "close"})


def read_body(kind: type[BaseModel], value: Any) -> Any:
    """Return a body as its model; one that was left out as one without members.

    Raises:
        Problem: it does not fit.
    """
    try:
        # through JSON text: in Python's strict mode a list is no tuple, and text no date
        return kind.model_validate_json(json.dumps({} if value is NOTHING else value))
    except ValidationError as error:
        raise refuse(error, "body") from None
    except (ValueError, RecursionError):
        raise Problem(
            422, "InvalidRequest", "the body holds text that UTF-8 cannot carry, or is nested too deep"
        ) from None
