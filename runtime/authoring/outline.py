"""What a definition looks like from outside, as plain JSON: its nodes and the ways between them, and the signals that it waits for.

A graph says it exactly. Of a flow and a state class only the source can be read: the names of steps in the order in which they
stand, the states that a state's code names as its successors. That is for people to look at; nothing decides by it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from ..base.errors import PaddockError
from ..base.values import Schema, plain_json
from ..engine.definition import Definition
from ..engine.retry import Retry
from .action import Action, ActionWorkflow
from .flow import Flow
from .graph import Graph
from .machine import MachineDefinition
from .nodes import ChoiceNode, Node, ParallelNode, TaskNode
from .waiting import ChildNode, JobNode, LoopNode, PollNode, SleepNode, WaitEventNode

__all__ = ["describe", "json_schema", "outline", "signals_of", "style_of"]

_LABEL_AT_MOST = 80
#: Methods of a flow's context, and of a state class, that make a step whose name is their first argument.
_FLOW_KINDS = {
    "step": "step",
    "sleep": "sleep",
    "interrupt": "wait_event",
    "wait_event": "wait_event",
    "poll": "poll",
    "run_action": "action",
    "start": "start",
}


def style_of(definition: Definition) -> str:
    """Return which front end made a definition: graph, flow, machine or action."""
    if isinstance(definition, Graph):
        return "graph"
    if isinstance(definition, Flow):
        return "flow"
    return "machine" if isinstance(definition, MachineDefinition) else "action"


def describe(definition: Definition) -> dict[str, Any]:
    """Return what there is to know of a workflow before it runs; schemas are JSON schemas, `{}` for plain JSON."""
    return {
        "name": definition.name,
        "style": style_of(definition),
        "description": definition.description,
        "tags": list(definition.tags),
        "version": definition.fingerprint(),
        "isolated": definition.isolated,
        "timeout": definition.timeout,
        "total_steps": definition.total_steps,
        "input": json_schema(definition.input_schema),
        "output": json_schema(getattr(definition, "output_schema", None), output=True),
        "stream": json_schema(getattr(definition, "chunk_schema", None), output=True),
        "signals": signals_of(definition),
    }


def outline(definition: Definition) -> dict[str, Any]:
    """Return the nodes of a definition: `{"exact", "start", "nodes": [{"name", "kind", "end", "edges", "branches", "details"}]}`.

    An edge is `{"to": name or None for the end, "kind": "next" | "choice" | "default" | "loop" | "end", "label"}`. The answer is
    shared: do not change it.
    """
    return _outline(cast("Any", definition))


@functools.lru_cache(maxsize=1024)
def _outline(definition: Any) -> dict[str, Any]:
    if isinstance(definition, Graph):
        return {"exact": True, "start": definition.start, "nodes": _nodes(definition.nodes)}
    nodes: list[dict[str, Any]] = []
    start = None
    if isinstance(definition, Flow):
        nodes = list(_flow_nodes(definition))
    elif isinstance(definition, MachineDefinition):
        nodes, start = _machine_nodes(definition), definition.machine.start
    elif isinstance(definition, ActionWorkflow):
        start = definition.action.name
        nodes = [_node(start, "action", [_edge(None, "end")], end=True)]
    return {"exact": isinstance(definition, ActionWorkflow), "start": start, "nodes": nodes}


def signals_of(definition: Definition) -> list[dict[str, Any]]:
    """Return the signals that a definition is known to wait for: `{"name", "step", "schema"}` each."""
    found = []
    todo = list(outline(definition)["nodes"])
    while todo:
        node = todo.pop(0)
        for branch in node["branches"]:
            todo += branch["nodes"]
        if node["kind"] == "wait_event":
            found.append({"name": node["name"], "step": node["name"], "schema": node["details"].get("schema", {})})
        found += [
            {"name": name, "step": node["name"], "schema": schema}
            for name, schema in node["details"].get("waits_for", {}).items()
        ]
    return found


def json_schema(schema: Schema | None, *, output: bool = False) -> dict[str, Any]:
    """Return a schema's JSON schema; `{}` for none, and for a type that has none."""
    if schema is None:
        return {}
    unsaid = None if output else schema.unsaid()
    default = {} if unsaid is None else {"default": plain_json(schema.encode(unsaid, "the default"))}
    if not schema.typed:
        return default
    try:
        return {**schema.adapter().json_schema(mode="serialization" if output else "validation"), **default}
    except (
        PaddockError,
        ValueError,
        TypeError,
        RuntimeError,
    ):  # types with validators of their own may have no JSON schema
        return {}


