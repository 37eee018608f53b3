"""Follow a database by its cursor: what is there first, then what comes, with a server or without one.

Each look is a short read of its own, a few times a second: it holds up no writer and no checkpoint, and it outlives a restart of the
server. An instance's stream is over once the instance has ended and its process, whose last words still count, is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from ..base.errors import InstanceNotFound
from ..base.records import TERMINAL, Status
from ..store.overview import Standing, standing
from ..store.reading import Reader
from ..store.schemes import open_reader
from .desk import running_server

__all__ = ["follow"]

_PAUSE = 0.2
_BATCH = 500
_LAST_WORDS = 3.0


class _Numbered(Protocol):
    @property
    def id(self) -> int:
        """Return the cursor that lies behind it."""
        ...


T = TypeVar("T", bound=_Numbered)


def follow(
    path: str,
    read: Callable[[Reader, int, int], list[T]],
    *,
    after: int,
    instance_id: str | None,
    live: bool,
    until: frozenset[Status] = TERMINAL,
) -> Iterator[T]:
    """Yield records after a cursor; with `live` those that come too, without end, or until the instance has ended.

    Args:
        path: the database's real path.
        read: returns the records after a cursor, at most so many.
        after: the cursor to begin after.
        instance_id: the instance whose end ends it.
        live: go on where there are no more.
        until: the statuses that end it.
    """
    silent_since: float | None = None
    while True:
        with open_reader(path) as reader:
            how = _standing(reader, instance_id) if live else None
            try:
                found = read(reader, after, _BATCH)
            except InstanceNotFound:
                if after or live:
                    return  # cleaned up meanwhile
                raise
        for record in found:
            after = record.id
            yield record
        if len(found) == _BATCH:
            continue
        if not live:
            return
        ended = instance_id is not None and (how is None or how.status in until)
        if ended and not found:
            silent_since = silent_since or time.monotonic()
            if (
                how is None
                or not how.leased
                or time.monotonic() - silent_since > _LAST_WORDS
                or not running_server(path)
            ):
                return
        else:
            silent_since = None
        time.sleep(_PAUSE)


def _standing(reader: Reader, instance_id: str | None) -> Standing | None:
    try:
        return reader.read(standing, instance_id) if instance_id is not None else None
    except InstanceNotFound:
        return None
