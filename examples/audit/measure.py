"""Measure Python modules by their syntax trees. Plain code: it knows nothing of workflows."""

import ast
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Function", "Module", "find_modules", "measure_module"]

_SKIPPED = {"__pycache__", "dist-packages", "site-packages", "test", "tests", "idle_test", "lib2to3", "idlelib"}
_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.Assert, ast.comprehension)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Until 3.13 the builder of the syntax tree counts its depth once for all threads, and fails when two take turns in it:
# "SystemError: AST constructor recursion depth mismatch" (CPython issue 106905). The GIL lets one work at a time anyhow.
_PARSING = threading.Lock()


@dataclass
class Function:
    """One function: where it is, how long, and how many ways lead through it (McCabe's cyclomatic complexity)."""

    name: str
    line: int
    lines: int
    complexity: int


@dataclass
class Module:
    """What the audit says of one module."""

    path: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    complexity: int = 0
    undocumented: int = 0
    imports: list[str] = field(default_factory=list)
    worst: Function | None = None
    problem: str | None = None


def find_modules(root: str) -> list[tuple[str, int]]:
    """Return the path (relative to the root) and the size in bytes of each module below it, tests left out; the largest first."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                found.append((os.path.relpath(path, root), os.stat(path).st_size))
    return sorted(found, key=lambda item: (-item[1], item[0]))


def measure_module(root: str, path: str) -> Module:
    """Parse one module and measure it; one that does not parse is part of the result."""
    with open(os.path.join(root, path), "rb") as file:
        source = file.read()
    module = Module(path, lines=source.count(b"\n") + 1)
    try:
        with _PARSING:
            tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        module.problem = f"{type(error).__name__}: {error}"
        return module
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ClassDef):
            module.classes += 1
        elif isinstance(node, _FUNCTIONS):
            _count(module, node)
    module.imports = sorted(imports)
    return module


def _count(module: Module, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    complexity = 1 + sum(_ways(inner) for inner in _own_nodes(node))
    module.functions += 1
    module.complexity += complexity
    module.undocumented += not node.name.startswith("_") and ast.get_docstring(node, clean=False) is None
    if module.worst is None or complexity > module.worst.complexity:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        module.worst = Function(node.name, node.lineno, lines, complexity)


def _ways(node: ast.AST) -> int:
    """Return how many ways a node adds: one for each branch, one for each further operand of `and` and `or`."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.match_case):
        return 1
    return int(isinstance(node, _BRANCHES))


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Walk through a function, but not into those that are defined inside it."""
    todo = list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _FUNCTIONS):
            todo.extend(ast.iter_child_nodes(node))
