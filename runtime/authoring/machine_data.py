"""A state machine's data and where it goes next, between any two states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ..base.errors import InvalidState, InvalidWorkflow
from ..base.values import unfit

if TYPE_CHECKING:
    from .machine import StateMachine

__all__ = ["change_data", "merge_data", "next_state"]


def next_state(machine: type[StateMachine[Any]], found: Any) -> str | None:
    """Return the name of the state that a state returned; raises InvalidWorkflow for anything else."""
    name = found if found is None or isinstance(found, str) else getattr(found, "__name__", None)
    if name is not None and name not in machine.states:
        raise InvalidWorkflow(
            f"a state of {machine.name!r} returned {found!r}, which is no state of it: return self.<state>, or None at the end"
        )
    return name


def merge_data(machine: type[StateMachine[Any]], data: BaseModel, patch: dict[str, Any]) -> BaseModel:
    """Return data with top-level keys (names of fields, or their aliases) replaced, validated by the model.

    Raises:
        InvalidState: a key is unknown or a value does not fit; the field is named.
    """
    kind = machine.data_type
    patch = _by_name(kind, patch)
    unknown = [key for key in patch if key not in kind.model_fields]
    if unknown:
        raise InvalidState(f"{kind.__name__} has no field {unknown[0]!r}")
    changed = {kind.model_fields[key].serialization_alias or key: value for key, value in patch.items()}
    try:
        return kind.model_validate({**data.model_dump(mode="json", by_alias=True), **changed})
    except ValidationError as error:
        raise unfit(InvalidState, f"the update does not fit {kind.__name__}", error) from None


def change_data(machine: type[StateMachine[Any]], data: BaseModel, patch: dict[str, Any]) -> None:
    """Replace top-level keys of data in place, validated by the model.

    In place, because a state's code may hold on to what it has read: in ``self.data.sent.append(await self.action(…))`` the list is
    looked up before the wait in which an update comes.

    Raises:
        InvalidState: see `merge_data`; nothing was changed.
    """
    patch = _by_name(machine.data_type, patch)
    merged = merge_data(machine, data, patch)
    for name in machine.data_type.model_fields:
        value = getattr(merged, name)
        if name in patch or value != getattr(data, name):
            data.__dict__[name] = value
    data.__pydantic_fields_set__.update(patch)


def _by_name(kind: type[BaseModel], patch: dict[str, Any]) -> dict[str, Any]:
    """Return a patch by the names of fields; outside, where there is the JSON schema alone, they are known by their aliases."""
    names = {field.alias: name for name, field in kind.model_fields.items() if field.alias}
    return {key if key in kind.model_fields else names.get(key, key): value for key, value in patch.items()}
