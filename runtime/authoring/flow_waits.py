"""The part of a flow's context that waits: sleeps, signals, polls; and how any durable call's result is shown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_origin, overload

from ..base.duration import DurationLike, parse_duration
from ..base.ids import check_step_name
from ..base.values import Schema, plain_json
from ..engine.context import Context, Frame
from ..engine.inbox import wait_event
from ..engine.replay import STRAND
from ..engine.waits import PollCall, poll, sleep
from .function_call import FunctionCall
from .journaled import JournaledContext
from .steps_done import StepsDone
from .waiting import Poll, polled_type

__all__ = ["WaitingContext", "show_result"]

T = TypeVar("T")


class WaitingContext(JournaledContext):
    """The part of a flow's context that waits."""

    def _key(self, name: str) -> str:
        """Hand out the key of a step; the code has come to it now, though it may await it later."""
        key = self.execution.key(self.scope, check_step_name(name))
        self.execution.replay.reach(key)
        return key

    async def _noted(
        self,
        name: str,
        key: str,
        schema: Schema,
        call: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        **options: Any,
    ) -> Any:
        """Make a durable call and show its result in `ctx.steps` and `ctx.prev`."""
        value = await call(*args, **options)
        show_result(self._frame, name, key, functools.partial(self._read, key, schema), value)
        return value

    def _read(self, key: str, schema: Schema) -> Any:
        """Return a recorded output anew: what the code does to its own is not seen here."""
        row = self.execution.journal.steps[key]
        text = plain_json(row.output or "{}")["output"] if row.kind == "wait_for" else row.output
        return schema.decode(text or "null", f"the output of step {key!r}")

    def _inner(self, key: str, attempt: int) -> Context:
        return Context(self._frame.of_try(key, attempt))

    def sleep(self, name: str, duration: DurationLike) -> Coroutine[Any, Any, None]:
        """Wait, durably; a long wait gives the process back."""
        key = self._key(name)
        return sleep(self.execution, key, name, parse_duration(duration))

    @overload
    def wait_event(
        self, name: str, schema: type[T], *, timeout: DurationLike | None = None
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def wait_event(
        self, name: str, schema: Any = None, *, timeout: DurationLike | None = None
    ) -> Coroutine[Any, Any, Any]: ...
    def wait_event(
        self, name: str, schema: Any = None, *, timeout: DurationLike | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Wait for a signal called `name` and return its payload.

        Args:
            name: of the step and of the signal.
            schema: the type of the payload.
            timeout: how long to wait.

        Raises:
            WaitTimeout: it did not come in time.
        """
        key = self._key(name)
        seconds = None if timeout is None else parse_duration(timeout)
        kind = Schema(schema)
        return self._noted(name, key, kind, wait_event, self.execution, key, name, name, kind, seconds)

    interrupt = wait_event

    def poll(
        self,
        name: str,
        check: Callable[..., Any],
        *args: Any,
        every: DurationLike = "1s",
        timeout: DurationLike | None = None,
        max_attempts: int | None = None,
        backoff: float = 1.0,
        output: Any = None,
    ) -> Coroutine[Any, Any, Any]:
        """Call `check(*args)` now and then until it returns a true value (or `Poll.done(value)`), and return that.

        Its type is the one that `output` or the check's annotation names.

        Raises:
            StepFailed: it raised, or found nothing within `timeout` or `max_attempts` checks.
        """
        key = self._key(name)
        call = FunctionCall(check, args, {})

        async def look(attempt: int) -> tuple[bool, Any]:
            value = await call.run(self._inner(key, attempt), self.execution)
            return (value.is_done, value.value) if isinstance(value, Poll) else (bool(value), value)

        seconds = None if timeout is None else parse_duration(timeout)
        schema = Schema(output) if output is not None else _polled_schema(call.output)
        called = PollCall(key, name, look, schema, parse_duration(every), seconds, max_attempts, backoff)
        return self._noted(name, key, schema, poll, self.execution, called)


def show_result(frame: Frame, name: str, key: str, read: Callable[[], Any], value: Any) -> None:
    """Show what the code has come to in `ctx.steps` and, where nothing runs beside it, in `ctx.prev`."""
    if isinstance(frame.steps, StepsDone):
        frame.steps.note(name, key, read)
    if not STRAND.get():
        frame.prev = value


def _polled_schema(returns: Schema) -> Schema:
    """Return the schema of what a check finds: the value's where it is annotated as a `Poll`."""
    return Schema(polled_type(returns)) if (get_origin(returns.annotation) or returns.annotation) is Poll else returns
