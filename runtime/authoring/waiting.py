"""The kinds of step that wait: polls, sleeps, loops, signals, other workflows."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args, get_origin

from ..base.errors import InvalidWorkflow
from ..base.values import ANY, Schema
from ..engine.context import Context
from ..engine.handler import Handler
from ..engine.inbox import ChildCall, run_child_workflow, wait_event
from ..engine.waits import LoopState, PollCall, loop_back, poll, sleep
from .action import Tries, action_workflow
from .nodes import Arrival, Node, Place, TriedNode, mapped

__all__ = ["ChildNode", "JobNode", "LoopNode", "Poll", "PollNode", "SleepNode", "WaitEventNode", "polled_type"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Poll(Generic[T]):
    """What a poll's check returns: `Poll.done(value)` or `Poll.pending()`."""

    is_done: bool
    value: T | None = None

    @classmethod
    def done(cls, value: T | None = None) -> Poll[T]:
        """Say that what was waited for is there."""
        return cls(True, value)

    @classmethod
    def pending(cls) -> Poll[T]:
        """Say that it is not there yet."""
        return cls(False)


def polled_type(returns: Schema) -> Any:
    """Return the type of the value that a check's annotation names: `Found` for `-> Poll[Found]`; None where it names none."""
    if get_origin(returns.annotation) is not Poll:
        return None
    (value,) = get_args(returns.annotation)
    return None if isinstance(value, TypeVar) else value


@dataclass(frozen=True, slots=True)
class PollNode(Node):
    """Check now and then until something is there."""

    handler: Handler = None  # type: ignore[assignment]
    mapper: Callable[..., Any] | None = None
    input: Schema = ANY
    output: Schema = ANY
    interval: float = 1.0
    timeout: float | None = None
    max_attempts: int | None = None
    backoff: float = 1.0
    kind: str = field(default="poll", init=False)

    async def run(self, place: Place) -> Arrival:
        """Poll; the count and the times are durable."""
        execution = place.frame.execution
        key = place.key(self.name)

        async def check(attempt: int) -> tuple[bool, Any]:
            text = execution.journal.input
            if self.mapper is not None:
                given = mapped(self.mapper, place.context(key, attempt))
                given = await given if inspect.isawaitable(given) else given
                text = ANY.encode(given, f"the input of step {key!r}", execution.max_payload)
            value = self.input.receive(text, f"the input of step {key!r}") if self.handler.takes_input else None
            found = await self.handler.call(value, place.context(key, attempt), execution.pool)
            if not isinstance(found, Poll):
                raise InvalidWorkflow(
                    f"the check of poll {key!r} must return Poll.done(value) or Poll.pending(), not {type(found).__name__}"
                )
            return found.is_done, found.value

        call = PollCall(
            key, self.name, check, self.output, self.interval, self.timeout, self.max_attempts, self.backoff
        )
        return Arrival(await poll(execution, call))


@dataclass(frozen=True, slots=True)
class SleepNode(Node):
    """Wait for a fixed time."""

    seconds: float = 0.0
    kind: str = field(default="sleep", init=False)

    async def run(self, place: Place) -> Arrival:
        """Sleep; the time of waking is durable."""
        await sleep(place.frame.execution, place.key(self.name), self.name, self.seconds)
        return Arrival(transparent=True)


@dataclass(frozen=True, slots=True)
class LoopNode(Node):
    """Jump back to an earlier step while a condition holds."""

    condition: Callable[[Context], Any] = None  # type: ignore[assignment]
    target: str = ""
    interval: float = 0.0
    max_iterations: int | None = None
    timeout: float | None = None
    kind: str = field(default="loop", init=False)

    def targets(self) -> tuple[str | None, ...]:
        """Return the target of the jump and the way on."""
        return (self.target, self.next)

    def shape(self) -> list[Any]:
        """Return the target with the rest."""
        return [self.kind, self.name, self.target, self.next]

    async def run(self, place: Place) -> Arrival:
        """Decide; the count of jumps is durable."""
        state = place.loops.get(self.name)
        if state is None:
            state = place.loops[self.name] = LoopState(place.key(self.name))

        async def holds() -> bool:
            found = self.condition(place.context(state.key))
            return bool(await found if inspect.isawaitable(found) else found)

        again = await loop_back(
            place.frame.execution,
            state,
            self.name,
            holds,
            interval=self.interval,
            max_iterations=self.max_iterations,
            timeout=self.timeout,
        )
        if not again:
            del place.loops[self.name]  # a later visit is a loop of its own
        return Arrival(chosen=self.target if again else None, transparent=True)


