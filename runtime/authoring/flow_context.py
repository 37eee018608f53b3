"""The context of a flow: every durable thing that its code can ask for.

Each call hands out its journal key when it is made, not when it is awaited, so side-by-side work keeps its identity whatever finishes
first. Plain calls (`now`, `random`, `uuid4`, `patched`) are journaled with the next commit, which comes before anything that could tell
the outside of them.
"""

from __future__ import annotations

import contextvars
import functools
import json
import random as random_module
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar, get_origin, overload

from ..base.duration import DurationLike, parse_duration
from ..base.errors import InvalidInput, NotSerializable
from ..base.ids import check_instance_id, check_key, check_step_name
from ..base.values import ANY, Schema, plain_json, to_json
from ..engine.context import Context, Frame
from ..engine.execution import Execution
from ..engine.failure import given
from ..engine.handler import Handler, context_parameter, loose_handler
from ..engine.inbox import ChildCall, run_child_workflow, start_child, wait_event, wait_for_child
from ..engine.retry import ONCE, Retry
from ..engine.step_call import StepCall
from ..engine.strands import StrandsFailed, run_together
from ..engine.waits import PollCall, poll, sleep
from ..store.journal import StepRow
from .action import ACTIONS, Action, Tries, action_workflow, stands_in_module
from .waiting import Poll, polled_type

__all__ = ["ChildHandle", "FlowContext", "look_at"]

#: The scope of the flow whose `gather` began the strand that runs, and the strand's path within it.
_STRAND_PATH: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("paddock_strand_path", default=("", ""))

T = TypeVar("T")
RetryLike = Retry | dict[str, Any] | int | None


@dataclass(frozen=True, slots=True)
class ChildHandle:
    """An instance that a flow has started: `id`, and the type of its output for `wait_for`."""

    id: str
    workflow_name: str
    output: Schema


