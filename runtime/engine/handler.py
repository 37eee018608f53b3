"""Handlers: what a user's function wants, and how it is called."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from ..base.errors import InvalidWorkflow
from ..base.values import Schema

if TYPE_CHECKING:
    from .context import Context

__all__ = ["Handler", "context_parameter", "handler_of", "loose_handler"]


@dataclass(frozen=True, slots=True)
class Handler:
    """A user's function, looked at once.

    `input` and `output` are the schemas that its annotations name; `arguments` says for each positional parameter whether it takes
    the context (else the input).
    """

    function: Callable[..., Any]
    arguments: tuple[bool, ...]
    is_async: bool
    input: Schema
    output: Schema
    takes_input: bool

    @property
    def name(self) -> str:
        """Return the function's name for messages."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)

    async def call(self, value: Any, context: Context, pool: Callable[[], ThreadPoolExecutor]) -> Any:
        """Call the function: a coroutine function on the loop, a plain one in a worker thread, with a context that blocks there."""
        if self.is_async:
            return await self.function(*self._positional(value, context))
        arguments = self._positional(value, context.blocking())
        scope = contextvars.copy_context()
        call = functools.partial(scope.run, self.function, *arguments)
        found = await asyncio.get_running_loop().run_in_executor(pool(), _no_stop_iteration, call)
        return await found if inspect.isawaitable(found) else found

    def _positional(self, value: Any, context: Any) -> list[Any]:
        return [context if wants_context else value for wants_context in self.arguments]


def _no_stop_iteration(call: Callable[[], Any]) -> Any:
    """Keep a `StopIteration` from a handler out of the future, which cannot hold one."""
    try:
        return call()
    except StopIteration as error:
        raise RuntimeError(f"the handler raised StopIteration: {error.value!r}") from error


def handler_of(function: Callable[..., Any], where: str) -> Handler:
    """Look at a user's function.

    It takes ``(input, ctx)``, or either alone, or nothing: a parameter annotated `Context` or named ``ctx`` gets the context.

    Raises:
        InvalidWorkflow: it is not callable, wants more than that, or has annotations that cannot be resolved; `where` names the step.
    """
    if not callable(function):
        raise InvalidWorkflow(f"{where}: {function!r} is no function")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature takes its input
        return Handler(function, (False,), is_async=False, input=Schema(), output=Schema(), takes_input=True)
    hints = _hints(function, where)
    flags: list[bool] = []
    annotation: Any = None
    default: Any = None
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        wants_context = _is_context(hints.get(parameter.name)) or parameter.name == "ctx"
        if True in flags and parameter.default is not parameter.empty:
            continue  # `lambda ctx, n=n: …` binds a value; what stands behind the context with a default is no input
        if parameter.kind is parameter.KEYWORD_ONLY or len(flags) == 2 or (flags and flags[-1] is wants_context):  # noqa: PLR2004
            if parameter.default is not parameter.empty:
                continue
            raise InvalidWorkflow(
                f"{where}: {getattr(function, '__qualname__', function)!s} must take (input, ctx), either alone, or nothing; "
                f"its parameter {parameter.name!r} is one too many"
            )
        flags.append(wants_context)
        if not wants_context:
            annotation = hints.get(parameter.name)
            default = None if parameter.default is parameter.empty else parameter.default
    return Handler(
        function,
        tuple(flags),
        is_async=inspect.iscoroutinefunction(inspect.unwrap(_innermost(function))),
        input=Schema(annotation, default),
        output=Schema(_result(hints)),
        takes_input=False in flags,
    )


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _is_context(hint: Any) -> bool:
    from .context import Context

    return inspect.isclass(hint) and issubclass(hint, Context)


def _result(hints: dict[str, Any]) -> Any:
    hint = hints.get("return")
    return None if hint is type(None) else hint


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """Return resolved annotations; `Context` is known even where the user imports it for type checkers only."""
    target = inspect.unwrap(_innermost(function))
    try:
        return get_type_hints(target, include_extras=True)
    except NameError:
        pass
    except TypeError:
        return {}
    from .context import Context

    try:
        return get_type_hints(target, localns={"Context": Context}, include_extras=True)
    except (NameError, TypeError) as error:
        name = getattr(function, "__qualname__", repr(function))
        raise InvalidWorkflow(
            f"{where}: the annotations of {name} cannot be resolved: {error}. Import the types at run time, at module level."
        ) from None


def loose_handler(function: Callable[..., Any], where: str) -> Handler:
    """Look at a function that is called with arguments of the caller's own: only its kind and its result's type matter."""
    hints = _hints(function, where)
    return Handler(
        function,
        (),
        is_async=inspect.iscoroutinefunction(inspect.unwrap(_innermost(function))),
        input=Schema(),
        output=Schema(_result(hints)),
        takes_input=False,
    )


def context_parameter(function: Callable[..., Any], where: str) -> str | None:
    """Return the name of the parameter that wants the context, None where none does."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    hints = _hints(function, where)
    for parameter in parameters:
        if parameter.kind is not parameter.VAR_KEYWORD and (
            parameter.name == "ctx" or _is_context(hints.get(parameter.name))
        ):
            return parameter.name
    return None
