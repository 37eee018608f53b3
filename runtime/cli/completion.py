"""What a shell completes in `module:workflow`, and what bash has made of such a word.

Bash takes `:`, `=` and `@` for ends of words (COMP_WORDBREAKS): of `run hello.py:gr` it tells four words, and what it is answered stands for the
last piece alone. So the pieces are put together again here, and of an answer that part is left out which stands there already. In the
program and not in the shell's script, because the script that somebody has installed stays as it is.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
from collections.abc import Callable, Iterator

import typer

__all__ = ["complete_server", "complete_workflow", "in_bash"]

_WORDS, _CURRENT = "COMP_WORDS", "COMP_CWORD"
_ENDS = frozenset(":=@")
_LARGEST = 2**20


def complete_workflow(ctx: typer.Context | None, incomplete: str) -> list[str]:
    """Return the workflows of the module or file that stands before the colon; before there is one, files are the shell's business."""
    return _complete(incomplete, _is_workflow)


def complete_server(ctx: typer.Context | None, incomplete: str) -> list[str]:
    """Return the servers and workflows of the module or file that stands before the colon."""
    return _complete(incomplete, lambda node: _is_workflow(node) or _is_server(node))


def _complete(incomplete: str, wanted: Callable[[ast.stmt], bool]) -> list[str]:
    where, colon, begun = incomplete.rpartition(":")
    if not colon:
        return []
    return [f"{where}:{name}" for name in _names(where, wanted) if name.startswith(begun)]


def _names(where: str, wanted: Callable[[ast.stmt], bool]) -> list[str]:
    """Return what a module's text makes at its top level, read and not run: a key that is pressed by mistake starts nothing."""
    for path in _paths(where):
        try:
            with open(path, "rb") as file:
                tree = ast.parse(file.read(_LARGEST))
        except (OSError, SyntaxError, ValueError):
            continue
        return [name for node in tree.body if wanted(node) for name in _named(node)]
    return []


def _paths(where: str) -> tuple[str, ...]:
    if where.endswith(".py") or os.sep in where:
        return (os.path.expanduser(where),)
    path = where.replace(".", os.sep)
    return (f"{path}.py", os.path.join(path, "__init__.py"))


def _named(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _is_workflow(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return any(_called(each) in ("flow", "action") for each in node.decorator_list)
    if isinstance(node, ast.ClassDef):
        return any(_called(base) == "StateMachine" for base in node.bases)
    return isinstance(node, ast.Assign | ast.AnnAssign) and _made_by(node.value) == "build"


def _is_server(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign) and _made_by(node.value) == "AppServer"


def _made_by(value: ast.expr | None) -> str:
    return _called(value) if isinstance(value, ast.Call) else ""


def _called(node: ast.expr) -> str:
    """Return the last name of `flow`, `paddock.flow`, `flow(…)`, `StateMachine[…]`."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- bash ---


@contextlib.contextmanager
def in_bash() -> Iterator[None]:
    """Where bash asks for completions: put its words together, and print of the answer what is to stand for the last piece."""
    words, current = os.environ.get(_WORDS, "").split("\n"), os.environ.get(_CURRENT, "")
    if not current.isdigit() or int(current) >= len(words):
        yield
        return
    whole, place, before = _rejoined(words, int(current))
    os.environ[_WORDS], os.environ[_CURRENT] = "\n".join(whole), str(place)
    answer = io.StringIO()
    try:
        with contextlib.redirect_stdout(answer):
            yield
    finally:
        for line in answer.getvalue().splitlines():
            print(line.removeprefix(before))  # noqa: T201  what was asked for


def _rejoined(words: list[str], current: int) -> tuple[list[str], int, str]:
    """Return the words as they were typed, which of them is the current one, and what of it stands before the piece to complete."""
    whole: list[str] = []
    place, before = 0, ""
    glued = False  # the last one ended in a piece that joins it with the next
    for number, piece in enumerate(words[: current + 1]):
        joins = bool(piece) and set(piece) <= _ENDS
        if whole and piece and (joins or glued) and len(whole) > 1:
            before = whole[-1] + (piece if joins else "")
            whole[-1] += piece
        else:
            before = ""
            whole.append(piece)
        glued = joins
        if number == current:
            place = len(whole) - 1
    return whole, place, before
