"""A function that a step calls, with the arguments of the caller."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..base.errors import InvalidInput, NotSerializable
from ..base.values import to_json
from ..engine.context import Context
from ..engine.execution import Execution
from ..engine.handler import Handler, context_parameter, loose_handler
from .action import Action

__all__ = ["FunctionCall", "look_at"]

_SHOWN_AT_MOST = 64 * 1024


class FunctionCall:
    """A user's function with its arguments, and where it wants its context."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not callable(function):
            raise InvalidInput(f"{function!r} is no function; a step is ctx.step(name, function, *arguments)")
        self._handler, self._context_at = look_at(function)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self.is_async = self._handler.is_async
        self.output = self._handler.output

    def shown(self) -> str | None:
        """Return the arguments as the journal shows them, None where they have no JSON form."""
        if not self._args and not self._kwargs:
            return None
        value = (
            self._args[0]
            if len(self._args) == 1 and not self._kwargs
            else [*self._args, *([self._kwargs] if self._kwargs else [])]
        )
        with suppress(NotSerializable):
            text = to_json(value, "arguments")
            return text if len(text) <= _SHOWN_AT_MOST else None
        return None

    async def run(self, context: Context, execution: Execution) -> Any:
        """Call it."""

        def call(ctx: Any) -> Any:
            kwargs = dict(self._kwargs)
            if self._context_at is not None and self._context_at not in kwargs:
                kwargs[self._context_at] = ctx
            return self._function(*self._args, **kwargs)

        async def call_async(ctx: Any) -> Any:
            return await call(ctx)

        bound = replace(
            self._handler, function=call_async if self.is_async else call, arguments=(True,), takes_input=False
        )
        return await bound.call(None, context, execution.pool)


@functools.lru_cache(maxsize=1024)
def look_at(function: Callable[..., Any]) -> tuple[Handler, str | None]:
    """Return what there is to know of a function that a step calls, and the name of the parameter that wants the context."""
    if isinstance(function, Action):
        function = function.function
    where = f"step function {getattr(function, '__qualname__', function)!s}"
    return loose_handler(function, where), context_parameter(function, where)
