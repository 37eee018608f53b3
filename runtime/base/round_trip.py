"""Types whose values do not come back from JSON as they were: found by looking at the type, before anything runs.

A payload is written by alias and read by pydantic's validation. Where the two do not use the same names, the value is lost, and the
loss would show only after a step's work was done. Secrets are written as asterisks: they are no payload.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["find_secret", "holds_secrets", "round_trip_fault"]

_FIELDS = frozenset({"model-field", "dataclass-field", "typed-dict-field"})
_DEEPEST = 100


def round_trip_fault(schema: Any) -> str | None:
    """Return what keeps values of a type (its core schema) from surviving JSON, with the remedy; None for nothing."""
    return next(_faults(schema, "", {}), None)


def _faults(node: Any, owner: str, config: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(node, list | tuple):
        for item in node:
            yield from _faults(item, owner, config)
    if not isinstance(node, dict):
        return
    cls = node.get("cls")
    owner = getattr(cls, "__name__", owner) if node.get("type") in ("model", "dataclass", "typed-dict") else owner
    config = node.get("config") or config
    if node.get("computed_fields") and config.get("extra_fields_behavior") == "forbid":
        name = node["computed_fields"][0].get("property_name")
        yield (
            f'{owner}.{name} is computed and would be written, and extra="forbid" refuses it when the value is read back; '
            'use extra="ignore", or a plain property'
        )
    for name, field in _named_fields(node.get("fields")):
        fault = _field_fault(owner, name, field, config)
        if fault is not None:
            yield fault
    for key, inner in node.items():
        if key not in ("metadata", "config", "cls"):
            yield from _faults(inner, owner, config)


def _named_fields(fields: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(fields, dict):
        yield from ((name, field) for name, field in fields.items() if isinstance(field, dict))
    elif isinstance(fields, list):
        yield from ((field.get("name", "?"), field) for field in fields if isinstance(field, dict))


def _field_fault(owner: str, name: str, field: dict[str, Any], config: Mapping[str, Any]) -> str | None:
    if field.get("type") not in _FIELDS:
        return None
    written = field.get("serialization_alias", name)
    read = _read_names(name, field, config)
    if field.get("serialization_exclude"):
        if field.get("schema", {}).get("type") == "default":
            return None
        return f"{owner}.{name} is excluded from what is written and has no default to be read back; give it one"
    if written not in read:
        return (
            f"{owner}.{name} is written as {written!r} and read as {' or '.join(map(repr, sorted(read)))}; use alias= for both, or "
            "validation_alias=AliasChoices(…) with both names"
        )
    return None


def _read_names(name: str, field: dict[str, Any], config: Mapping[str, Any]) -> set[str]:
    alias = field.get("validation_alias")
    if alias is None:
        return {name}
    paths = [[alias]] if isinstance(alias, str) else alias if alias and isinstance(alias[0], list) else [alias]
    names = {str(path[0]) for path in paths if len(path) == 1}
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    return names | {name} if by_name else names or {"(a path of keys)"}


def holds_secrets(schema: Any) -> bool:
    """Tell whether values of a type (its core schema) may hold a secret (`SecretStr` and the like)."""
    if isinstance(schema, list | tuple):
        return any(holds_secrets(item) for item in schema)
    if isinstance(schema, dict):
        return any(holds_secrets(inner) for key, inner in schema.items() if key not in ("metadata", "config"))
    return isinstance(schema, type) and hasattr(schema, "get_secret_value")  # the class that makes the value


def find_secret(value: Any) -> str | None:
    """Return the path of a secret in a value, such as "user.password"; "" for the value itself, None where it holds none.

    An empty secret is none: nothing is lost when it is written.
    """
    return next(_secrets(value, "", 0), None)


def _secrets(value: Any, path: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST or value is None or isinstance(value, str | bytes | int | float):
        return
    if callable(reveal := getattr(value, "get_secret_value", None)) and not isinstance(value, type):
        if reveal():
            yield path
        return
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        items = ((str(number), item) for number, item in enumerate(value))
    elif dataclasses.is_dataclass(value) or hasattr(type(value), "model_fields"):
        items = iter(vars(value).items())
    else:
        return
    for key, item in items:
        yield from _secrets(item, f"{path}.{key}" if path else str(key), depth + 1)