@dataclass(frozen=True, slots=True)
class WaitEventNode(Node):
    """Wait for a signal of the step's name."""

    schema: Schema = ANY
    timeout: float | None = None
    kind: str = field(default="wait_event", init=False)

    async def run(self, place: Place) -> Arrival:
        """Wait; the signal's payload is the output."""
        key = place.key(self.name)
        return Arrival(await wait_event(place.frame.execution, key, self.name, self.name, self.schema, self.timeout))


@dataclass(frozen=True, slots=True)
class ChildNode(Node):
    """Run another workflow and wait for its output."""

    workflow: str = ""
    mapper: Callable[..., Any] | None = None
    input: Schema = ANY
    output: Schema = ANY
    kind: str = field(default="child", init=False)

    def shape(self) -> list[Any]:
        """Return the workflow's name with the rest."""
        return [self.kind, self.name, self.workflow, self.next, self.end]

    async def run(self, place: Place) -> Arrival:
        """Start it, and wait without a process."""
        key = place.key(self.name)
        call = ChildCall(self.workflow, child_input(self, place, key))
        return Arrival(await run_child_workflow(place.frame.execution, key, self.name, self.kind, call, self.output))


@dataclass(frozen=True, slots=True)
class JobNode(TriedNode):
    """Run an action in a process of its own: an instance of the action's workflow."""

    action: str = ""
    mapper: Callable[..., Any] | None = None
    input: Schema = ANY
    output: Schema = ANY
    transform: Callable[..., Any] | None = None
    kind: str = field(default="task", init=False)

    @property
    def workflow(self) -> str:
        """The name of the action's workflow."""
        return action_workflow(self.action)

    def shape(self) -> list[Any]:
        """Return the action's workflow with the rest."""
        return [self.kind, self.name, self.workflow, self.next, self.end]

    async def run(self, place: Place) -> Arrival:
        """Start it with what is said of its tries, wait without a process, hand on its output or what `transform` makes of it."""
        key = place.key(self.name)
        given = child_input(self, place, key)
        tries = Tries.of(self.retry, self.timeout)
        call = ChildCall(self.workflow, given, metadata=tries.metadata())
        return Arrival(
            await run_child_workflow(
                place.frame.execution, key, self.name, self.kind, call, self.output, transform=self._output(place, key)
            )
        )

    def _output(self, place: Place, key: str) -> Callable[[Any], Any] | None:
        transform = self.transform
        if transform is None:
            return None
        return lambda result: _transformed(transform, result, place.context(key))


def _transformed(transform: Callable[..., Any], result: Any, view: Context) -> Any:
    """Call a function of an action's result with the context too, where it takes that."""
    signature = inspect.signature(transform)
    try:
        signature.bind(result, view)
    except TypeError:
        return transform(result)
    return transform(result, view)


def child_input(node: ChildNode | JobNode, place: Place, key: str) -> Callable[[], Awaitable[str]]:
    """Return what gives the JSON text of another instance's input: the mapper's, or the workflow's own, which must fit the schema."""
    execution = place.frame.execution

    async def text() -> str:
        if node.mapper is None:
            node.input.decode(execution.journal.input, f"the input of step {key!r}")
            return execution.journal.input
        value = mapped(node.mapper, place.context(key))
        value = await value if inspect.isawaitable(value) else value
        return ANY.encode(value, f"the input of step {key!r}", execution.max_payload)

    return text
