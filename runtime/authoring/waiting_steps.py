"""What every builder has: a list of steps, and the kinds of step that wait."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

from ..base.duration import DurationLike, parse_duration
from ..base.errors import ConfigError, InvalidWorkflow
from ..base.ids import check_step_name
from ..base.values import Schema
from ..engine.context import Context
from ..engine.definition import WorkflowLike, definition_of
from ..engine.handler import Handler, handler_of
from ..engine.retry import Retry
from .nodes import Node
from .waiting import ChildNode, LoopNode, PollNode, SleepNode, WaitEventNode, polled_type

__all__ = ["Mapper", "RetryLike", "WaitingSteps"]

Mapper = Callable[..., Any]
RetryLike = Retry | dict[str, Any] | int | None


class WaitingSteps:
    """Steps that are added one after the other; those that wait. The others are `BranchBuilder`'s."""

    def __init__(self, name: str) -> None:
        """Begin a branch; use `branch(name)`."""
        self._name = check_step_name(name)
        self._nodes: list[Node] = []
        self._start: str | None = None
        self._default_retry: Retry | None = None

    def _add(self, node: Node) -> Self:
        check_step_name(node.name)
        if node.next is not None and node.end:
            raise InvalidWorkflow(
                f"{self._what}, step {node.name!r}: it has both next={node.next!r} and end=True; give one"
            )
        if any(other.name == node.name for other in self._nodes):
            raise InvalidWorkflow(f"{self._what} has two steps called {node.name!r}; names must be distinct")
        self._nodes.append(node)
        return self

    @property
    def _what(self) -> str:
        return f"branch {self._name!r}"

    def _where(self, name: str) -> str:
        return f"{self._what}, step {name!r}"

    def _seconds(self, name: str, what: str, value: DurationLike | None) -> float | None:
        try:
            return None if value is None else parse_duration(value)
        except ConfigError as error:
            raise InvalidWorkflow(f"{self._where(name)}: {what}: {error}") from None

    def _given(self, given: Any) -> tuple[Mapper | None, Schema]:
        """Split `input=` into a mapper or a schema."""
        self._refuse_value(given)
        return (given, Schema()) if given is not None and _is_mapper(given) else (None, Schema(given))

    def _refuse_value(self, given: Any) -> None:
        if isinstance(given, dict | list | tuple | set | int | float | str):
            raise InvalidWorkflow(
                f"{self._what}: {given!r:.100} is neither a type nor a function; "
                "for a fixed value write a function that returns it"
            )

    def _gates(self, handler: Handler, given: Any) -> tuple[Mapper | None, Schema]:
        """Split `input=` into a mapper or a schema; without a schema, the handler's annotation is it."""
        self._refuse_value(given)
        if given is not None and _is_mapper(given):
            return given, handler.input
        return None, Schema(given) if given is not None else handler.input

    def poll(
        self,
        name: str,
        check: Callable[..., Any],
        *,
        interval: DurationLike = "1s",
        timeout: DurationLike | None = None,
        max_attempts: int | None = None,
        backoff: float = 1.0,
        input: Any = None,
        output: Any = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Check now and then, until the check returns `Poll.done(value)`; its value is the output.

        Counter and times are durable: a restart goes on counting and waits only what is left.

        Args:
            name: the step's name.
            check: a handler that returns `Poll.done(value)` or `Poll.pending()`.
            interval: the wait between checks.
            timeout: how long to wait in all; then the step fails.
            max_attempts: how many checks; then the step fails.
            backoff: factor from one wait to the next.
            input: as for `task`.
            output: a schema for the value.
            next: the step to go on to.
            end: end the workflow here.
        """
        looked = handler_of(check, self._where(name))
        mapper, schema = self._gates(looked, input)
        if (max_attempts is not None and max_attempts < 1) or backoff < 1:
            raise InvalidWorkflow(f"{self._where(name)}: max_attempts and backoff must be at least 1")
        return self._add(
            PollNode(
                name,
                next,
                end,
                handler=looked,
                mapper=mapper,
                input=schema,
                output=Schema(output if output is not None else polled_type(looked.output)),
                interval=self._seconds(name, "interval", interval) or 0.0,
                timeout=self._seconds(name, "timeout", timeout),
                max_attempts=max_attempts,
                backoff=backoff,
            )
        )

    def loop(
        self,
        name: str,
        condition: Callable[[Context], Any],
        target: str,
        *,
        interval: DurationLike = 0,
        max_iterations: int | None = None,
        timeout: DurationLike | None = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Jump back to `target` while the condition holds; `max_iterations` and the events count jumps back.

        Raises:
            InvalidWorkflow: the condition is no function, or `max_iterations` no number from 0.
        """
        if not callable(condition):
            raise InvalidWorkflow(
                f"{self._where(name)}: its condition must be a function of the context, not {condition!r}"
            )
        if max_iterations is not None and max_iterations < 0:
            raise InvalidWorkflow(f"{self._where(name)}: max_iterations must be at least 0, not {max_iterations!r}")
        return self._add(
            LoopNode(
                name,
                next,
                end,
                condition=condition,
                target=target,
                interval=self._seconds(name, "interval", interval) or 0.0,
                max_iterations=max_iterations,
                timeout=self._seconds(name, "timeout", timeout),
            )
        )

    def sleep(self, name: str, duration: DurationLike, *, next: str | None = None, end: bool = False) -> Self:
        """Wait, durably."""
        return self._add(SleepNode(name, next, end, seconds=self._seconds(name, "duration", duration) or 0.0))

    def wait_event(
        self,
        name: str,
        schema: Any = None,
        *,
        timeout: DurationLike | None = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Wait for a signal of the step's name (`server.workflows.signal(id, name, payload)`); its payload is the output.

        The instance has no process meanwhile. A signal that came before is kept for the wait.

        Args:
            name: the step's name, and the signal's.
            schema: the type of the payload; a signal that does not fit is refused where it is sent.
            timeout: how long to wait; then the step fails.
            next: the step to go on to.
            end: end the workflow here.
        """
        seconds = self._seconds(name, "timeout", timeout)
        return self._add(WaitEventNode(name, next, end, schema=Schema(schema), timeout=seconds))

    def child(
        self,
        name: str,
        workflow: str | WorkflowLike,
        *,
        input: Any = None,
        output: Any = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Run another workflow as an instance of its own and wait for its output, without a process meanwhile.

        Args:
            name: the step's name.
            workflow: the other workflow's name or definition.
            input: a function `(prev, workflow_input)` that gives its input, or a schema that the workflow's input must pass, which it
                gets without a function.
            output: a schema for the output.
            next: the step to go on to.
            end: end the workflow here.
        """
        other = workflow if isinstance(workflow, str) else getattr(definition_of(workflow), "name", None)
        if not isinstance(other, str):
            raise InvalidWorkflow(f"{self._where(name)}: {workflow!r} is no workflow and no name of one")
        mapper, schema = self._given(input)
        return self._add(ChildNode(name, next, end, workflow=other, mapper=mapper, input=schema, output=Schema(output)))


def _is_mapper(value: Any) -> bool:
    """Tell a function, or an object that can be called, from a type: the objects of `typing` can be called too."""
    if inspect.isclass(value) or not callable(value):
        return False
    return type(value).__module__ not in ("typing", "types") or inspect.isroutine(value)
