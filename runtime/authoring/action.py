"""Actions: self-describing functions, and the workflow of one step that runs an action in a process of its own.

How such a step is tried (its retry policy, its timeout) is said where it is called, and needed in the process where it runs. It
travels as metadata of the action's instance.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from pydantic import BaseModel

from ..base.errors import InvalidWorkflow
from ..base.ids import check_workflow_name
from ..base.values import Schema
from ..engine.context import Context, Frame
from ..engine.failure import given
from ..engine.handler import Handler, handler_of
from ..engine.retry import ONCE, Retry
from ..engine.step_call import StepCall

__all__ = ["ACTIONS", "Action", "Tries", "action", "action_workflow", "as_action", "stands_in_module"]

P = ParamSpec("P")
R = TypeVar("R")

_PREFIX = "action:"
_TRIES = "paddock.tries"

#: Actions by name, in this process: made where their modules are imported.
ACTIONS: dict[str, Action[Any, Any]] = {}


def action_workflow(name: str) -> str:
    """Return the name of the workflow that runs an action by itself."""
    return _PREFIX + name


@dataclass(frozen=True, eq=False)
class Action(Generic[P, R]):
    """A function that says what it is: name, description, input and output schema. Calling it calls the function."""

    name: str
    description: str | None
    function: Callable[P, R]
    handler: Handler

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, with nothing in between."""
        return self.function(*args, **kwargs)

    @property
    def input_schema(self) -> Schema:
        """The schema of its input."""
        return self.handler.input

    @property
    def output_schema(self) -> Schema:
        """The schema of its output."""
        return self.handler.output

    def describe(self) -> dict[str, Any]:
        """Return name, description and the JSON schemas of input and output."""
        return {
            "name": self.name,
            "description": self.description,
            "input": self.input_schema.json_schema(),
            "output": self.output_schema.json_schema(),
        }

    @functools.cached_property
    def __paddock_definition__(self) -> ActionWorkflow:
        """The workflow that runs this action as one step."""
        return ActionWorkflow(self)


class ActionWorkflow:
    """A workflow of one step: an action. It is what `isolated=True` and `task(job=…)` start."""

    isolated = True
    timeout: float | None = None
    tags: tuple[str, ...] = ("action",)
    total_steps = 1

    def __init__(self, wrapped: Action[Any, Any]) -> None:
        """Wrap an action."""
        self.action = wrapped
        self.name = action_workflow(wrapped.name)
        self.module: str | None = getattr(wrapped.function, "__module__", None)
        self.description = wrapped.description

    @property
    def input_schema(self) -> Schema:
        """The schema of the action's input."""
        return self.action.input_schema

    @property
    def output_schema(self) -> Schema:
        """The schema of the action's output."""
        return self.action.output_schema

    def fingerprint(self) -> str:
        """Return a text that changes with the action's name."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return the schemas of input and output."""
        return (("its input", self.input_schema), ("its output", self.output_schema))

    async def run(self, frame: Frame) -> tuple[Any, Schema]:
        """Run the action as the one step of the instance."""
        execution, handler, name = frame.execution, self.action.handler, self.action.name
        text = execution.journal.input
        key = execution.key("", name)
        tries = Tries.of_metadata(execution.journal.metadata)

        async def call(attempt: int) -> Any:
            value = given(handler.input, text, f"the input of action {name!r}") if handler.takes_input else None
            return await handler.call(value, Context(frame.of_try(key, attempt)), execution.pool)

        step = StepCall(
            key,
            name,
            "action",
            call,
            handler.output,
            text,
            tries.policy(),
            tries.timeout,
            tries.at_most_once,
            stoppable=handler.is_async,
        )
        return await execution.step(step), handler.output


class Tries(BaseModel):
    """How often and how long an action is tried in a process of its own: what the caller said, in a form that travels as JSON."""

    retry: dict[str, Any] = {}
    types: list[str] = []
    timeout: float | None = None
    at_most_once: bool = False

    @classmethod
    def of(cls, retry: Retry, timeout: float | None, *, at_most_once: bool = False) -> Self:
        """Hold what a call says; exception types become import paths."""
        types = [f"{one.__module__}:{one.__qualname__}" for one in retry.retry_on if not isinstance(one, str)]
        patterns = [one for one in retry.retry_on if isinstance(one, str)]
        fields = {**retry.model_dump(exclude={"retry_on"}), "retry_on": patterns}
        return cls(retry=fields, types=types, timeout=timeout, at_most_once=at_most_once)

    @classmethod
    def of_metadata(cls, metadata: dict[str, Any]) -> Self:
        """Return what an instance's metadata say; one try where they say nothing, as for an action that was started by itself."""
        held = metadata.get(_TRIES)
        return cls() if held is None else cls.model_validate(held)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that an action's instance is started with; none for one try without a limit."""
        plain = Tries.of(ONCE, None)
        return () if self == plain else ((_TRIES, self.model_dump_json()),)

    def policy(self) -> Retry:
        """Return the retry policy, its types imported here."""
        if not self.retry:
            return ONCE
        retry_on = [*self.retry["retry_on"], *(_exception(path) for path in self.types)]
        return Retry(**{**self.retry, "retry_on": retry_on})


def _exception(path: str) -> type[BaseException] | str:
    """Return an exception type by its import path; where it cannot be imported (it stands in a function), a pattern for its name."""
    module, _, name = path.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        found = None
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    return f"^{re.escape(name.rpartition('.')[2])}: "


@overload
def action(name: Callable[P, R], /) -> Action[P, R]: ...
@overload
def action(name: str | None = None, *, description: str | None = None) -> Callable[[Callable[P, R]], Action[P, R]]: ...
def action(name: Any = None, *, description: str | None = None) -> Any:
    """Make a function an action, under its own name or another.

    Args:
        name: the action's name; the function's by default.
        description: what it does; the docstring's first line by default.

    Raises:
        InvalidWorkflow: the name cannot be one, or another function has it.
    """
    if callable(name):
        return _make(name, None, description)
    return lambda function: _make(function, name, description)


def _make(function: Callable[P, R], name: str | None, description: str | None) -> Action[P, R]:
    known = check_workflow_name(name or getattr(function, "__name__", None))
    doc = inspect.getdoc(function)
    made: Action[P, R] = Action(
        known,
        description or (doc.splitlines()[0] if doc else None),
        function,
        handler_of(function, f"action {known!r}"),
    )
    other = ACTIONS.get(known)
    if other is not None and _origin(other.function) != _origin(function):
        raise InvalidWorkflow(
            f"an action {known!r} is there already, in {_origin(other.function)}; give this one another name"
        )
    ACTIONS[known] = made
    return made


def as_action(function: Callable[..., Any], name: str | None = None) -> Action[Any, Any]:
    """Return the action that a function is, or make it one."""
    return function if isinstance(function, Action) else _make(function, name, None)


def _origin(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"


@functools.lru_cache(maxsize=1024)
def stands_in_module(wanted: Action[Any, Any]) -> bool:
    """Tell whether an action is an attribute of a module that is loaded here: its own, or one that has imported it."""
    own = sys.modules.get(getattr(wanted.function, "__module__", ""))
    for module in (own, *list(sys.modules.values())):
        if isinstance(module, types.ModuleType) and any(held is wanted for held in list(vars(module).values())):
            return True
    return False
