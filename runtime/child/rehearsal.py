"""A rehearsal in the fork server: what every child would do for the first time is done once, before the first fork.

A small workflow runs in memory, so bytecode is specialised, type caches are filled and pydantic's validators of the registered workflows
are built in memory that all children share. Nothing of it stays open: no loop, no thread, no connection; the audit that follows
would tell.
"""

from __future__ import annotations

import asyncio

from ..authoring.alone import run_alone
from ..authoring.builder import workflow
from ..authoring.graph import Graph
from ..base.errors import PaddockError
from ..engine.definition import BUILT

__all__ = ["build_schemas", "rehearse"]


async def _echo(value: dict[str, int]) -> dict[str, int]:
    return value


def rehearse() -> None:
    """Run a workflow of two steps in memory; takes some 20 ms."""
    import structlog  # noqa: F401  for every child's logger

    asyncio.run(run_alone(_PIECE, {"count": 1}))


def build_schemas() -> None:
    """Build the validators of every workflow that was imported; one that cannot be built fails where it is used."""
    for definition in list(BUILT.values()):
        schemas = [definition.input_schema]
        if isinstance(definition, Graph):
            for node in definition.nodes.values():
                schemas += [found for name in ("input", "output") if (found := getattr(node, name, None)) is not None]
        else:
            schemas.append(getattr(definition, "output_schema", definition.input_schema))
        for schema in schemas:
            try:
                schema.adapter()
            except PaddockError:
                continue


_PIECE = workflow("paddock-rehearsal").task("first", _echo).task("second", _echo).build()
