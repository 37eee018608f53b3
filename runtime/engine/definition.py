"""What every front end compiles to, and the registry of what was built.

The registry is the one piece of global state: a child that has imported a module finds a definition there by its name, also where it
is no attribute of the module.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from ..base.errors import InvalidWorkflow
from ..base.values import Schema
from .context import Frame

__all__ = ["BUILT", "Defining", "Definition", "WorkflowLike", "check_schemas", "definition_of"]


@runtime_checkable
class Definition(Protocol):
    """A workflow, as the runtime sees it."""

    @property
    def name(self) -> str:
        """Return the name by which it is registered and started."""
        ...

    @property
    def module(self) -> str | None:
        """Return the module that built it, where a child imports it from."""
        ...

    @property
    def isolated(self) -> bool:
        """Tell whether each instance gets a process of its own."""
        ...

    @property
    def timeout(self) -> float | None:
        """Return the instance's deadline in seconds from its first start."""
        ...

    @property
    def description(self) -> str | None:
        """Return what it is for."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Return its tags."""
        ...

    @property
    def input_schema(self) -> Schema:
        """Return the schema that an input must pass at the door."""
        ...

    @property
    def total_steps(self) -> int | None:
        """Return how many steps there are, None where the code decides."""
        ...

    def fingerprint(self) -> str:
        """Return a text that changes when the definition's shape does."""
        ...

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return every schema that is known before it runs, each with what it is the schema of."""
        ...

    async def run(self, frame: Frame) -> tuple[Any, Schema]:
        """Run an instance from the top and return its output with the output's schema."""
        ...


class Defining(Protocol):
    """What leads to a definition: a state class, an action."""

    @property
    def __paddock_definition__(self) -> Any:
        """Return the definition."""
        ...


#: What users hand over as a workflow.
WorkflowLike = Definition | Defining

#: Definitions by (module, name), in the order they were built.
BUILT: dict[tuple[str | None, str], Definition] = {}


def definition_of(value: Any) -> Any:
    """Return the definition behind what users hold: itself, or that of a state class or an action."""
    if isinstance(value, type) or hasattr(type(value), "__paddock_definition__"):
        return getattr(value, "__paddock_definition__", None) or value
    return value


def check_schemas(definition: Definition) -> None:
    """Refuse a definition whose values would not come back from JSON, before any of its work is done.

    Raises:
        InvalidWorkflow: one of its types cannot be a schema; workflow, place and field are named.
    """
    for what, schema in definition.schemas():
        try:
            schema.adapter()
        except InvalidWorkflow as error:
            raise InvalidWorkflow(f"workflow {definition.name!r}, {what}: {error}") from None
