"""The kinds of step that a graph is made of. Each knows how to run at one place of a walk, and where the walk goes next."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn, cast

from ..base.errors import InvalidWorkflow, NotSerializable, PayloadTooLarge, StepFailed
from ..base.values import ANY, Schema, plain_json
from ..engine.context import Context, Frame
from ..engine.execution import Execution
from ..engine.failure import describe_error, given, recorded_failure
from ..engine.handler import Handler
from ..engine.retry import ONCE, Retry
from ..engine.step_call import StepCall
from ..engine.strands import StrandsFailed, run_together
from ..engine.waits import LoopState, abandon
from ..store.journal import StepRow

__all__ = [
    "Arrival",
    "Branch",
    "ChoiceNode",
    "EndNode",
    "Node",
    "ParallelNode",
    "PassNode",
    "Place",
    "TaskNode",
    "TriedNode",
    "count_steps",
    "mapped",
    "walk",
    "with_default_retry",
]

_KEEP_INPUT = 4096


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a node leaves the walk: its output, or `transparent` for none of its own, and the next node if it chose one."""

    output: Any = None
    chosen: str | None = None
    transparent: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a graph. `next` is where it goes; None is the end."""

    name: str
    next: str | None = None
    end: bool = False
    kind: str = field(default="", init=False)

    def targets(self) -> tuple[str | None, ...]:
        """Return every place that this node can go to; None is the end."""
        return (self.next,)

    def shape(self) -> list[Any]:
        """Return what the fingerprint is made of."""
        return [self.kind, self.name, self.next, self.end]

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return the schemas of its input, its output and whatever else it takes, each with what it is the schema of."""
        for what in ("input", "output", "schema"):
            found = getattr(self, what, None)
            if isinstance(found, Schema):
                yield f"{what} of step {self.name!r}", found

    async def run(self, place: Place) -> Arrival:
        """Run at a place of a walk."""
        raise NotImplementedError


@dataclass(slots=True)
class Place:
    """Where a walk stands: its frame, and the loops that it is in."""

    frame: Frame
    outputs: dict[str, Any]
    loops: dict[str, LoopState] = field(default_factory=dict)

    def context(self, key: str = "", attempt: int = 1) -> Context:
        """Return a handler's view from here."""
        return Context(self.frame.of_try(key, attempt))

    def key(self, name: str) -> str:
        """Hand out the journal key of the next visit of a step."""
        return self.frame.execution.key(self.frame.scope, name)


async def walk(nodes: Mapping[str, Node], start: str, frame: Frame) -> Any:
    """Go through a graph from `start` and return the last output."""
    outputs: dict[str, Any] = {}
    # only the first of a ChainMap's maps is ever written
    steps = ChainMap(outputs, cast("MutableMapping[str, Any]", frame.steps))
    place = Place(replace(frame, steps=steps), outputs)
    name: str | None = start
    while name is not None:
        node = nodes[name]
        arrival = await node.run(place)
        if not arrival.transparent:
            outputs[name] = place.frame.prev = arrival.output
        name = arrival.chosen if arrival.chosen is not None else node.next
    return place.frame.prev


