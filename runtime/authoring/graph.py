"""The step graph: a workflow as data, and what is checked before it is one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..base.errors import InvalidWorkflow
from ..base.values import ANY, Schema
from ..engine.context import Frame
from .nodes import ChoiceNode, Node, TaskNode, count_steps, walk
from .waiting import ChildNode, JobNode, PollNode

__all__ = ["Graph", "check_graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """A workflow made of steps. Immutable; made by `workflow(…)…build()`."""

    name: str
    nodes: Mapping[str, Node]
    start: str
    module: str | None
    isolated: bool = True
    timeout: float | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    declared_input: Schema = ANY

    @property
    def input_schema(self) -> Schema:
        """The schema of the workflow's input: declared, or that of the first step where it takes the workflow's input."""
        first = self.nodes[self.start]
        if self.declared_input.typed:
            return self.declared_input
        if isinstance(first, TaskNode | PollNode) and first.mapper is None and first.handler.takes_input:
            return first.input
        return first.input if isinstance(first, ChildNode | JobNode) else ANY

    @property
    def total_steps(self) -> int:
        """How many steps the graph has, those in branches included."""
        return sum(count_steps(node) for node in self.nodes.values())

    def fingerprint(self) -> str:
        """Return a short text that changes when steps or the ways between them do."""
        shape = json.dumps([self.start, *(node.shape() for node in self.nodes.values())])
        return hashlib.sha256(shape.encode()).hexdigest()[:16]

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return the schemas of its input and of its steps."""
        yield "its input", self.declared_input
        for node in self.nodes.values():
            yield from node.schemas()

    async def run(self, frame: Frame) -> tuple[Any, Schema]:
        """Walk the graph from its start."""
        frame.input = frame.execution.replay.decode_input(self.declared_input, f"the input of workflow {self.name!r}")
        return await walk(self.nodes, self.start, frame), ANY


def check_graph(what: str, nodes: Mapping[str, Node], start: str) -> None:
    """Refuse a graph that cannot work.

    Raises:
        InvalidWorkflow: an unknown target, a step that cannot be reached, or one from which no end can be; it is named.
    """
    if start not in nodes:
        raise InvalidWorkflow(f"{what} starts at {start!r}, which is no step of it")
    ways = {name: [target for target in node.targets() if target is not None] for name, node in nodes.items()}
    _check_targets(what, nodes, ways)
    reached = _closure({start}, ways.__getitem__)
    for name in nodes:
        if name not in reached:
            raise InvalidWorkflow(f"{what}: step {name!r} cannot be reached from {start!r}")
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for name, targets in ways.items():
        for target in targets:
            before[target].append(name)
    can_end = _closure({name for name, node in nodes.items() if None in node.targets()}, before.__getitem__)
    for name in nodes:
        if name not in can_end:
            raise InvalidWorkflow(f"{what}: from step {name!r} no end can be reached; give a step end=True")


def _check_targets(what: str, nodes: Mapping[str, Node], ways: Mapping[str, list[str]]) -> None:
    for name, targets in ways.items():
        for target in targets:
            if target not in nodes:
                raise InvalidWorkflow(
                    f"{what}, step {name!r}: it goes on to {target!r}, which is no step; there are {', '.join(nodes)}"
                )
        if isinstance(nodes[name], ChoiceNode) and not targets:
            raise InvalidWorkflow(f"{what}, step {name!r}: a choice needs a choice or a default")


def _closure(seeds: set[str], follow: Callable[[str], list[str]]) -> set[str]:
    found, todo = set(seeds), list(seeds)
    while todo:
        for name in follow(todo.pop()):
            if name not in found:
                found.add(name)
                todo.append(name)
    return found
