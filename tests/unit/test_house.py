"""The plan of the house: who may import whom, what is shipped, what is public.

Everything here is read from the source as text; a change of the plan is a change of the tables below, and says so in review.
"""

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import paddock

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = {"": "paddock", "runtime": "runtime", "ipc": "ipc", "watchdog": "watchdog", "examples": "examples"}
"""Name under `paddock` → folder; pyproject.toml maps the same."""

_BELOW_CHILD = {"runtime.base", "runtime.store", "runtime.engine", "runtime.authoring", "ipc", "watchdog"}
_RUNTIME = _BELOW_CHILD | {"runtime.child", "runtime.server", "runtime.server.app", "runtime.http"}

ALLOWED: dict[str, set[str]] = {
    # unit            the units it may import, beside itself; a longer name allows that one module
    "ipc": set(),
    "watchdog": {"ipc"},
    "runtime": set(),
    "runtime.base": set(),
    "runtime.store": {"runtime.base"},
    "runtime.engine": {"runtime.base", "runtime.store"},
    "runtime.authoring": {"runtime.base", "runtime.store", "runtime.engine"},
    "runtime.child": _BELOW_CHILD,
    # what a child is told, what it leaves behind, what a process of either kind knows of its main module, and that it is
    # only tried out; not how a child runs
    "runtime.server": _BELOW_CHILD | {f"runtime.child.{name}" for name in ("spec", "output", "main_module", "trial")},
    "runtime.http": _BELOW_CHILD | {"runtime.server"},
    # AppServer hands its services to the HTTP side, which knows nothing of AppServer
    "runtime.server.app": _BELOW_CHILD | {"runtime.server", "runtime.http", "runtime.child.main_module", ""},
    "runtime.testing": _BELOW_CHILD | {"runtime.server", "runtime.http", ""},
    "runtime.doctor": _BELOW_CHILD | {"runtime.server"},
    "runtime.cli": _RUNTIME | {"runtime.doctor", ""},
    "otel": {"runtime.server.tracing"},
    "stores": {"runtime.store"},  # what a store of one's own is made of
    "testing": {"runtime.testing", "runtime.authoring.replays"},  # the public face of what users test with
    "": _RUNTIME | {"runtime.cli", "runtime.testing"},  # paddock itself, the public face
    "examples": {""},  # like any user: the public face and nothing behind it
}

FORBIDDEN_ROOTS = {"runtime", "ipc", "watchdog", "tests", "examples", "benchmarks"}
"""Top-level names that nothing may import: folders of the checkout that are no packages on a user's machine."""


