"""Which kind of database a text names: by the scheme of its URL.

| what is given | what it is |
|---|---|
| `app.db`, `sqlite:///srv/app.db` | a SQLite file |
| `memory://`, `:memory:` | one in memory |
| `postgresql://…`, `postgres://…` | PostgreSQL |
| `vault://…` | what a package has entered as `vault` in the group `paddock.stores` |
| `my.stores:Vault://…` | the class `Vault` of the module `my.stores` |
"""

from __future__ import annotations

import importlib
import re
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError
from .database import Database
from .reading import Reader
from .sqlite_database import MemoryDatabase, SqliteDatabase
from .turn import ServerNote

__all__ = ["GROUP", "database_of", "open_reader", "read_note"]

#: The entry-point group of stores.
GROUP = "paddock.stores"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_.+-]*(?::[A-Za-z_][A-Za-z0-9_.]*)?)://")
_POSTGRES = ("paddock.runtime.store.postgres.database", "PostgresDatabase")
_BUILT_IN: dict[str, Any] = {
    "sqlite": SqliteDatabase,
    "memory": MemoryDatabase,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
}


def database_of(given: str | Path | Database) -> Database:
    """Return the database that a path, a URL or an object is; nothing is opened.

    Raises:
        ConfigError: nobody knows the scheme, a library for it is missing, or it names something that is no store.
    """
    if isinstance(given, Database):
        return given
    if not isinstance(given, str | Path):
        raise ConfigError(f"db= takes a path, a URL or a paddock.stores.Database, not {type(given).__name__}")
    text = str(given)
    if text == ":memory:":
        return MemoryDatabase()
    found = _SCHEME.match(text) if isinstance(given, str) else None
    return SqliteDatabase(given) if found is None else _kind(found[1])(text)


def open_reader(given: str) -> AbstractContextManager[Reader]:
    """Open the database that a path or URL names for reading only; raises as `Database.reader`, and ConfigError."""
    return database_of(given).reader()


def read_note(given: str) -> ServerNote | None:
    """Return who serves the database that a path or URL names, or was the last to; None for nobody ever."""
    return database_of(given).note()


def _kind(scheme: str) -> Any:
    kind = _BUILT_IN.get(scheme.lower())
    if isinstance(kind, tuple):
        module, attribute = kind
        return _import(module, attribute, f"the store {scheme}")
    if kind is None:
        module, _, attribute = scheme.partition(":")
        kind = _import(module, attribute, f"the store {scheme!r}") if attribute else _entered(scheme)
    if not (isinstance(kind, type) and issubclass(kind, Database)):
        raise ConfigError(f"the store {scheme!r} is {kind!r:.80}, and no class that builds on paddock.stores.Database")
    return kind


def _import(module: str, attribute: str, what: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name == "psycopg":
            raise ConfigError(f'{what} needs psycopg; install it: pip install "paddock[postgres]"') from None
        raise ConfigError(f"{what} cannot be imported: {error}") from None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} cannot be imported: {error}") from None
    return found


def _entered(scheme: str) -> Any:
    entered = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in entered:
        known = ", ".join(sorted({*_BUILT_IN, *entered} - {"postgres"}))
        raise ConfigError(
            f"db= has the scheme {scheme!r}, which no store here has; there are {known}. A package brings one as an entry point "
            f"of the group {GROUP}; a class of yours is named as module:Class://…"
        )
    try:
        return entered[scheme].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the store {scheme!r} of {entered[scheme].value} cannot be imported: {error}") from None
