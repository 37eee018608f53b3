"""Log records of handlers: structlog in front, the journal's writer behind.

A record is scoped by what the running code belongs to (instance, workflow, step, attempt), is committed with the next commit, and is
never written twice: a replay does not run the step that wrote it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, Protocol, cast

from ..base.clock import Clock
from ..base.errors import NotSerializable
from ..base.records import LEVELS, LogSource
from ..base.values import to_json
from ..store.ops import Logged, OutputSkipped
from .step_call import CURRENT_STEP
from .writer import JournalWriter

__all__ = ["LogSink", "StepLogger", "step_logger"]

_MESSAGE_LIMIT = 64 * 1024
_DATA_LIMIT = 256 * 1024
_OVERHEAD = 100


class StepLogger(Protocol):
    """A structlog bound logger, as handlers use it: text, and data as keywords."""

    def debug(self, event: str, **data: Any) -> Any:
        """Log at level debug."""
        ...

    def info(self, event: str, **data: Any) -> Any:
        """Log at level info."""
        ...

    def warning(self, event: str, **data: Any) -> Any:
        """Log at level warning."""
        ...

    def error(self, event: str, **data: Any) -> Any:
        """Log at level error."""
        ...

    def critical(self, event: str, **data: Any) -> Any:
        """Log at level critical."""
        ...

    def exception(self, event: str, **data: Any) -> Any:
        """Log at level error, with the exception that is being handled."""
        ...

    def bind(self, **data: Any) -> StepLogger:
        """Return a logger that adds these data to each record."""
        ...


class LogSink:
    """Take records from any thread of this process and hand them to the writer on its loop.

    Args:
        writer: the journal's writer.
        clock: stamps the records.
        loop: the writer's loop.
        limit: how many bytes of records an instance may keep in one execution; past it they are dropped, and one record says so.
        muted: tells whether the code is replaying what was logged before.
    """

    def __init__(
        self,
        writer: JournalWriter,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        muted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Hold the parts."""
        self._writer = writer
        self._clock = clock
        self._loop = loop
        self._left = limit
        self._muted = muted
        self._thread = threading.get_ident()
        self._full = False

    @property
    def full(self) -> bool:
        """Tell whether the limit is reached, and all further records are dropped."""
        return self._full

    def put(
        self,
        level: str,
        message: str,
        data: dict[str, Any],
        *,
        source: LogSource = "handler",
        position: int | None = None,
        step: tuple[str, int] | None = None,
    ) -> None:
        """Keep one record; a handler's without a `step` belongs to the one that the running code belongs to.

        What was printed is read by whoever comes next: of two steps side by side it may be either's, and then it is neither's.
        """
        if source == "handler":
            step = step or CURRENT_STEP.get()
            if step is None and self._muted():
                return
        message = message[:_MESSAGE_LIMIT]
        plain, size = _plain(data)
        size += len(message) + _OVERHEAD
        over, self._left = self._left < size, self._left - size
        if over:
            if self._full:
                return
            self._full = True
            level, source, plain, position = "warning", "runtime", {}, None
            message = "the limit of this execution's log is reached; the rest is dropped"
        name, attempt = step or (None, None)
        op = Logged(LEVELS[level], level, message, plain, name, attempt, source, self._clock.now(), position)
        # a line of the flow itself stands or falls with the next thing that the flow does: a replay then knows what it has told
        add = self._writer.add_later if source == "handler" and step is None else self._writer.add
        if threading.get_ident() == self._thread:
            add(op)
        else:
            self._loop.call_soon_threadsafe(add, op)

    def skip(self, source: Literal["stdout", "stderr"], position: int) -> None:
        """Note that output up to a position is not to be kept: it was printed, and kept, before."""
        self._writer.add(OutputSkipped(source, position))


def _plain(data: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return data as plain JSON, and its size; what has no JSON form is shown by its `repr`, for a log must not fail its handler."""
    if not data:
        return {}, 0
    try:
        text = to_json(data, "log data")
    except NotSerializable:
        data = {str(key).encode(errors="replace").decode(): _plain_value(value) for key, value in data.items()}
        text = to_json(data, "log data")
    if len(text) > _DATA_LIMIT:
        return {"dropped": f"{len(text):,} bytes of data, for a record holds {_DATA_LIMIT:,}"}, _OVERHEAD
    return cast("dict[str, Any]", json.loads(text)), len(text)


def _plain_value(value: Any) -> Any:
    try:
        return json.loads(to_json(value, "log data"))
    except NotSerializable:
        pass
    try:
        return repr(value)[:1000].encode(errors="replace").decode()
    except Exception as error:  # noqa: BLE001  a user's class
        return f"({type(value).__name__}, which cannot be shown: {type(error).__name__})"


class _Output:
    """The end of structlog's chain: a method for each level that hands the record to the sink."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink

    def __getattr__(self, level: str) -> Callable[..., None]:
        known = {"warn": "warning", "fatal": "critical", "exception": "error", "msg": "info", "log": "info"}.get(
            level, level
        )
        if known not in LEVELS:
            raise AttributeError(level)

        def put(event: str, **data: Any) -> None:
            self._sink.put(known, event, data)

        return put


def _render(_logger: Any, method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    data = dict(event)
    message = str(data.pop("event", ""))
    if found := data.pop("exc_info", method == "exception"):
        text = traceback.format_exception(found) if isinstance(found, BaseException) else [traceback.format_exc()]
        data["exception"] = "".join(text)
    return (message.encode(errors="replace").decode(),), data


def step_logger(sink: LogSink) -> StepLogger:
    """Return a structlog logger whose records go to the sink. The user's own structlog configuration is left alone."""
    import structlog  # a server whose instances have processes of their own does without

    logger = structlog.wrap_logger(_Output(sink), processors=[_render], wrapper_class=structlog.BoundLogger)
    return cast("StepLogger", logger)