@dataclass(frozen=True, slots=True)
class TriedNode(Node):
    """A step that is tried again: `retry` is `given_retry` and, where that is silent, the default of its branch or workflow."""

    retry: Retry = ONCE
    given_retry: Any = None
    retry_settled: bool = False
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class TaskNode(TriedNode):
    """Run a handler."""

    handler: Handler = None  # type: ignore[assignment]
    mapper: Callable[..., Any] | None = None
    input: Schema = ANY
    output: Schema = ANY
    kind: str = field(default="task", init=False)

    async def run(self, place: Place) -> Arrival:
        """Map the input, run the handler as a durable step, hand on its output."""
        execution = place.frame.execution
        key = place.key(self.name)
        text: str | None = None
        row = execution.recall(key, self.kind)
        if row is None:
            await execution.replay.arrive(key)
        elif row.status not in ("completed", "failed"):
            await execution.replay.resume()
        if row is None or row.status not in ("completed", "failed"):
            text = await self._input(place, key, row)

        async def call(attempt: int) -> Any:
            value = (
                given(self.input, text or "null", f"the input of step {key!r}") if self.handler.takes_input else None
            )
            return await self.handler.call(value, place.context(key, attempt), execution.pool)

        kept = text if self.mapper is not None or (text and len(text) <= _KEEP_INPUT) else None
        step = StepCall(
            key,
            self.name,
            self.kind,
            call,
            self.output,
            kept,
            self.retry,
            self.timeout,
            stoppable=self.handler.is_async,
        )
        return Arrival(await execution.step(step))

    async def _input(self, place: Place, key: str, row: StepRow | None) -> str:
        execution = place.frame.execution
        if self.mapper is None:
            return execution.journal.input
        try:
            value = mapped(self.mapper, place.context(key))
            if inspect.isawaitable(value):
                value = await value
            return ANY.encode(value, f"the input of step {key!r}", execution.max_payload)
        except Exception as error:  # noqa: BLE001  a mapper's failure is the step's
            row = row or await execution.open(key, self.name, self.kind)
            row.failures += 1
            await execution.fail(row, error)


def with_default_retry(node: Node, default: Retry | None, where: str) -> Node:
    """Give a task, or the tasks of branches, the default retry; what they or their branch name themselves comes first.

    Raises:
        InvalidWorkflow: a task's own retry cannot work; the task is named.
    """
    if isinstance(node, ParallelNode):
        branches = tuple(
            replace(
                branch,
                nodes={
                    name: with_default_retry(inner, default, f"{where}/{branch.name}, step {name!r}")
                    for name, inner in branch.nodes.items()
                },
            )
            for branch in node.branches
        )
        return replace(node, branches=branches)
    if not isinstance(node, TriedNode) or node.retry_settled:
        return node
    try:
        retry = Retry.of(node.given_retry, default)
    except InvalidWorkflow as error:
        raise InvalidWorkflow(f"{where}: {error}") from None
    return replace(node, retry=retry, retry_settled=default is not None)


def mapped(mapper: Callable[..., Any], view: Context) -> Any:
    """Call a mapper with as many of (prev, workflow_input) as it takes; a parameter called ``ctx`` gets the context."""
    try:
        signature = inspect.signature(mapper)
    except ValueError:  # a builtin that does not say
        return mapper(view.prev, view.input)
    context = {"ctx": view} if "ctx" in signature.parameters else {}
    for positional in ((view.prev, view.input), (view.prev,), ()):
        try:
            signature.bind(*positional, **context)
        except TypeError:
            continue
        return mapper(*positional, **context)
    return mapper(view.prev)  # raises, and says what it wants


@dataclass(frozen=True, slots=True)
class ChoiceNode(Node):
    """Go to the first target whose condition holds."""

    choices: tuple[tuple[Callable[[Context], Any], str], ...] = ()
    default: str | None = None
    kind: str = field(default="choice", init=False)

    def targets(self) -> tuple[str | None, ...]:
        """Return the targets of all choices and the default."""
        return (*(target for _, target in self.choices), *([self.default] if self.default else []))

    def shape(self) -> list[Any]:
        """Return the targets with the rest."""
        return [self.kind, self.name, list(self.targets())]

    async def run(self, place: Place) -> Arrival:
        """Choose once; the choice is journaled, so a replay takes the same path."""
        key = place.key(self.name)

        async def choose() -> str:
            context = place.context(key)
            for condition, target in self.choices:
                holds = condition(context)
                if await holds if inspect.isawaitable(holds) else holds:
                    return target
            if self.default is None:
                raise InvalidWorkflow(f"no choice of step {key!r} matches, and it has no default")
            return self.default

        chosen = await place.frame.execution.evaluate(key, self.name, self.kind, choose, ANY)
        if chosen not in self.targets():
            place.frame.execution.replay.block(
                key,
                f"step {key!r} has chosen {chosen!r}, which is no target of it any more; bring that back, or cancel",
            )
        return Arrival(chosen=chosen, transparent=True)


