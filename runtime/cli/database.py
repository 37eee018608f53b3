"""Which database is meant: the one that is named, or the only one of Paddock's in the current folder, or the only one that is served."""

from __future__ import annotations

import os

from ..base.errors import PaddockError, UsageError
from ..store.schemes import database_of, open_reader
from .desk import running_server

__all__ = ["find_database"]

_SUFFIX = ".db"


def find_database(given: str | None, *, new: str | None = None) -> str:
    """Return the real path of the database; of `new` where none was named and the current folder holds none.

    Raises:
        UsageError: none was named, and the current folder does not hold exactly one, nor exactly one that is served.
    """
    if given is not None:
        return database_of(given).url
    found = [name for name in sorted(os.listdir()) if name.endswith(_SUFFIX) and _is_ours(name)]
    served = [name for name in found if running_server(database_of(name).url) is not None]
    for names in (found, served):
        if len(names) == 1:
            return database_of(names[0]).url
    if new is not None and not found:
        return database_of(new).url
    where = f"there are {', '.join(found)} here" if found else f"there is none of Paddock's named *{_SUFFIX} here"
    hint = "" if found else "; `paddock serve FILE.py` makes one"
    raise UsageError(f"which database? {where}; name one with --db or the environment variable PADDOCK_DB{hint}")


def _is_ours(path: str) -> bool:
    try:
        with open_reader(path):
            return True
    except PaddockError:
        return False