def modules() -> dict[str, Path]:
    """Return every shipped module by its name under `paddock` (the face itself is "")."""
    found: dict[str, Path] = {}
    for prefix, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = [prefix, *(inner[:-1] if inner[-1] == "__init__" else inner)]
            found[".".join(part for part in parts if part)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of each module that the module imports, wherever in its text."""
    path = MODULES[name]
    here = ["paddock", *(part for part in name.split(".") if part)]
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from ..child import spec` means the module, `from .errors import X` the one that holds the name.
                full = f"{stem}.{alias.name}"
                yield node.lineno, full if full.removeprefix("paddock.") in MODULES else stem


def unit(name: str) -> str:
    """Return the longest unit of the table that the module (a name under `paddock`) lies in."""
    return max((unit for unit in ALLOWED if name == unit or name.startswith(f"{unit}.")), key=len, default="")


def allows(source: str, target: str) -> bool:
    mine, theirs = unit(source), unit(target)
    return mine == theirs or theirs in ALLOWED[mine] or target in ALLOWED[mine]


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_arrows(name: str) -> None:
    wrong = []
    for line, target in imports(name):
        root, _, rest = target.partition(".")
        if root in FORBIDDEN_ROOTS or (root == "paddock" and not allows(name, rest)):
            wrong.append(f"{MODULES[name].relative_to(ROOT)}:{line}: imports {target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("ipc.frames", "ipc.messages", True),
        ("ipc.frames", "runtime.base.errors", False),
        ("watchdog.main", "ipc.messages", True),
        ("watchdog.main", "runtime.base", False),
        ("runtime.base.errors", "runtime.store", False),
        ("runtime.store.sqlite", "runtime.base.errors", True),
        ("runtime.engine.core", "runtime.authoring.graph", False),
        ("runtime.child.main", "runtime.server.hub", False),
        ("runtime.server.hub", "runtime.child.spec", True),
        ("runtime.server.hub", "runtime.child.process", False),
        ("runtime.server.hub", "runtime.cli", False),
        ("runtime.server.hub", "", False),
        ("__main__", "runtime.cli.main", True),
        ("examples.code_audit", "", True),
        ("examples.code_audit", "runtime.engine", False),
    ],
)
def test_the_table_says_what_it_should(source: str, target: str, allowed: bool) -> None:
    assert allows(source, target) is allowed


@pytest.mark.parametrize("name", MODULES)
def test_module_has_a_docstring(name: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[name].read_bytes())), f"{MODULES[name].relative_to(ROOT)} says nothing"


def test_pyproject_lists_every_package() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    names = {f"paddock.{prefix}".rstrip("."): folder for prefix, folder in FOLDERS.items()}
    assert config["package-dir"] == names
    in_tree = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for name, folder in names.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set(config["packages"]) == in_tree
    assert len(config["packages"]) == len(in_tree), "a package is listed twice"


def test_every_package_has_an_init() -> None:
    assert not [path for path in MODULES.values() if not (path.parent / "__init__.py").exists()]


def face() -> ast.Module:
    return ast.parse(MODULES[""].read_bytes())


def test_all_is_complete() -> None:
    """What paddock/__init__.py imports or defines without an underscore is public, and nothing else is."""
    bound = set()
    top = face().body
    for_readers = [inner for node in top if isinstance(node, ast.If) for inner in node.body]  # if TYPE_CHECKING
    for node in [*top, *for_readers]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            if getattr(node, "module", None) not in ("__future__", "typing"):
                bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {target.id for target in targets if isinstance(target, ast.Name)}
    public = {name for name in bound if not name.startswith("_")}
    assert public == {name for name in paddock.__all__ if not name.startswith("_")}
    assert not [name for name in paddock.__all__ if not hasattr(paddock, name)]


def test_every_error_is_importable_from_paddock() -> None:
    if not hasattr(paddock, "PaddockError"):
        pytest.skip("paddock/__init__.py is still empty")
    tree = ast.parse(MODULES["runtime.base.errors"].read_bytes())
    errors = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert errors <= set(paddock.__all__)


def test_the_checkout_does_not_shadow_the_package() -> None:
    assert str(ROOT) not in [os.path.realpath(entry) for entry in sys.path]
    if os.environ.get("PADDOCK_TEST_INSTALLED"):
        assert Path(paddock.__file__).is_relative_to(sys.prefix)


def test_a_child_process_can_import_support_modules() -> None:
    code = "import json, sys; sys.path[:] = json.load(sys.stdin); import leftovers, paddock; print(paddock.__file__)"
    command = [sys.executable, "-P", "-c", code]
    child = subprocess.run(command, input=json.dumps(sys.path), capture_output=True, text=True, check=True)
    assert child.stdout.strip() == paddock.__file__


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import paddock.watchdog.process", ["asyncio", "structlog", "sqlite3", "paddock.runtime"]),
        (
            "import paddock.runtime.child.forkserver\nfrom paddock import AppServer, workflow, flow, Context",
            ["paddock.runtime.server.running", "paddock.runtime.http", "paddock.runtime.cli", "starlette", "typer"],
        ),
        ("import paddock", ["asyncio", "pydantic"]),
    ],
    ids=["watchdog", "fork server, with a script that starts a server", "package"],
)
def test_a_process_loads_what_it_uses(statement: str, unwanted: list[str]) -> None:
    """What the fork server has loaded each child is a copy of, and a start waits until it is there."""
    script = f"import sys\n{statement}\nprint(*sorted(name for name in {unwanted!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