@dataclass(frozen=True, slots=True)
class PassNode(Node):
    """Transform data, give a fixed result, or hand on the previous output."""

    transform: Callable[[Context], Any] | None = None
    result: Any = None
    has_result: bool = False
    kind: str = field(default="pass", init=False)

    async def run(self, place: Place) -> Arrival:
        """Compute once; the result is journaled."""
        key = place.key(self.name)

        def compute() -> Any:
            if self.transform is not None:
                return self.transform(place.context(key))
            return self.result if self.has_result else place.frame.prev

        schema = ANY
        if self.transform is None and not self.has_result:
            value = place.frame.prev  # handed on as it is: typed as its step has it
            await place.frame.execution.evaluate(key, self.name, self.kind, lambda: value, ANY)
            return Arrival(value)
        return Arrival(await place.frame.execution.evaluate(key, self.name, self.kind, compute, schema))


@dataclass(frozen=True, slots=True)
class EndNode(PassNode):
    """End the workflow with the previous output."""

    kind: str = field(default="end", init=False)


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of a `parallel`: a graph without a life of its own."""

    name: str
    nodes: Mapping[str, Node]
    start: str

    def count(self) -> int:
        """Return how many steps it has, those of inner branches included."""
        return sum(count_steps(node) for node in self.nodes.values())


@dataclass(frozen=True, slots=True)
class ParallelNode(Node):
    """Run branches side by side. Its output maps each branch's name to the branch's output, as plain JSON."""

    branches: tuple[Branch, ...] = ()
    on_error: Literal["fail-fast", "wait-all"] = "fail-fast"
    kind: str = field(default="parallel", init=False)

    def shape(self) -> list[Any]:
        """Return the branches' shapes with the rest."""
        return [
            self.kind,
            self.name,
            self.next,
            [[b.name, *(n.shape() for n in b.nodes.values())] for b in self.branches],
        ]

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return those of all branches' steps."""
        for branch in self.branches:
            for node in branch.nodes.values():
                yield from node.schemas()

    async def run(self, place: Place) -> Arrival:
        """Run the branches; each step of theirs is journaled under the branch's path."""
        execution = place.frame.execution
        key = place.key(self.name)
        row = await execution.open(key, self.name, self.kind)
        if row.status == "completed":
            return Arrival(plain_json(row.output or "null"))
        if row.status == "failed":
            raise recorded_failure(row)
        work = [self._branch(branch, key, place.frame) for branch in self.branches]
        try:
            outputs = await run_together(execution, work, fail_fast=self.on_error == "fail-fast")
        except StrandsFailed as failed:
            abandon(execution, f"{key}/", "another branch failed")
            await self._fail(execution, row, failed.errors)
        outcome = dict(zip([branch.name for branch in self.branches], outputs, strict=True))
        try:
            text = ANY.encode(outcome, f"the output of step {key!r}", execution.max_payload)
        except (NotSerializable, PayloadTooLarge) as error:
            await execution.fail(row, error)
        execution.complete(row, text)
        return Arrival(plain_json(text))

    async def _branch(self, branch: Branch, key: str, frame: Frame) -> Any:
        return await walk(branch.nodes, branch.start, replace(frame, scope=f"{key}/{branch.name}/"))

    async def _fail(self, execution: Execution, row: StepRow, errors: Sequence[Exception]) -> NoReturn:
        """Fail the step with the branches' failures; the error that the instance shows is the first inner step's."""
        infos = [describe_error(error, getattr(error, "paddock_step", row.key)) for error in errors]
        first = infos[0]
        message = "; ".join([first.message, *(f"{info.step}: {info.type}: {info.message}" for info in infos[1:])])
        attempts = getattr(errors[0], "attempts", 1)
        row.failures += 1
        await execution.fail(
            row, StepFailed(first.step or row.key, first.type, message, attempts, first.traceback, first.facts)
        )


def count_steps(node: Node) -> int:
    """Return how many steps a node stands for: itself, and those in its branches."""
    return 1 + (sum(branch.count() for branch in node.branches) if isinstance(node, ParallelNode) else 0)