# --- graphs ---


def _nodes(nodes: Mapping[str, Node]) -> list[dict[str, Any]]:
    return [_graph_node(node) for node in nodes.values()]


def _node(name: str, kind: str, edges: list[dict[str, Any]], *, end: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "end": end, "edges": edges, "branches": [], "details": {}, **more}


def _edge(to: str | None, kind: str, label: str | None = None) -> dict[str, Any]:
    return {"to": to, "kind": kind, "label": label}


def _graph_node(node: Node) -> dict[str, Any]:
    branches: list[dict[str, Any]] = []
    if isinstance(node, ParallelNode):
        branches = [{"name": one.name, "start": one.start, "nodes": _nodes(one.nodes)} for one in node.branches]
    return _node(
        node.name,
        node.kind,
        _edges(node),
        end=None in node.targets(),
        branches=branches,
        details={key: value for key, value in _details(node).items() if value is not None},
    )


def _edges(node: Node) -> list[dict[str, Any]]:
    if isinstance(node, ChoiceNode):
        edges = [_edge(target, "choice", _words(condition)) for condition, target in node.choices]
        return edges + ([_edge(node.default, "default")] if node.default else [])
    onward = _edge(node.next, "end" if node.next is None else "next")
    if isinstance(node, LoopNode):
        return [_edge(node.target, "loop", _words(node.condition)), onward]
    return [onward]


_DETAILS: dict[type[Node], tuple[str, ...]] = {
    TaskNode: ("timeout", "retry"),
    PollNode: ("interval", "timeout", "max_attempts"),
    SleepNode: ("seconds",),
    LoopNode: ("interval", "timeout", "max_iterations"),
    WaitEventNode: ("timeout", "schema"),
    ChildNode: ("workflow",),
    JobNode: ("workflow", "timeout", "retry"),
    ParallelNode: ("on_error",),
}


def _details(node: Node) -> dict[str, Any]:
    return {name: _plain(getattr(node, name)) for name in _DETAILS.get(type(node), ())}


def _plain(value: Any) -> Any:
    if isinstance(value, Schema):
        return json_schema(value)
    if isinstance(value, Retry):
        return value.model_dump(exclude={"retry_on"}) if value.max_attempts > 1 else None
    return value


def _words(condition: Callable[..., Any]) -> str | None:
    """Return a condition as a person wrote it: a function's name, a lambda's body."""
    name = getattr(condition, "__name__", None)
    if name != "<lambda>":
        return name
    code = condition.__code__
    spans = []
    for place in code.co_positions():
        line, end_line, column, end_column = place
        if None not in place and (line, column) != (end_line, end_column):  # what starts and returns has no width
            spans.append(((line, column), (end_line, end_column)))
    if not spans:
        return None
    (first, left), (last, right) = min(s for s, _ in spans), max(e for _, e in spans)
    lines = [linecache.getline(code.co_filename, number) for number in range(first or 0, (last or 0) + 1)]
    if not all(lines):
        return None
    raw = [line.encode() for line in lines]  # columns count bytes
    raw[-1] = raw[-1][:right]
    raw[0] = raw[0][left:]
    text = " ".join(part.decode(errors="replace").strip() for part in raw)
    return text if len(text) <= _LABEL_AT_MOST else text[: _LABEL_AT_MOST - 1] + "…"


# --- what source tells ---


def _tree(code: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(code))))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None


