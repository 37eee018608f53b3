"""A workflow as a drawing: boxes and arrows, from its definition, from a journal, or from both. Pure; what draws it is elsewhere.

A box's key is the journal key of its step without occurrences: `charge#2` is a visit of the box `charge`, and a step in a branch
has the path of the branch. Where a drawing begins and ends, and where branches meet again, are boxes of their own, whose keys hold a
`#`, which no step's name can.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..base.records import TERMINAL, Instance, Status, StepResult, StepStatus
from .graph import Graph
from .machine import MachineDefinition
from .outline import outline

__all__ = ["END", "START", "Arrow", "Box", "Diagram", "Group", "diagram_of", "journal_diagram", "marked"]

START, END = "#start", "#end"
_JOIN = "#join"
_LABELS = {"default": "default", "loop": "again"}
_QUIET = frozenset({"now", "random", "uuid4", "rng", "patched", "update", "emit", "metadata"})
_OCCURRENCE = re.compile(r"#\d+")


@dataclass(frozen=True, slots=True)
class Box:
    """A step or a state. `status` is that of its last visit, `visits` how many there were; both are set by `marked`."""

    key: str
    name: str
    kind: str
    group: str | None = None
    status: str | None = None
    visits: int = 0


@dataclass(frozen=True, slots=True)
class Arrow:
    """A way from one box to another; `taken` is set by `marked`."""

    source: str
    target: str
    label: str = ""
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A branch of a parallel step: what is drawn around its boxes. `parent` is the branch that it lies in."""

    key: str
    name: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Diagram:
    """What is to be drawn. `complete` is False where only the code decides what there is: a flow."""

    name: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    groups: tuple[Group, ...] = ()
    complete: bool = True


def diagram_of(definition: Any) -> Diagram:
    """Return the drawing of a definition: all of a step graph or a state class; of a flow only where it begins and ends."""
    ends = (Box(START, "start", "start"), Box(END, "end", "end"))
    outlined = outline(definition)
    if not isinstance(definition, Graph | MachineDefinition):
        return Diagram(definition.name, ends, (Arrow(START, END),), complete=False)
    boxes, arrows, groups = [ends[0]], [Arrow(START, outlined["start"])], list[Group]()
    _walk(outlined["nodes"], "", None, END, boxes, arrows, groups)
    return Diagram(definition.name, (*boxes, ends[1]), tuple(arrows), tuple(groups))


def _walk(
    nodes: Iterable[dict[str, Any]],
    scope: str,
    group: str | None,
    end: str,
    boxes: list[Box],
    arrows: list[Arrow],
    groups: list[Group],
) -> None:
    """Add the boxes of one level; `end` is where its steps without a successor lead."""
    for node in nodes:
        key = f"{scope}{node['name']}"
        boxes.append(Box(key, node["name"], node["kind"], group))
        leave = key
        if node["branches"]:
            leave = f"{key}{_JOIN}"
            for branch in node["branches"]:
                inner = Group(f"{key}/{branch['name']}", branch["name"], group)
                groups.append(inner)
                arrows.append(Arrow(key, f"{inner.key}/{branch['start']}"))
                _walk(branch["nodes"], f"{inner.key}/", inner.key, leave, boxes, arrows, groups)
            boxes.append(Box(leave, "", "join", group))
        arrows += [
            Arrow(leave, end if edge["to"] is None else f"{scope}{edge['to']}", _label(edge)) for edge in node["edges"]
        ]


def _label(edge: dict[str, Any]) -> str:
    """Return what stands at an arrow: the name of a condition that has one."""
    if edge["kind"] in _LABELS:
        return _LABELS[edge["kind"]]
    words = edge["label"] or ""
    return words if words.isidentifier() and not keyword.iskeyword(words) else ""


# --- with a journal ---


def _place(key: str) -> str:
    return _OCCURRENCE.sub("", key)


