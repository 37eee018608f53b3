"""The runtime's own log lines: through structlog as the application has set it up, else to stderr.

structlog's default would print them to stdout, into the output of whoever embeds a server. It is imported at the first line: with what it
imports itself it is a sixth of the time that a server takes to start, and most servers have nothing to say.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import Any, TextIO, cast

__all__ = ["Logger", "get_logger"]


class _Stderr:
    """Standard error, whose reader may be gone: what a server says is then lost, and nothing else."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


@functools.cache
def _processors() -> list[Any]:
    """Return structlog's own, but with plain tracebacks: its usual ones show the values of variables, secrets too."""
    import structlog

    *before, _ = structlog.get_config()["processors"]
    colors = "NO_COLOR" not in os.environ and sys.stderr is not None and sys.stderr.isatty()
    return [*before, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


class Logger:
    """A logger that asks at each line how the application wants it, and whose failure is nobody else's."""

    def __init__(self, name: str) -> None:
        """Log under a name."""
        self._name = name

    def _bound(self) -> Any:
        import structlog

        if structlog.is_configured():
            return structlog.get_logger(self._name)
        return structlog.wrap_logger(structlog.PrintLogger(cast("TextIO", _Stderr())), processors=_processors())

    def _say(self, method: str, event: str, data: dict[str, Any]) -> None:
        try:
            getattr(self._bound(), method)(event, **data)
        except Exception as error:  # noqa: BLE001  the application's logging: what it raises must not end what was being done
            _Stderr().write(f"paddock: {event} {data!r:.4000} (it could not be logged: {error!r:.400})\n")

    def debug(self, event: str, **data: Any) -> None:
        """Log at level debug."""
        self._say("debug", event, data)

    def info(self, event: str, **data: Any) -> None:
        """Log at level info."""
        self._say("info", event, data)

    def warning(self, event: str, **data: Any) -> None:
        """Log at level warning."""
        self._say("warning", event, data)

    def error(self, event: str, **data: Any) -> None:
        """Log at level error."""
        self._say("error", event, data)

    def critical(self, event: str, **data: Any) -> None:
        """Log at level critical."""
        self._say("critical", event, data)

    def exception(self, event: str, **data: Any) -> None:
        """Log at level error, with the exception that is being handled."""
        self._say("exception", event, data)

    def bind(self, **data: Any) -> Any:
        """Return a logger that adds these data to each record."""
        return self._bound().bind(**data)


def get_logger(name: str) -> Logger:
    """Return a logger of the runtime's."""
    return Logger(name)