def _calls(tree: ast.AST, owner: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of methods of a variable, in the order in which they stand."""
    found = [
        (node.func.attr, node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == owner
        and node.args
    ]
    yield from sorted(found, key=lambda item: (item[1].lineno, item[1].col_offset))


def _value(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    """Return what a name or a constant of the source stands for, None where it cannot be told."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return scope.get(node.id, getattr(__import__("builtins"), node.id, None))
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return getattr(scope.get(node.value.id), node.attr, None)
    return None


def _schema_argument(call: ast.Call, scope: Mapping[str, Any]) -> dict[str, Any]:
    given = call.args[1] if len(call.args) > 1 else None
    given = next((word.value for word in call.keywords if word.arg == "schema"), given)
    found = _value(given, scope) if given is not None else None
    return json_schema(Schema(found)) if found is not None else {}


def _flow_nodes(flow: Flow[Any, Any]) -> Iterator[dict[str, Any]]:
    tree = _tree(flow.function)
    owner = _context_name(flow)
    if tree is None or owner is None:
        return
    scope = getattr(inspect.unwrap(flow.function), "__globals__", {})
    seen: set[tuple[str, str]] = set()
    for method, call in _calls(tree, owner):
        kind = _FLOW_KINDS.get(method)
        name = _value(call.args[0], scope) if kind else None
        if isinstance(name, Action | Flow):
            name = name.name
        if kind is None or not isinstance(name, str) or (kind, name) in seen:
            continue
        seen.add((kind, name))
        details = {"schema": _schema_argument(call, scope)} if kind == "wait_event" else {}
        yield _node(name, kind, [], details=details)


def _context_name(flow: Flow[Any, Any]) -> str | None:
    names = [
        parameter.name
        for parameter in inspect.signature(flow.function).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return next((name for name, wants in zip(names, flow.handler.arguments, strict=False) if wants), None)


def _machine_nodes(definition: MachineDefinition) -> list[dict[str, Any]]:
    machine = definition.machine
    methods = {name: inspect.unwrap(getattr(machine, name)) for name in machine.states}
    ordered = sorted(methods, key=lambda name: (name != machine.start, methods[name].__code__.co_firstlineno))
    return [_state_node(name, methods[name], machine.states) for name in ordered]


def _state_node(name: str, method: Any, states: tuple[str, ...]) -> dict[str, Any]:
    tree = _tree(method)
    if tree is None:
        return _node(name, "state", [])
    targets: list[str | None] = []
    returns = sorted((node for node in ast.walk(tree) if isinstance(node, ast.Return)), key=_place_of)
    for node in returns:
        targets += _targets(node.value, states)
    body = tree.body[0].body if isinstance(tree, ast.Module) and isinstance(tree.body[0], ast.AsyncFunctionDef) else []
    if body and not isinstance(body[-1], ast.Return | ast.Raise | ast.If | ast.Match | ast.While | ast.Try):
        targets.append(None)  # it runs off its end, which ends the machine
    edges = [_edge(target, "end" if target is None else "next") for target in dict.fromkeys(targets)]
    waits = {
        waited: _schema_argument(call, method.__globals__)
        for method_name, call in _calls(tree, "self")
        if method_name == "wait_event" and isinstance(waited := _value(call.args[0], method.__globals__), str)
    }
    details = {"waits_for": waits} if waits else {}
    return _node(name, "state", edges, end=None in targets, details=details)


def _targets(value: ast.expr | None, states: tuple[str, ...]) -> Iterator[str | None]:
    """Yield the states that a returned expression names, in the order in which they stand; None is the end."""
    if value is None:
        yield None
        return
    for part in sorted(
        (one for one in ast.walk(value) if isinstance(one, ast.Attribute | ast.Constant)), key=_place_of
    ):
        name = part.attr if isinstance(part, ast.Attribute) else part.value
        if name is None or name in states:
            yield name if name is None else str(name)


def _place_of(node: ast.expr | ast.Return) -> tuple[int, int]:
    return node.lineno, node.col_offset
