"""Find what `module:workflow` names, so that a child process finds it too."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import Any

from ..authoring.action import ActionWorkflow
from ..base.errors import UsageError
from ..child.trial import import_failure
from ..engine.definition import Definition, definition_of
from ..server.app import AppServer
from .database import find_database
from .output import say

__all__ = ["BadTarget", "load_module", "load_server", "load_workflow"]


_NEW = "app.db"


class BadTarget(UsageError):
    """A `module:workflow` that leads to no workflow; the message says where the way ends."""


def load_workflow(target: str) -> tuple[Definition, str]:
    """Import a workflow by `package.module:name` or `path/to/file.py:name`; return it and its module.

    The current directory (for a file, its own or that of its package) goes to the front of `sys.path`; children get the same path.

    Raises:
        BadTarget: there is no such module or name, or it is no workflow.
    """
    where, colon, attribute = target.rpartition(":")
    if not colon or not where or not attribute:
        raise BadTarget(
            f"{target!r} names no workflow: write module:workflow or path/to/file.py:workflow, such as shop.orders:process_order"
        )
    module = load_module(where)
    found = definition_of(_follow(module, where, attribute))
    if not isinstance(found, Definition):
        raise BadTarget(
            f"{target!r} is no workflow but of type {type(found).__name__}; {_offer(module)}. "
            "A workflow is what workflow(…)…build() returns."
        )
    return found, module.__name__


def load_module(where: str) -> ModuleType:
    """Import a module by its name or by its file, `path/to/file.py`.

    Raises:
        BadTarget: there is no such module, or it cannot be imported.
    """
    _put_first(os.getcwd())
    return _load_file(where) if where.endswith(".py") or os.sep in where else _load_module(where)


def load_server(target: str, db: str | None) -> AppServer:
    """Import a server by `module:server`; or make one on `db` for the workflows of a module, or for the one that is named.

    Without `db` it is the database in the current folder, `app.db` where there is none yet.
    A function that takes nothing is called, and returns the server.

    Raises:
        BadTarget: there is no such thing, or it is neither a server nor a workflow.
        UsageError: workflows need a database, and it is not clear which; or a database is named, and a server has its own.
    """
    where, colon, attribute = target.rpartition(":")
    if not colon:
        where, attribute = target, ""
    if not where:
        raise BadTarget(f"{target!r} names no server: write module:server or path/to/file.py:server")
    module = load_module(where)
    found = _follow(module, where, attribute) if attribute else _only_server(module)
    if inspect.isfunction(found):
        found = found()
    if isinstance(found, AppServer):
        if db is not None and os.environ.get("PADDOCK_DB") != db:
            raise UsageError(f"{target} is a server with a database of its own; leave --db out")
        return found
    definitions = [definition_of(found)] if found is not None else _workflows(module)
    if not definitions or not all(isinstance(one, Definition) for one in definitions):
        raise BadTarget(f"{target!r} is neither a server nor a workflow; {_offer(module)}")
    if db is None:
        db = find_database(None, new=_NEW)
        say(f"the database is {db}")
    server = AppServer(db)
    for one in definitions:
        server.workflows.register(one)
    return server


def _follow(module: ModuleType, where: str, attribute: str) -> Any:
    found: Any = module
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise BadTarget(f"module {where!r} has no {attribute!r}; {_offer(module)}") from None
    return found


def _only_server(module: ModuleType) -> AppServer | None:
    found = {id(value): value for value in vars(module).values() if isinstance(value, AppServer)}
    if len(found) > 1:
        raise BadTarget(f"module {module.__name__!r} holds {len(found)} servers; name one: {module.__name__}:server")
    return next(iter(found.values()), None)


def _workflows(module: ModuleType) -> list[Any]:
    """Return the workflows that a module holds, each once; actions are known without being registered."""
    found = {
        id(one): one
        for value in vars(module).values()
        if isinstance(one := definition_of(value), Definition) and not isinstance(one, ActionWorkflow)
    }
    return list(found.values())


def _offer(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(definition_of(value), Definition))
    return f"its workflows are: {', '.join(names)}" if names else "it holds no workflow at module level"


def _put_first(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)


def _load_module(name: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise BadTarget(f"there is no module {name!r} in {os.getcwd()} or on sys.path") from None
        raise BadTarget(import_failure(name, error)) from None
    except (ValueError, TypeError):  # "", "a..b"
        raise BadTarget(f"{name!r} is no module's name") from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise BadTarget(import_failure(name, error)) from None


def _load_file(path: str) -> ModuleType:
    full = os.path.realpath(path)
    if not os.path.isfile(full):
        raise BadTarget(f"there is no file {path}")
    folder, file = os.path.split(full)
    parts = [file.removesuffix(".py")]
    while os.path.exists(os.path.join(folder, "__init__.py")):  # in a package: import it as a part of that
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    if parts[-1] == "__init__":
        parts.pop()
    _put_first(folder)
    name = ".".join(parts)
    module = _load_module(name)
    if os.path.realpath(getattr(module, "__file__", None) or "") != full:
        raise BadTarget(f"{path} would be imported as {name!r}, which is the name of another module; rename the file")
    return module
