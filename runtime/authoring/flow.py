"""Code first: a workflow written as one function, which replays from the top and takes completed steps from the journal."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, TypeVar, cast

from ..base.duration import DurationLike, parse_duration
from ..base.errors import InvalidWorkflow
from ..base.ids import check_workflow_name
from ..base.values import ANY, Schema
from ..engine.context import Frame
from ..engine.definition import BUILT
from ..engine.handler import Handler, handler_of
from .blocking import BlockingFlowContext
from .flow_context import FlowContext
from .flow_waits import show_result
from .steps_done import StepsDone

__all__ = ["Flow", "flow"]

P = ParamSpec("P")
R = TypeVar("R")

#: The context of the flow whose code runs now: a plain call of another flow becomes a part of it.
_CURRENT: contextvars.ContextVar[FlowContext | BlockingFlowContext | None] = contextvars.ContextVar(
    "paddock_flow", default=None
)


@dataclass(frozen=True, eq=False)
class Flow(Generic[P, R]):
    """A workflow written as a function. Made by `@flow`."""

    name: str
    function: Callable[P, R]
    handler: Handler
    module: str | None
    isolated: bool = True
    timeout: float | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    chunk_schema: Schema = ANY

    @property
    def input_schema(self) -> Schema:
        """The schema of the input: the function's annotation."""
        return self.handler.input if self.handler.takes_input else Schema()

    @property
    def output_schema(self) -> Schema:
        """The schema of the output: the function's annotation."""
        return self.handler.output

    @property
    def total_steps(self) -> int | None:
        """None: the code decides how many steps there are."""
        return None

    def fingerprint(self) -> str:
        """Return a short text that changes with the function's source."""
        return source_hash(self.function, self.name)

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return the schemas of input, output and chunks."""
        return (("its input", self.input_schema), ("its output", self.output_schema), ("its chunks", self.chunk_schema))

    async def run(self, frame: Frame) -> tuple[Any, Schema]:
        """Run the function from the top."""
        value = frame.execution.replay.decode_input(self.input_schema, f"the input of workflow {self.name!r}")
        frame.input, frame.chunk, frame.steps = value, self.chunk_schema, StepsDone()
        return await self.run_in(FlowContext(frame), value), self.handler.output

    async def run_in(self, context: FlowContext, value: Any) -> Any:
        """Run the function with a context; a plain function in a thread, with the context's blocking twin."""
        if self.handler.is_async:
            token = _CURRENT.set(context)
            try:
                return await self.handler.call(value, context, context.execution.pool)
            finally:
                _CURRENT.reset(token)
        twin = BlockingFlowContext(context.frame, asyncio.get_running_loop())
        token = _CURRENT.set(twin)
        try:
            with context.execution.tasks.thread():
                return await self.handler.call(value, twin, context.execution.pool)
        finally:
            _CURRENT.reset(token)
            twin.release()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Any]:
        """Run the flow here and now: as a part of the flow whose code calls it, else by itself, with every wait in real time.

        By itself nothing is stored: a crash forgets it. In a flow that is a plain function the call blocks and returns the output.

        Raises:
            WorkflowFailed: it raised.
            InvalidInput: the argument does not fit.
        """
        value = args[0] if args else next(iter(kwargs.values()), None)
        context = _CURRENT.get()
        if isinstance(context, BlockingFlowContext) and context.in_thread:
            return cast("Awaitable[Any]", context.nested(self._nested(FlowContext(context.frame), value)))
        if context is not None:
            return self._nested(FlowContext(context.frame), value)
        from .alone import run_alone

        return run_alone(self, value)

    async def _nested(self, context: FlowContext, value: Any) -> Any:
        frame = context.frame
        key = frame.execution.key(context.scope, self.name)
        limit = frame.execution.max_payload
        text = ANY.encode(value, f"the input of flow {key!r}", limit)
        typed = self.input_schema.receive(text, f"the input of flow {key!r}")
        inner = replace(frame, scope=f"{key}/", input=typed, steps=StepsDone(frame.steps))
        found = await self.run_in(FlowContext(inner), typed)
        text = self.output_schema.encode(found, f"the output of flow {key!r}", limit)
        read = functools.partial(self.output_schema.decode, text, f"the output of flow {key!r}")
        value = read()
        show_result(frame, self.name, key, read, value)
        return value


@functools.lru_cache(maxsize=4096)
def source_hash(code: Any, otherwise: str) -> str:
    """Return a short text that changes with the source of a function or a class (looked up once), or with `otherwise`."""
    try:
        text = inspect.getsource(code)
    except (OSError, TypeError):
        text = otherwise
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flow(
    name: str | None = None,
    *,
    timeout: DurationLike | None = None,
    isolated: bool = True,
    description: str | None = None,
    tags: Sequence[str] = (),
    stream: Any = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Make a function a workflow.

    The function takes ``(input, ctx)``, either alone, or nothing; its annotations are the schemas. It must ask for the same steps in
    the same order when it runs again with the same results: effects, clocks and chance belong into steps, or come from the context.

    Args:
        name: the workflow's name; the function's by default.
        timeout: end the instance as `timed_out` when it takes longer than this from its first start.
        isolated: run instances in a process of their own.
        description: what it is for; the docstring's first line by default.
        tags: words to find it by.
        stream: the type of what it streams: another chunk is refused, and readers get the type.

    Raises:
        InvalidWorkflow: the name cannot be one, or the function's signature cannot work.
    """
    if callable(name):
        raise InvalidWorkflow('write @flow() with parentheses, or @flow("name")')
    module = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001  the module that the decorator stands in

    def make(function: Callable[P, R]) -> Flow[P, R]:
        known = check_workflow_name(name or getattr(function, "__name__", None))
        doc = inspect.getdoc(function)
        made = Flow(
            known,
            function,
            handler_of(function, f"flow {known!r}"),
            module,
            isolated,
            None if timeout is None else parse_duration(timeout),
            description or (doc.splitlines()[0] if doc else None),
            tuple(tags),
            Schema(stream),
        )
        BUILT[module, known] = made
        return made

    return make
