"""Which of the rising ids of events and log records are read: between two cursors, so many, from which end."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Window"]

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
