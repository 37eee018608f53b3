"""What every front end compiles to, and the registry of what was built.

The registry is the one piece of global state: a child that has imported a module finds a definition there by its name, also where it
is no attribute of the module.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ..base.values import Schema
from .context import Frame

__all__ = ["BUILT", "Definition"]


@runtime_checkable
class Definition(Protocol):
    """A workflow, as the runtime sees it."""

    name: str
    module: str | None
    isolated: bool
    timeout: float | None
    description: str | None
    tags: tuple[str, ...]

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

    async def run(self, frame: Frame) -> tuple[Any, Schema]:
        """Run an instance from the top and return its output with the output's schema."""
        ...


#: Definitions by (module, name), in the order they were built.
BUILT: dict[tuple[str | None, str], Definition] = {}
