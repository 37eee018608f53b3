"""The runtime's own log lines: through structlog as the application has set it up, else to stderr.

structlog's default would print them to stdout, into the output of whoever embeds a server.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO, cast

import structlog

__all__ = ["Logger", "get_logger"]


class _Stderr:
    """Standard error, whose reader may be gone: what a server says is then lost, and nothing else."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


class Logger:
    """A logger that asks at each line how the application wants it."""

    def __init__(self, name: str) -> None:
        """Log under a name."""
        self._name = name

    def _bound(self) -> Any:
        if structlog.is_configured():
            return structlog.get_logger(self._name)
        return structlog.wrap_logger(structlog.PrintLogger(cast("TextIO", _Stderr())))

    def debug(self, event: str, **data: Any) -> None:
        """Log at level debug."""
        self._bound().debug(event, **data)

    def info(self, event: str, **data: Any) -> None:
        """Log at level info."""
        self._bound().info(event, **data)

    def warning(self, event: str, **data: Any) -> None:
        """Log at level warning."""
        self._bound().warning(event, **data)

    def error(self, event: str, **data: Any) -> None:
        """Log at level error."""
        self._bound().error(event, **data)

    def critical(self, event: str, **data: Any) -> None:
        """Log at level critical."""
        self._bound().critical(event, **data)

    def exception(self, event: str, **data: Any) -> None:
        """Log at level error, with the exception that is being handled."""
        self._bound().exception(event, **data)

    def bind(self, **data: Any) -> Any:
        """Return a logger that adds these data to each record."""
        return self._bound().bind(**data)


def get_logger(name: str) -> Logger:
    """Return a logger of the runtime's."""
    return Logger(name)