def _visits(instance: Instance) -> list[StepResult]:
    return [step for step in instance.step_results.values() if step.kind not in _QUIET]


def journal_diagram(instance: Instance) -> Diagram:
    """Return a drawing of what an instance has done so far, one step after the other: its journal alone."""
    steps = _visits(instance)
    boxes = [Box(START, "start", "start")]
    boxes += [Box(step.key, step.key, step.kind, None, step.status.value, max(1, step.attempts)) for step in steps]
    over = instance.status in TERMINAL
    if over:
        boxes.append(Box(END, instance.status.value, "end", None, _ending(instance)))
    keys = [box.key for box in boxes]
    arrows = [Arrow(source, target, "", taken=True) for source, target in itertools.pairwise(keys)]
    return Diagram(instance.workflow_name, tuple(boxes), tuple(arrows), (), over)


def marked(diagram: Diagram, instance: Instance) -> Diagram:
    """Return the drawing with what an instance has done: the boxes' statuses, and the arrows that it took."""
    if not diagram.complete:
        return journal_diagram(instance)
    known = {box.key for box in diagram.boxes}
    visited: dict[str, list[StepResult]] = {}
    for step in _visits(instance):
        if _place(step.key) in known:
            visited.setdefault(_place(step.key), []).append(step)
    taken = set(_taken(diagram, instance, known))
    boxes = [replace(box, **_mark(box, visited, instance)) for box in diagram.boxes]
    arrows = [replace(arrow, taken=(arrow.source, arrow.target) in taken) for arrow in diagram.arrows]
    return replace(diagram, boxes=tuple(boxes), arrows=tuple(arrows))


def _mark(box: Box, visited: Mapping[str, list[StepResult]], instance: Instance) -> dict[str, Any]:
    if box.key == END:
        return {"status": _ending(instance) if instance.status in TERMINAL else None}
    if box.key == START:
        return {"status": StepStatus.COMPLETED.value if instance.started_at else None}
    steps = visited.get(box.key.removesuffix(_JOIN), [])
    if not steps or (box.kind == "join" and steps[-1].status is not StepStatus.COMPLETED):
        return {}
    status = steps[-1].status
    if status is StepStatus.RUNNING and instance.status in (Status.WAITING, Status.SLEEPING):
        status = StepStatus.WAITING  # a state whose code waits for something
    return {"status": status.value, "visits": len(steps)}


def _ending(instance: Instance) -> str:
    return instance.status.value


def _taken(diagram: Diagram, instance: Instance, known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the arrows that the order of the journal shows: a step leads to the next one of its own scope.

    A loop's later decisions have no row of their own; its jump shows as an earlier step that comes after it.
    """
    ways = {(arrow.source, arrow.target) for arrow in diagram.arrows}
    last: dict[str, str] = {}
    for step in _visits(instance):
        place, scope = _place(step.key), step.key.rpartition("/")[0]
        if place not in set(known):
            continue
        source = last.get(scope, START if not scope else _place(scope.rpartition("/")[0]))
        yield from _through(source, place, ways, diagram)
        last[scope] = place
    for scope, place in last.items():
        if not scope and instance.status is Status.COMPLETED:
            yield from _through(place, END, ways, diagram)
        elif scope:
            holder = instance.step_results.get(scope.rpartition("/")[0])
            if holder is not None and holder.status is StepStatus.COMPLETED:
                yield place, f"{_place(holder.key)}{_JOIN}"


def _through(source: str, target: str, ways: set[tuple[str, str]], diagram: Diagram) -> Iterator[tuple[str, str]]:
    """Yield the arrow between two boxes; or those over a loop that lies between them and has a row already."""
    for way in ((source, target), (f"{source}{_JOIN}", target)):
        if way in ways:
            yield way
            return
    for box in diagram.boxes:
        if box.kind == "loop" and (source, box.key) in ways and (box.key, target) in ways:
            yield from ((source, box.key), (box.key, target))
