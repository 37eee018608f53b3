"""Which of the rising ids of events and log records are read, between two cursors, so many, from which end; and what a look for more finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..base.records import Event

__all__ = ["Interest", "Look", "Window"]

_BEYOND = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Window:
    """Up to `limit` of what has an id above `after` and below `before`: the oldest first, or the newest where it is read backwards."""

    after: int
    limit: int
    before: int | None = None
    backwards: bool = False

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the ids between which it lies, for SQL."""
        return self.after, _BEYOND if self.before is None else self.before

    @property
    def way(self) -> str:
        """Return its order, for SQL."""
        return "DESC" if self.backwards else "ASC"


#: Tells by its name and its instance's id whether an event is wanted. From any thread.
Interest = Callable[[str, str], bool]


class Look(NamedTuple):
    """What follows a cursor: the events that were wanted, and the id up to which there is nothing else that was.

    `more` tells whether there may be more that can be read at once, `waits` whether what follows is committed, and perhaps not on the disk yet.
    """

    events: list[Event]
    last: int
    more: bool
    waits: bool = False
