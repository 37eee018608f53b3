"""The fluent builder: how a step graph is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from ..base.duration import DurationLike
from ..base.errors import InvalidWorkflow
from ..base.ids import check_workflow_name
from ..base.values import Schema
from ..engine.context import Context
from ..engine.definition import BUILT
from ..engine.handler import handler_of
from ..engine.retry import Retry
from .graph import Graph, check_graph
from .nodes import Branch, ChoiceNode, EndNode, Node, ParallelNode, PassNode, TaskNode, with_default_retry
from .waiting import JobNode
from .waiting_steps import RetryLike, WaitingSteps

__all__ = ["BranchBuilder", "WorkflowBuilder", "branch", "workflow"]

_UNSET: Any = object()
_PAIR = 2


class BranchBuilder(WaitingSteps):
    """Add steps one after the other; `build()` checks them.

    Each method returns the builder. A step with neither `next` nor `end` goes on to the one written after it; the last one ends.
    """

    def task(
        self,
        name: str,
        handler: Callable[..., Any] | None = None,
        *,
        job: str | None = None,
        input: Any = None,
        output: Any = None,
        retry: RetryLike = None,
        timeout: DurationLike | None = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Run a handler, `(input, ctx)`, either alone, or nothing; `async def` on the loop, `def` in a worker thread.

        Args:
            name: the step's name, distinct within its graph.
            handler: the function.
            job: the name of a registered action, run instead of a handler, in a process of its own.
            input: a schema that the workflow's input must pass, or a function `(prev, workflow_input)` that gives the handler's input;
                a parameter of it called ``ctx`` gets the context. Without it the handler gets the workflow's input.
            output: a schema for the output; without it, the handler's annotation. For a job also a function `(result, ctx)` that makes
                the output.
            retry: a `Retry`, its fields, or the number of attempts; fields left out come from `default_retry`.
            timeout: how long one try may take; then it fails, and its handler is stopped.
            next: the step to go on to.
            end: end the workflow here.

        Raises:
            InvalidWorkflow: the step cannot work; it is named.
        """
        if (handler is None) == (job is None):
            raise InvalidWorkflow(f"{self._where(name)}: give a handler or job=, one of them")
        if handler is None:
            return self._job(JobNode(name, next, end, given_retry=retry, action=str(job)), input, output, timeout)
        looked = handler_of(handler, self._where(name))
        mapper, schema = self._gates(looked, input)
        return self._add(
            TaskNode(
                name,
                next,
                end,
                handler=looked,
                mapper=mapper,
                input=schema,
                output=Schema(output) if output is not None else looked.output,
                timeout=self._seconds(name, "timeout", timeout),
                given_retry=retry,
            )
        )

    def _job(self, node: JobNode, given: Any, output: Any, timeout: DurationLike | None) -> Self:
        """Add a step that runs a registered action in a process of its own."""
        mapper, gate = self._given(given)
        transform, schema = self._given(output)
        seconds = self._seconds(node.name, "timeout", timeout)
        return self._add(replace(node, mapper=mapper, input=gate, output=schema, transform=transform, timeout=seconds))

    def choice(
        self,
        name: str,
        choices: Sequence[tuple[Callable[[Context], Any], str] | Mapping[str, Any]],
        default: str | None = None,
    ) -> Self:
        """Go to the target of the first condition that holds, else to `default`.

        The decision is journaled, and the step is transparent for `prev`. A condition that raises, or no match without a default,
        fails the instance at this step.

        Raises:
            InvalidWorkflow: a choice is no (condition, target) pair.
        """
        pairs: list[tuple[Callable[[Context], Any], str]] = []
        for item in choices:
            pair: Any = (item.get("condition"), item.get("next")) if isinstance(item, Mapping) else item
            is_pair = isinstance(pair, Sequence) and len(pair) == 2  # noqa: PLR2004
            if not is_pair or not callable(pair[0]) or not isinstance(pair[1], str):
                raise InvalidWorkflow(
                    f"{self._where(name)}: a choice is a pair (condition, name of the next step), not {item!r}"
                )
            pairs.append((pair[0], pair[1]))
        return self._add(ChoiceNode(name, choices=tuple(pairs), default=default))

    def parallel(
        self,
        name: str,
        branches: Sequence[Branch | BranchBuilder],
        *,
        on_error: Literal["fail-fast", "wait-all"] = "fail-fast",
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Run branches side by side.

        Args:
            name: the step's name.
            branches: made by `branch(name)…build()`.
            on_error: "fail-fast" stops the other branches when one fails, "wait-all" lets them end first; both fail the step.
            next: the step to go on to.
            end: end the workflow here.

        Raises:
            InvalidWorkflow: no branches, two of one name, or an unknown `on_error`.
        """
        if on_error not in ("fail-fast", "wait-all"):
            raise InvalidWorkflow(f'{self._where(name)}: on_error is "fail-fast" or "wait-all", not {on_error!r}')
        built = [item.build() if isinstance(item, BranchBuilder) else item for item in branches]
        if not built or not all(isinstance(item, Branch) for item in built):
            raise InvalidWorkflow(f"{self._where(name)}: branches must be a list of branch(…)…build()")
        names = [item.name for item in built]
        if len(set(names)) != len(names):
            raise InvalidWorkflow(f"{self._where(name)}: two branches share a name ({', '.join(names)})")
        return self._add(ParallelNode(name, next, end, branches=tuple(built), on_error=on_error))

    def pass_(
        self,
        name: str,
        *,
        transform: Callable[[Context], Any] | None = None,
        result: Any = _UNSET,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Transform data, give a fixed result, or (with neither) hand on the previous output.

        Raises:
            InvalidWorkflow: both a transform and a result.
        """
        if transform is not None and result is not _UNSET:
            raise InvalidWorkflow(f"{self._where(name)}: give transform= or result=, not both")
        if transform is not None and not callable(transform):
            raise InvalidWorkflow(
                f"{self._where(name)}: its transform must be a function of the context, not {transform!r}"
            )
        has = result is not _UNSET
        return self._add(PassNode(name, next, end, transform=transform, result=result if has else None, has_result=has))

    def end(self, name: str) -> Self:
        """End the workflow with the previous output."""
        return self._add(EndNode(name, end=True))

    def default_retry(self, policy: RetryLike = None, **fields: Any) -> Self:
        """Set the retry of tasks that name none, those in branches included, and the fields that their own leaves out.

        Raises:
            InvalidWorkflow: the policy cannot work.
        """
        try:
            self._default_retry = Retry.of(policy if policy is not None else fields)
        except InvalidWorkflow as error:
            raise InvalidWorkflow(f"{self._what}: default_retry: {error}") from None
        return self

    def start_at(self, name: str) -> Self:
        """Begin at another step than the first one written."""
        self._start = name
        return self

    def _linked(self, inherited: Retry | None = None) -> tuple[dict[str, Node], str]:
        if not self._nodes:
            raise InvalidWorkflow(f"{self._what} has no steps")
        default = self._default_retry or inherited
        nodes: dict[str, Node] = {}
        for position, node in enumerate(self._nodes):
            follower = self._nodes[position + 1].name if position + 1 < len(self._nodes) else None
            linked = node
            if node.next is None and not node.end and not isinstance(node, ChoiceNode):
                linked = replace(node, next=follower)
            nodes[node.name] = with_default_retry(linked, default, self._where(node.name))
        start = self._start or self._nodes[0].name
        check_graph(self._what, nodes, start)
        return nodes, start

    def build(self) -> Any:
        """Check the branch and return it.

        Raises:
            InvalidWorkflow: the graph cannot work; the step is named.
        """
        nodes, start = self._linked()
        return Branch(self._name, nodes, start)


class WorkflowBuilder(BranchBuilder):
    """Build a workflow: the steps of a branch, and what concerns the whole."""

    def __init__(self, name: str, *, input: Any = None) -> None:
        """Begin a workflow; use `workflow(name)`."""
        super().__init__(check_workflow_name(name))
        self._input = Schema(input)
        self._isolated = True
        self._timeout: float | None = None
        self._description: str | None = None
        self._tags: tuple[str, ...] = ()

    @property
    def _what(self) -> str:
        return f"workflow {self._name!r}"

    def timeout(self, duration: DurationLike) -> Self:
        """End the instance as `timed_out` when it takes longer than this from its first start."""
        self._timeout = self._seconds("(workflow)", "timeout", duration)
        return self

    def isolated(self, value: bool = True) -> Self:
        """Run instances in a process of their own (the default), or inside the server with `False`."""
        self._isolated = value
        return self

    def describe(self, text: str, *, tags: Sequence[str] = ()) -> Self:
        """Say what the workflow is for."""
        self._description, self._tags = text, tuple(tags)
        return self

    def build(self) -> Graph:
        """Check the graph and return the workflow; the module that calls this is where a child will import it from.

        Raises:
            InvalidWorkflow: an unknown `next`, a step that cannot be reached, no way to an end, a name used twice.
        """
        nodes, start = self._linked()
        module = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001  the caller's module, as `logging` finds it
        graph = Graph(
            self._name, nodes, start, module, self._isolated, self._timeout, self._description, self._tags, self._input
        )
        BUILT[(module, self._name)] = graph
        return graph


def workflow(name: str, *, input: Any = None) -> WorkflowBuilder:
    """Begin a workflow of steps.

    Args:
        name: its name, by which it is started.
        input: the type of its input; `ctx.input` is then of that type.
    """
    return WorkflowBuilder(name, input=input)


def branch(name: str) -> BranchBuilder:
    """Begin a branch of a `parallel` step."""
    return BranchBuilder(name)
