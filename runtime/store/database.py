"""A database as the runtime deals with it: its name, its lock, and how a server, a child, a plugin and a person open it.

Nothing outside this package knows what kind of database it works on. A kind is a subclass of `Database`; `schemes.py` finds it by the scheme
of a URL. The server asks for the lock first, then opens; a child is told `address` over its private channel and opens by that.

What a kind has to bring are the methods that are abstract here. The others have an answer that does for most, or refuse, and say so.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from ..base.config import SqlitePragmas
from ..base.errors import ConfigError, DatabaseUnavailable
from .reading import Reader
from .sql_store import SqlStore
from .transaction import Transaction
from .turn import ServerNote

__all__ = ["Database", "NoLock", "Remark", "ServerLock", "Upkeep"]


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that `paddock doctor` tells of a database; `advice` says what to do about it."""

    level: Literal["ok", "note", "problem"]
    text: str
    advice: str = ""


class ServerLock(Protocol):
    """What makes one server per database; see `turn.LockFile`."""

    def serve(self, pid: int) -> None:
        """Take the lock for the life of this server; raises ServerAlreadyRunning."""
        ...

    def note(self, *, pid: int, run_dir: str, address: str) -> None:
        """Write down what the command line needs to find this server; raises OSError."""
        ...

    def leave(self, *, remove: bool = True) -> None:
        """Give the lock back, and forget the note unless the next server is to find it."""
        ...


class NoLock:
    """The lock on what no other process can reach."""

    def serve(self, pid: int) -> None:
        """Take nothing."""

    def note(self, *, pid: int, run_dir: str, address: str) -> None:
        """Tell nobody."""

    def leave(self, *, remove: bool = True) -> None:
        """Give nothing back."""


class Upkeep(Protocol):
    """What a server does for its database now and then; see `checkpoint.Checkpointer`."""

    alarm: str | None

    def make_room(self) -> None:
        """Prepare for what will be written soon; blocking, in a thread."""
        ...

    def run(self, least_bytes: int = ..., /) -> bool:
        """Do it, where it is worth it; return whether it did. Blocking, in a thread."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class NoUpkeep:
    """Nothing to do."""

    alarm: str | None = None

    def make_room(self) -> None:
        """Prepare nothing."""

    def run(self, _least_bytes: int = 0, /) -> bool:
        """Do nothing."""
        return False

    def close(self) -> None:
        """Hold nothing."""


class Database(ABC):
    """One database, named by a URL.

    Args:
        url: as the user gave it. It may hold a secret: it goes to children over a private channel, and nowhere else.
    """

    #: Only this process can reach it, so nothing can run in a process of its own.
    in_process: ClassVar[bool] = False
    #: A child may open it before there is anything to do: an open connection that waits costs its server nothing.
    waits_open: ClassVar[bool] = False
    #: Modules that the fork server imports beforehand, beside the one of this class: what a child would import to open it.
    preload: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str) -> None:
        """Hold the URL; nothing is opened."""
        self.url = url

    @property
    def rest(self) -> str:
        """Return what stands behind the scheme."""
        return self.url.partition("://")[2]

    @property
    def address(self) -> str:
        """Return the text by which a child finds this class and this database."""
        kind = type(self)
        if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
            raise ConfigError(
                f"no child process can import the store {kind.__qualname__}: it is defined in "
                f"{'the script itself' if kind.__module__ == '__main__' else 'a function'}; put it into a module"
            )
        return f"{kind.__module__}:{kind.__qualname__}://{self.rest}"

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the database as messages name it: no secret in it."""

    @property
    def label(self) -> str:
        """Return a short name, for a title."""
        return os.path.basename(self.name) or self.name

    @property
    def identity(self) -> str:
        """Return what tells it from every other database, whichever way it is named; asked when the server's lock is held."""
        return self.name

    # --- the server's side ---

    @abstractmethod
    def lock(self, pragmas: SqlitePragmas) -> ServerLock:
        """Return the lock that makes one server per database; `serve` takes it."""

    @abstractmethod
    def open(self, pragmas: SqlitePragmas, lock: Any = None) -> SqlStore:
        """Make or open it, bring its schema to this version and check what it is, under a lock that `lock` has returned.

        Raises:
            DatabaseTooNew, DatabaseDamaged, DatabaseUnavailable: it cannot be used.
        """

    def upkeep(self, pragmas: SqlitePragmas) -> Upkeep:
        """Return what a server is to do for it now and then."""
        return NoUpkeep()

    def low_space(self) -> str | None:
        """Return a complaint where hardly any room is left for it."""
        return None

    # --- the child's side ---

    @abstractmethod
    def open_child(self, pragmas: SqlitePragmas) -> SqlStore:
        """Open it for one executor, as it is, waiting for what passes: a full disk, a database that is away."""

    # --- plugins ---

    def core_db(self, pragmas: SqlitePragmas) -> Any:
        """Return `core.db`: a connection for plugins' own tables, with `opened` and `close`."""
        return NoCoreDb(self.name)

    # --- people ---

    def reader(self) -> AbstractContextManager[Reader]:
        """Open it for reading only, with a server on it or without.

        Raises:
            DatabaseUnavailable: there is none, or it cannot be read.
        """
        raise DatabaseUnavailable(f"{self.name} cannot be looked at from outside; ask its server over HTTP")

    def note(self) -> ServerNote | None:
        """Return who serves it or was the last to do so, None for nobody ever."""
        return None

    def open_offline(self) -> SqlStore:
        """Open it for the command line, where no server runs.

        Raises:
            DatabaseUnavailable: it cannot be changed without a server.
        """
        raise DatabaseUnavailable(f"{self.name} cannot be changed without its server; start it")

    def is_served(self, tx: Transaction) -> bool:
        """Tell, within a transaction, whether a server holds it."""
        return self.note() is not None

    def check_up(self, tx: Transaction) -> Iterable[Remark]:
        """Say, for `paddock doctor`, how what keeps the database is set up; in a reader's transaction."""
        return ()

    def tidy(self) -> None:  # noqa: B027  most have nothing to take away
        """Take away what a look has made."""


class NoCoreDb:
    """`core.db` where a store has none."""

    opened = False

    def __init__(self, name: str) -> None:
        """Hold the database's name, for the refusal."""
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(f"{self._name} has no core.db: its store offers plugins no connection; open one of your own")

    async def close(self) -> None:
        """Do nothing."""
