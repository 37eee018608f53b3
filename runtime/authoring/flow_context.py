"""The context of a flow: every durable thing that its code can ask for.

Each call hands out its journal key when it is made, not when it is awaited, so side-by-side work keeps its identity whatever finishes
first. Plain calls (`now`, `random`, `uuid4`, `patched`) are journaled with the next commit, which comes before anything that could tell
the outside of them.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from ..base.duration import DurationLike, parse_duration
from ..base.errors import InvalidInput
from ..base.ids import check_instance_id
from ..base.values import ANY, Schema
from ..engine.executor import input_text
from ..engine.failure import given
from ..engine.inbox import ChildCall, run_child_workflow, start_child, wait_for_child
from ..engine.replay import STRAND
from ..engine.retry import Retry
from ..engine.step_call import StepCall
from ..engine.strands import StrandsFailed, run_together
from .action import ACTIONS, Action, Tries, action_workflow, stands_in_module
from .flow_waits import WaitingContext
from .function_call import FunctionCall
from .journaled import STRAND_PATH
from .steps_done import StepsDone

__all__ = ["ChildHandle", "FlowContext"]

T = TypeVar("T")
RetryLike = Retry | dict[str, Any] | int | None


@dataclass(frozen=True, slots=True)
class ChildHandle:
    """An instance that a flow has started: `id`, and the type of its output for `wait_for`."""

    id: str
    workflow_name: str
    output: Schema


class FlowContext(WaitingContext):
    """The context in a flow."""

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
        call = FunctionCall(function, args, kwargs)
        schema = Schema(output) if output is not None else call.output
        schema.adapter()  # a type that cannot hold the result is refused before the work is done
        policy = Retry.of(retry)
        seconds = None if timeout is None else parse_duration(timeout)

        async def run(attempt: int) -> Any:
            return await call.run(self._inner(key, attempt), self.execution)

        step = StepCall(
            key, name, "step", run, schema, call.shown(), policy, seconds, at_most_once, stoppable=call.is_async
        )
        return self._noted(name, key, schema, self.execution.step, step)

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
        policy = Retry.of(retry)
        seconds = None if timeout is None else parse_duration(timeout)
        if isolated:
            self._check_elsewhere(found)
            tries = Tries.of(policy, seconds, at_most_once=at_most_once)
            call = ChildCall(action_workflow(name), functools.partial(_ready, text), metadata=tries.metadata())
            return self._noted(
                name, key, handler.output, run_child_workflow, self.execution, key, name, "action", call, handler.output
            )

        async def run(attempt: int) -> Any:
            value = given(handler.input, text, f"the input of action {name!r}") if handler.takes_input else None
            return await handler.call(value, self._inner(key, attempt), self.execution.pool)

        step = StepCall(
            key, name, "action", run, handler.output, text, policy, seconds, at_most_once, stoppable=handler.is_async
        )
        return self._noted(name, key, handler.output, self.execution.step, step)

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
        limit = self.execution.max_payload
        if isinstance(workflow, str):
            text = ANY.encode(input, f"the input of workflow {name!r}", limit)
        else:
            text = input_text(definition, input, limit)
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
        return self._noted(name, key, output, wait_for_child, self.execution, key, name, ident, output)

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
            found = await run_together(self.execution, strands, fail_fast=True)
        except StrandsFailed as failed:
            raise failed.errors[0] from None
        finally:
            if isinstance(self._frame.steps, StepsDone):
                self._frame.steps.gathered()
        if not STRAND.get():
            self._frame.prev = found
        return found


async def _ready(text: str) -> str:
    return text


async def _strand(work: Awaitable[Any], base: str, path: str) -> Any:
    STRAND_PATH.set((base, path))  # a strand is a task, with a context of its own
    return await work
