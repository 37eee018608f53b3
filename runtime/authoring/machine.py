"""The state class: a workflow written as states that name their successors, with a model of data saved at every transition.

On a server each visit of a state is a step whose output is the data and the next state; what a state asks for (actions, waits, sleeps)
is journaled under the visit, so a crash within a state takes it up where it was, with the data of the last transition. Alone
(`standalone.py`) the same class runs in the user's own loop and is saved to text between any two steps.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, get_args, overload

from pydantic import BaseModel

from ..base.duration import DurationLike, is_duration, parse_duration
from ..base.errors import InvalidState, InvalidWorkflow
from ..base.ids import check_step_name, check_workflow_name
from ..base.values import Schema
from ..engine.definition import BUILT
from .machine_host import run_machine
from .standalone import Standalone, Transition

if TYPE_CHECKING:
    from ..engine.context import Frame

__all__ = ["Host", "MachineDefinition", "StateMachine", "state"]

DataT = TypeVar("DataT", bound=BaseModel)
T = TypeVar("T")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])

_MARK = "__paddock_state__"


class Host(Protocol):
    """What runs a machine: a server's execution, or the machine itself when it runs alone."""

    async def action(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Run a function once per visit and keep its result."""
        ...

    async def wait_event(self, name: str, schema: Schema, timeout: float | None) -> Any:
        """Wait for a signal."""
        ...

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait."""
        ...

    def log(self, message: str, data: dict[str, Any]) -> None:
        """Write to the audit log."""
        ...


def state(method: MethodT) -> MethodT:
    """Mark a coroutine method as a state. It returns the next state (the bound method, or its name), or None at the end."""
    if not inspect.iscoroutinefunction(method):
        raise InvalidWorkflow(f"state {getattr(method, '__qualname__', method)!s} must be `async def`")
    setattr(method, _MARK, True)
    return method


class StateMachine(Generic[DataT]):
    """Base class of workflows that are written as states.

    ``class Game(StateMachine[Data], name="game", start="begin")``: `Data` is a pydantic model, the input is its first value, the output
    its last. In a state: `self.data`, `await self.action(…)`, `await self.wait_event(…)`, `await self.sleep(…)`, `self.log(…)`.
    """

    name: ClassVar[str]
    start: ClassVar[str]
    data_type: ClassVar[type[BaseModel]]
    states: ClassVar[tuple[str, ...]] = ()
    __paddock_definition__: ClassVar[Any] = None

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        start: str | None = None,
        isolated: bool = True,
        timeout: DurationLike | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """Check the class and make it a workflow.

        Raises:
            InvalidWorkflow: it has no states, the start is none of them, or its data is no pydantic model.
        """
        super().__init_subclass__(**kwargs)
        if name is None and start is None:
            return  # a base class of the user's own
        known = check_workflow_name(name or cls.__name__)
        states = tuple(key for key in dir(cls) if getattr(getattr(cls, key, None), _MARK, False))
        if not states:
            raise InvalidWorkflow(f"state machine {known!r} has no states; mark coroutine methods with @state")
        if start not in states:
            raise InvalidWorkflow(
                f"state machine {known!r} starts at {start!r}, which is no state; there are {', '.join(states)}"
            )
        cls.name, cls.start, cls.states, cls.data_type = known, start, states, _data_type(cls, known)
        module = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001  the module that the class stands in
        seconds = None if timeout is None else parse_duration(timeout)
        doc = inspect.getdoc(cls)
        text = description or (doc.splitlines()[0] if doc and cls.__doc__ else None)
        cls.__paddock_definition__ = MachineDefinition(
            cls, module, isolated=isolated, timeout=seconds, description=text, tags=tuple(tags)
        )
        BUILT[module, known] = cls.__paddock_definition__

    def __init__(self, data: DataT | None = None) -> None:
        """Make a machine of one's own, to run alone; the server makes its own."""
        self.data: DataT = data if data is not None else self.data_type()  # type: ignore[assignment]
        self.state: str | None = self.start
        self._host: Host | None = None
        self._alone: Standalone | None = None

    # --- what a state's code asks for ---

    def _hosted(self) -> Host:
        if self._host is None:
            raise InvalidState(f"state machine {self.name!r} does not run; iterate over run(), or start it on a server")
        return self._host

    @overload
    async def action(
        self, name: str, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any
    ) -> T: ...
    @overload
    async def action(self, name: str, function: Callable[..., T], *args: Any, **options: Any) -> T: ...
    async def action(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run `function(*args)` once in this visit of the state; a resume takes its result from the journal.

        `retry`, `timeout` and `output` are those of `ctx.step`, and so is `at_most_once`, which has no meaning alone.
        """
        return await self._hosted().action(check_step_name(name), function, args, options)

    @overload
    async def wait_event(self, name: str, schema: type[T], *, timeout: DurationLike | None = None) -> T: ...
    @overload
    async def wait_event(self, name: str, schema: Any = None, *, timeout: DurationLike | None = None) -> Any: ...
    async def wait_event(self, name: str, schema: Any = None, *, timeout: DurationLike | None = None) -> Any:
        """Wait for a signal and return its payload, as `schema` has it.

        Raises:
            WaitTimeout: it did not come in time.
        """
        seconds = None if timeout is None else parse_duration(timeout)
        return await self._hosted().wait_event(check_step_name(name), Schema(schema), seconds)

    async def sleep(self, duration: DurationLike, name: DurationLike = "sleep") -> None:
        """Wait, durably; `sleep("5min", "rest")` and, as for a flow's context, `sleep("rest", "5min")`."""
        if is_duration(name) and not is_duration(duration):
            duration, name = name, duration
        seconds = parse_duration(duration)
        await self._hosted().sleep(check_step_name(name), seconds)

    def log(self, message: str, **data: Any) -> None:
        """Write to the audit log, which is kept with the instance; a resume repeats no line."""
        self._hosted().log(message, data)

    # --- alone ---

    def run(self, *, wait: bool = True) -> AsyncIterator[Transition]:
        """Run alone: yield each transition; return when the machine ends, or waits for a signal that was not sent.

        Args:
            wait: wait here for sleeps and between tries. With False they end the run too, and `wake_at` says when to run again:
                meanwhile the machine may be saved.
        """
        return self._standalone().run(wait=wait)

    @property
    def wake_at(self) -> datetime | None:
        """When a machine that runs alone goes on by itself (UTC); None where it waits for no time."""
        seconds = self._standalone().wake_at
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    @property
    def waits_for(self) -> str | None:
        """The signal that a machine that runs alone waits for."""
        return self._standalone().waits_for

    def update_state(self, changes: Mapping[str, Any]) -> None:
        """Change the data of a machine that runs alone from outside: top-level keys, validated by the model.

        What is assigned to `machine.data` while it does not run counts too, and is validated when it runs again.

        Raises:
            InvalidState: it has ended, or a value does not fit; the field is named.
        """
        self._standalone().update(changes)

    def send(self, name: str, payload: Any = None) -> None:
        """Answer a wait of a machine that runs alone; kept until a wait takes it."""
        self._standalone().send(name, payload)

    @property
    def audit_log(self) -> list[dict[str, Any]]:
        """The audit log of a machine that runs alone."""
        return list(self._standalone().log_entries)

    def to_json(self) -> str:
        """Return everything that is needed to go on elsewhere, as JSON text; between any two steps."""
        return self._standalone().to_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make a machine from what `to_json` returned; it goes on from there.

        Raises:
            InvalidState: the text is no such thing, or its data does not fit the model.
        """
        machine = cls.__new__(cls)
        machine._host = machine._alone = None  # noqa: SLF001  our own, made without its __init__
        machine._alone = Standalone.load(machine, text)  # noqa: SLF001
        return machine

    def _standalone(self) -> Standalone:
        if self._alone is None:
            self._alone = Standalone(self)
        return self._alone


def _data_type(cls: type, name: str) -> type[BaseModel]:
    for base in inspect.getmro(cls):
        for parent in getattr(base, "__orig_bases__", ()):
            for argument in get_args(parent):
                if inspect.isclass(argument) and issubclass(argument, BaseModel):
                    return argument
    raise InvalidWorkflow(f"state machine {name!r}: write StateMachine[Data] with a pydantic model")


class MachineDefinition:
    """A state class as the runtime sees it."""

    total_steps = None

    def __init__(
        self,
        machine: type[StateMachine[Any]],
        module: str | None,
        *,
        isolated: bool,
        timeout: float | None,
        description: str | None,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Wrap a class."""
        self.tags = tags
        self.machine = machine
        self.name = machine.name
        self.module = module
        self.isolated = isolated
        self.timeout = timeout
        self.description = description
        self.input_schema = Schema(machine.data_type)
        self.output_schema = Schema(machine.data_type)

    def fingerprint(self) -> str:
        """Return a text that changes with the class's source."""
        try:
            text = inspect.getsource(self.machine)
        except (OSError, TypeError):
            text = ",".join(self.machine.states)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def schemas(self) -> Iterable[tuple[str, Schema]]:
        """Return the schemas of input and output."""
        return (("its input", self.input_schema), ("its output", self.output_schema))

    async def run(self, frame: Frame) -> tuple[Any, Schema]:
        """Go from state to state, from the top: finished visits come from the journal."""
        return await run_machine(self.machine, frame), self.output_schema
