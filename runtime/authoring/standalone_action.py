"""Actions of a machine that runs alone: their tries, and what a function sees where there is no server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..base.duration import parse_duration
from ..base.errors import ConfigError, StepTimeout
from ..base.log import get_logger
from ..engine.logs import StepLogger
from ..engine.retry import ONCE, Retry
from .function_call import look_at

__all__ = ["ActionCall", "AloneContext"]


@dataclass(frozen=True, slots=True)
class AloneContext:
    """The context of an action of a machine that runs alone: what makes sense without a server, and a log that goes to structlog."""

    attempt: int
    idempotency_key: str
    logger: StepLogger = field(default_factory=lambda: get_logger("paddock.machine"))

    def log(self, level: str, message: str, **data: Any) -> None:
        """Log a line.

        Raises:
            ConfigError: no such level.
        """
        if level not in ("debug", "info", "warning", "error", "critical"):
            raise ConfigError(f"no log level {level!r}: use debug, info, warning, error or critical")
        getattr(self.logger, level)(message, **data)

    def heartbeat(self, progress: Any = None) -> None:
        """Do nothing: nobody watches."""

    def __getattr__(self, name: str) -> Any:
        """Say why there is no more to it."""
        raise AttributeError(f"ctx.{name} needs a server; this machine runs alone")


class ActionCall:
    """One action as a state asks for it: the function, its arguments, and how it is tried (`retry`, `timeout`).

    The options are those of `ctx.step`; the rest of the keywords are the function's. `at_most_once` has no meaning here: nobody
    knows what a program was doing when it ended.
    """

    def __init__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Look at the function and at the options.

        Raises:
            InvalidWorkflow: the retry policy cannot work.
            ConfigError: the timeout is no duration.
        """
        rest = dict(options)
        retry, timeout = rest.pop("retry", None), rest.pop("timeout", None)
        rest.pop("at_most_once", None)
        output = rest.pop("output", None)
        self._handler, self._context_at = look_at(function)
        self._function, self._args, self._kwargs = function, args, rest
        self.name = name
        self.policy = Retry.of(retry) if retry is not None else ONCE
        self.seconds = None if timeout is None else parse_duration(timeout)
        self.output = type(self._handler.output)(output) if output is not None else self._handler.output

    async def run(self, context: AloneContext) -> Any:
        """Try once: a coroutine function here, a plain one in a thread.

        Raises:
            StepTimeout: it took longer than its timeout. A plain function runs on in its thread; what it returns is forgotten.
        """
        if self.seconds is None:
            return await self._call(context)
        task = asyncio.ensure_future(self._call(context))
        try:
            done, _ = await asyncio.wait({task}, timeout=self.seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            await asyncio.wait({task})
            raise StepTimeout(f"action {self.name!r} took longer than {self.seconds:g}s")
        return task.result()

    async def _call(self, context: AloneContext) -> Any:
        kwargs = dict(self._kwargs)
        if self._context_at is not None:
            kwargs.setdefault(self._context_at, context)
        if self._handler.is_async:
            return await self._function(*self._args, **kwargs)
        found = await asyncio.to_thread(self._function, *self._args, **kwargs)
        return await found if inspect.isawaitable(found) else found
