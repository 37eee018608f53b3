"""Pages: what a caller may ask for when it reads in pieces."""

from __future__ import annotations

from ..base.errors import ConfigError
from ..base.records import Status
from ..store.window import Window

__all__ = ["event_cursor", "event_window", "instance_cursor", "page_size", "status_wanted"]


def page_size(limit: object) -> int:
    """Return `limit` when it can be the length of a page.

    Raises:
        ConfigError: it is no whole number from 1.
    """
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return limit
    raise ConfigError(f"limit must be a whole number from 1, not {limit!r:.100}")


def event_cursor(after: object) -> int:
    """Return `after` when it can be the id of an event or a log record, or 0 for the beginning.

    Raises:
        ConfigError: it is no whole number from 0.
    """
    if isinstance(after, int) and not isinstance(after, bool) and after >= 0:
        return after
    raise ConfigError(f"after must be the id of the last one seen, or 0 for the beginning, not {after!r:.100}")


def event_window(after: object, before: object, limit: object, *, reverse: object) -> Window:
    """Return which events or log records a caller asks for; `before` None is no such bound.

    Raises:
        ConfigError: one of them cannot be.
    """
    start, size = event_cursor(after), page_size(limit)
    if before is None or (isinstance(before, int) and not isinstance(before, bool) and before >= 0):
        return Window(start, size, before, bool(reverse))
    raise ConfigError(f"before must be the id of the oldest one seen, not {before!r:.100}")


def instance_cursor(after: object) -> str | None:
    """Return `after` when it can be the id of an instance, or None for the beginning.

    Raises:
        ConfigError: it is no text.
    """
    if after is None or isinstance(after, str):
        return after
    raise ConfigError(f"after must be the id of the last instance seen, not {after!r:.100}")


def status_wanted(value: Status | str | None) -> Status | None:
    """Return the status that a caller names, None for all.

    Raises:
        ConfigError: there is no such status.
    """
    try:
        return None if value is None else Status(value)
    except ValueError:
        raise ConfigError(f"no status {value!r}; there are {', '.join(Status)}") from None