class FlowContext(Context):
    """The context in a flow."""

    @property
    def frame(self) -> Frame:
        """Where the code stands."""
        return self._frame

    @property
    def execution(self) -> Execution:
        """The durable core under it."""
        return self._frame.execution

    def _key(self, name: str) -> str:
        """Hand out the key of a step; the code has come to it now, though it may await it later."""
        key = self.execution.key(self.scope, check_step_name(name))
        self.execution.replay.reach(key)
        return key

    @property
    def scope(self) -> str:
        """The path that keys begin with: of the nested flow, and of the strand of a `gather` that the running code belongs to.

        Strands take turns as they please, so each counts the names that it uses by itself.
        """
        base, path = _STRAND_PATH.get()
        return self._frame.scope + path if base == self._frame.scope else self._frame.scope

    # --- steps ---

    @overload
    def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        output: type[T],
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        name: str,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        output: None = None,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        name: str,
        function: Callable[..., T],
        *args: Any,
        output: None = None,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self, name: str, function: Callable[..., Any], *args: Any, output: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]: ...
    def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
        output: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Run `function(*args, **kwargs)` once, durably, and return its result; on a replay the result comes from the journal.

        A parameter of the function that is annotated `Context` or named ``ctx`` gets the step's context. The result passes through its
        JSON form, and comes back as the type that the function's annotation (or `output`) names.

        Args:
            name: the step's name; it may be used more than once.
            function: `async def` runs on the loop, `def` in a worker thread.
            args: its arguments.
            retry: a `Retry`, its fields, or the number of attempts; by default a failure is final.
            timeout: how long one try may take.
            at_most_once: fail instead of running again when the process died while it ran.
            output: the type of the result, instead of the annotation.
            kwargs: its keyword arguments.

        Raises:
            StepFailed: its tries are spent; the same on every replay.
            InvalidWorkflow: values of the result's type would not come back from JSON.
        """
        key = self._key(name)
        call = _FunctionCall(function, args, kwargs)
        schema = Schema(output) if output is not None else call.output
        schema.adapter()  # a type that cannot hold the result is refused before the work is done
        policy = Retry.of(retry) if retry is not None else ONCE
        seconds = None if timeout is None else parse_duration(timeout)

        async def run(attempt: int) -> Any:
            return await call.run(self._inner(key, attempt), self.execution)

        step = StepCall(
            key, name, "step", run, schema, call.shown(), policy, seconds, at_most_once, stoppable=call.is_async
        )
        return self.execution.step(step)

    def _inner(self, key: str, attempt: int) -> Context:
        return Context(replace(self._frame, key=key, attempt=attempt))

    @overload
    def run_action(
        self,
        action: Action[..., Coroutine[Any, Any, T]],
        input: Any = None,
        *,
        isolated: bool = False,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run_action(
        self,
        action: Action[..., T],
        input: Any = None,
        *,
        isolated: bool = False,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run_action(
        self,
        action: str,
        input: Any = None,
        *,
        isolated: bool = False,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
    ) -> Coroutine[Any, Any, Any]: ...
    def run_action(
        self,
        action: Action[Any, Any] | str,
        input: Any = None,
        *,
        isolated: bool = False,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        at_most_once: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Run an action as a step under its own name; with `isolated=True` in a process of its own, while this one is given back.

        Raises:
            InvalidInput: there is no such action, or the input does not fit its schema, or another process could not find the action.
            StepFailed: its tries are spent.
        """
        found = ACTIONS.get(action) if isinstance(action, str) else action
        if not isinstance(found, Action):
            raise InvalidInput(
                f"there is no action {action!r}; make one with @action, in a module that is imported here"
            )
        handler, name = found.handler, found.name
        handler.output.adapter()  # as for a step
        key = self._key(name)
        text = ANY.encode(input, f"the input of action {name!r}", self.execution.max_payload)
        policy = Retry.of(retry) if retry is not None else ONCE
        seconds = None if timeout is None else parse_duration(timeout)
        if isolated:
            self._check_elsewhere(found)
            tries = Tries.of(policy, seconds, at_most_once=at_most_once)
            call = ChildCall(action_workflow(name), functools.partial(_ready, text), metadata=tries.metadata())
            return run_child_workflow(self.execution, key, name, "action", call, handler.output)

        async def run(attempt: int) -> Any:
            value = given(handler.input, text, f"the input of action {name!r}") if handler.takes_input else None
            return await handler.call(value, self._inner(key, attempt), self.execution.pool)

        step = StepCall(
            key, name, "action", run, handler.output, text, policy, seconds, at_most_once, stoppable=handler.is_async
        )
        return self.execution.step(step)

    def _check_elsewhere(self, wanted: Action[Any, Any]) -> None:
        """Refuse an action that another process would not find, or would take for another one: nobody would ever run it.

        Raises:
            InvalidInput: it was made within a function, by itself or by a factory.
        """
        brought = getattr(self.core, "definitions", {}).get(action_workflow(wanted.name))  # by a plugin
        there = self.core.role != "child" or brought is not None or stands_in_module(wanted)
        if ACTIONS.get(wanted.name) is not wanted or not there:
            raise InvalidInput(
                f"action {wanted.name!r} was made within a function, so another process cannot find it; "
                "assign it to a name at module level, or run it here, without isolated=True"
            )

    # --- waiting ---

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
        return wait_event(self.execution, key, name, name, Schema(schema), seconds)

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
        call = _FunctionCall(check, args, {})

        async def look(attempt: int) -> tuple[bool, Any]:
            value = await call.run(self._inner(key, attempt), self.execution)
            return (value.is_done, value.value) if isinstance(value, Poll) else (bool(value), value)

        seconds = None if timeout is None else parse_duration(timeout)
        schema = Schema(output) if output is not None else _polled_schema(call.output)
        return poll(
            self.execution, PollCall(key, name, look, schema, parse_duration(every), seconds, max_attempts, backoff)
        )

    # --- other instances ---

    def start(
        self,
        workflow: Any,
        input: Any = None,
        *,
        id: str | None = None,
        delay: DurationLike | None = None,
        priority: int | None = None,
    ) -> Coroutine[Any, Any, ChildHandle]:
        """Start an instance of another workflow and go on; its handle is the same on every replay.

        Args:
            workflow: its definition or name.
            input: its input.
            id: an id of your own.
            delay: how long it stays pending first.
            priority: this instance's by default.
        """
        definition = getattr(workflow, "__paddock_definition__", workflow)
        name = workflow if isinstance(workflow, str) else getattr(definition, "name", None)
        if not isinstance(name, str):
            raise InvalidInput(f"{workflow!r} is no workflow and no name of one")
        key = self._key(name)
        text = ANY.encode(input, f"the input of workflow {name!r}", self.execution.max_payload)
        if not isinstance(workflow, str):
            definition.input_schema.decode(text, f"the input of workflow {name!r}")
        call = ChildCall(
            name,
            functools.partial(_ready, text),
            check_instance_id(id) if id is not None else None,
            None if delay is None else parse_duration(delay),
            priority,
        )
        return self._start(key, name, call, getattr(definition, "output_schema", None) or Schema())

    async def _start(self, key: str, name: str, call: ChildCall, output: Schema) -> ChildHandle:
        return ChildHandle(await start_child(self.execution, key, name, call), name, output)

    def wait_for(self, started: ChildHandle | str | Sequence[ChildHandle | str]) -> Coroutine[Any, Any, Any]:
        """Wait for the end of instances, without a process, and return the output, or a list of them.

        Raises:
            WorkflowFailed, WorkflowCancelled, WorkflowTimedOut: one ended otherwise.
        """
        if isinstance(started, ChildHandle | str):
            return self._wait_for(started)
        return self.gather(*[self._wait_for(one) for one in started])

    def _wait_for(self, started: ChildHandle | str) -> Coroutine[Any, Any, Any]:
        ident, output = (started, Schema()) if isinstance(started, str) else (started.id, started.output)
        name = "wait for" if isinstance(started, str) else f"wait for {started.workflow_name}"
        key = self._key(name)
        return wait_for_child(self.execution, key, name, ident, output)

    async def gather(self, *work: Awaitable[Any]) -> list[Any]:
        """Run durable calls side by side and return their results in order.

        The first failure cancels the others and is raised. While all of them wait, the instance has no process.
        Coroutines of the user's own may be among them; what they ask for stands under ``gather/<position>/`` in the journal.

        Raises:
            StepFailed: of the first that failed, in the order in which they are written.
        """
        key = self.execution.key(self.scope, "gather")
        base = self._frame.scope
        strands = [_strand(one, base, f"{key.removeprefix(base)}/{place}/") for place, one in enumerate(work)]
        try:
            return await run_together(self.execution, strands, fail_fast=True)
        except StrandsFailed as failed:
            raise failed.errors[0] from None

    # --- told outside, once ---

    async def emit(self, event: str, data: Any = None) -> None:
        """Publish an event of the user's own; durable once this returns. A replay publishes it no second time."""
        if self._first_time(f"emit:{check_key(event, 'an event name')}", "emit"):
            await super().emit(event, data)

    async def set_metadata(self, key: str, value: Any) -> None:
        """Set one key of the instance's metadata; durable once this returns. A replay does not set it again."""
        if self._first_time(f"metadata:{check_key(key, 'a metadata key')}", "metadata"):
            await super().set_metadata(key, value)

    async def stream(self, chunk: Any) -> None:
        """Send a chunk to whoever reads the instance's stream; durable once this returns. A replay sends it no second time."""
        value = self._plain_chunk(chunk)
        await self.execution.chunks.send(self.scope, value)

    def _first_time(self, name: str, kind: str) -> bool:
        """Tell whether the code is here for the first time, and note that it was, with the next commit."""
        execution = self.execution
        key = execution.key(self.scope, name)
        if execution.recall(key, kind) is not None:
            return False
        execution.complete(StepRow(key, name, kind, "new", attempts=1), "null", begin=True, quiet=True)
        return True

    # --- journaled values ---

    def _recorded(self, name: str, compute: Callable[[], Any], scope: str | None = None) -> Any:
        """Return a value that is computed once and journaled with the next commit."""
        execution = self.execution
        key = execution.key(self.scope if scope is None else scope, name)
        row = execution.recall(key, name)
        if row is None:
            row = StepRow(key, name, name, "new", attempts=1)
            execution.complete(row, json.dumps(compute()), begin=True, quiet=True)
        return plain_json(row.output or "null")

    def now(self) -> datetime:
        """Return the time, timezone-aware UTC; the same on every replay."""
        return datetime.fromtimestamp(self._recorded("now", self.execution.clock.now), UTC)

    def random(self) -> float:
        """Return a random number in [0, 1); the same on every replay."""
        return float(self._recorded("random", random_module.random))

    def uuid4(self) -> uuid.UUID:
        """Return a random UUID; the same on every replay."""
        return uuid.UUID(self._recorded("uuid4", lambda: str(uuid.uuid4())))

    @functools.cached_property
    def rng(self) -> random_module.Random:
        """A generator seeded once for this instance; a replay draws the same numbers."""
        return random_module.Random(self._recorded("rng", _seed, self._frame.scope))  # noqa: S311

    def patched(self, change: str) -> bool:
        """Tell whether this instance shall take a changed piece of code.

        True for instances that come here for the first time; False for those that had passed this place before the change was made.
        The answer is journaled.
        """
        execution = self.execution
        key = f"{self._frame.scope}patched:{check_step_name(change)}"
        row = execution.recall(key, "patched")
        if row is None:
            if execution.replaying:
                return False
            row = StepRow(key, change, "patched", "new", attempts=1)
            execution.complete(row, "true", begin=True, quiet=True)
        return bool(plain_json(row.output or "false"))


def _polled_schema(returns: Schema) -> Schema:
    """Return the schema of what a check finds: the value's where it is annotated as a `Poll`."""
    return Schema(polled_type(returns)) if (get_origin(returns.annotation) or returns.annotation) is Poll else returns


class _FunctionCall:
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
            return text if len(text) <= 64 * 1024 else None
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


async def _ready(text: str) -> str:
    return text


def _seed() -> int:
    return random_module.getrandbits(62)


async def _strand(work: Awaitable[Any], base: str, path: str) -> Any:
    _STRAND_PATH.set((base, path))  # a strand is a task, with a context of its own
    return await work
