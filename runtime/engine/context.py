"""What a handler sees: `Context`, and its twin for plain functions, whose methods block instead of being awaited."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..base.clock import as_datetime
from ..base.errors import ConfigError
from ..base.ids import check_key
from ..base.records import ErrorInfo, Instance, Status, StepResult
from ..base.values import ANY, Schema, plain_json, to_json
from ..store.ops import Emitted, MetadataSet
from .execution import Execution
from .logs import StepLogger

if TYPE_CHECKING:
    from .plugins import Core, Plugin, Plugins

__all__ = ["BlockingContext", "Context", "Frame"]

T = TypeVar("T")
_IMMUTABLE = (str, int, float, bool, bytes)


@dataclass(slots=True)
class Frame:
    """Where a piece of code stands: the path of its branch, the workflow's input, the outputs so far, the previous output.

    `chunk` is the schema of what is streamed.
    """

    execution: Execution
    core: Core
    plugins: Plugins
    logger: StepLogger
    input: Any
    steps: Mapping[str, Any]
    prev: Any = None
    scope: str = ""
    key: str = ""
    attempt: int = 1
    chunk: Schema = ANY

    def of_try(self, key: str, attempt: int) -> Frame:
        """Return the frame of one try of a step; `dataclasses.replace` takes five times as long, and there is one at every step."""
        return Frame(
            self.execution,
            self.core,
            self.plugins,
            self.logger,
            self.input,
            self.steps,
            self.prev,
            self.scope,
            key,
            attempt,
            self.chunk,
        )


class _Steps(Mapping[str, Any]):
    """Outputs by name, each copied when it is looked at."""

    def __init__(self, held: Mapping[str, Any], own: Callable[[str, Any], Any]) -> None:
        self._held = held
        self._own = own

    def __getitem__(self, name: str) -> Any:
        return self._own(f"steps/{name}", self._held[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return repr(dict(self._held))


class Context:
    """The view of the runtime that a handler gets.

    Attributes:
        input: the workflow's input.
        steps: outputs of completed steps by name; the latest visit counts, and within a branch its own steps come first.
        prev: output of the previous step, None for the first.
        plugins: the plugins of this process, by attribute.
        core: database, events, logger and configuration of this process.
        logger: a structlog logger bound to the instance, workflow, step and attempt; its records are kept with the instance.
    """

    def __init__(self, frame: Frame) -> None:
        """Wrap a frame."""
        self._frame = frame
        self._copies: dict[str, tuple[Any, Any]] = {}

    @property
    def input(self) -> Any:
        """The workflow's input: plain JSON, or the model that the workflow declares."""
        return self._own("input", self._frame.input)

    @property
    def steps(self) -> Mapping[str, Any]:
        """Outputs of completed steps, by name."""
        return _Steps(self._frame.steps, self._own)

    @property
    def prev(self) -> Any:
        """The output of the previous step."""
        return self._own("prev", self._frame.prev)

    def _own(self, what: str, value: Any) -> Any:
        """Return this handler's own copy: what it does to it must not be seen by others, for a replay would not show them."""
        if value is None or isinstance(value, _IMMUTABLE):
            return value
        original, found = self._copies.get(what, (None, None))
        if original is not value:
            found = copy.deepcopy(value)
            self._copies[what] = value, found
        return found

    @property
    def core(self) -> Core:
        """Database, events, logger and configuration of this process."""
        return self._frame.core

    @property
    def plugins(self) -> Plugins:
        """The plugins of this process."""
        return self._frame.plugins

    @property
    def logger(self) -> StepLogger:
        """The logger of this step."""
        return self._frame.logger

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of the instance's metadata as this execution knows it."""
        return dict(self._frame.execution.journal.metadata)

    @property
    def attempt(self) -> int:
        """The number of this try of the step, from 1."""
        return self._frame.attempt

    @property
    def idempotency_key(self) -> str:
        """The same text at every try of this step: pass it on to whatever must not happen twice."""
        return self._frame.execution.idempotency_key(self._frame.key)

    @property
    def instance(self) -> Instance:
        """The instance as this execution knows it."""
        journal = self._frame.execution.journal
        results = {
            row.key: StepResult(
                key=row.key,
                step_name=row.name,
                kind=row.kind,
                status=row.status,  # type: ignore[arg-type]
                output=None if row.output is None else plain_json(row.output),
                error=ErrorInfo.model_validate_json(row.error) if row.error else None,
                attempts=row.attempts,
                started_at=as_datetime(row.started_at),
            )
            for row in journal.steps.values()
            if row.status != "new"
        }
        return Instance(
            id=journal.id,
            workflow_name=journal.workflow_name,
            status=Status.RUNNING,
            current_step=self._frame.key or None,
            input=plain_json(journal.input),
            step_results=results,
            metadata=self.metadata,
            created_at=as_datetime(journal.created_at),
            started_at=as_datetime(journal.started_at),
            executions=journal.executions,
            parent_id=journal.parent_id,
            priority=journal.priority,
            version=journal.version,
        )

    def plugin(self, kind: type[T]) -> T:
        """Return the plugin of a class.

        Raises:
            ConfigError: this server has no such plugin.
        """
        found = self._frame.plugins.of(cast("type[Plugin[Any]]", kind))
        return cast("T", found)

    def get_step_result(self, name: str, type: type[T] | None = None) -> T | None:
        """Return a completed step's output, as `type` where one is given; None when the step has not completed.

        Raises:
            InvalidInput: the output does not fit `type`.
        """
        if name not in self.steps:
            return None
        value = self.steps[name]
        kind: object = type  # list[int] is taken too, though no class
        if kind is None or (inspect.isclass(kind) and isinstance(value, kind)):
            return cast("T", value)
        text = to_json(value, f"the output of step {name!r}")
        return cast("T", Schema(type).decode(text, f"the output of step {name!r}"))

    def get_metadata(self, key: str, default: Any = None) -> Any:
        """Return one key of the instance's metadata."""
        return self._frame.execution.journal.metadata.get(key, default)

    async def set_metadata(self, key: str, value: Any) -> None:
        """Set one key of the instance's metadata; durable once this returns.

        Raises:
            InvalidInput: the key is no text.
            NotSerializable: the value has no JSON form.
            PayloadTooLarge: its JSON is longer than `max_payload`.
        """
        check_key(key, "a metadata key")
        execution = self._frame.execution
        text = Schema().encode(value, f"metadata {key!r}", execution.max_payload)
        execution.journal.metadata[key] = plain_json(text)
        execution.writer.add(MetadataSet(key, text))
        await execution.writer.flush()

    async def emit(self, event: str, data: Any = None) -> None:
        """Publish an event of the user's own; durable once this returns.

        It arrives as ``workflow.event``, ``workflow.<workflow name>.event`` and ``workflow.<instance id>.event``.

        Raises:
            InvalidInput: the event's name is no text.
            NotSerializable: the data has no JSON form.
            PayloadTooLarge: its JSON is longer than `max_payload`.
        """
        check_key(event, "an event's name")
        execution = self._frame.execution
        journal = execution.journal
        value = plain_json(Schema().encode(data, f"event {event!r}", execution.max_payload))
        aliases = (f"workflow.{journal.workflow_name}.event", f"workflow.{journal.id}.event")
        execution.writer.add(Emitted("workflow.event", {"event": event, "data": value}, aliases))
        await execution.writer.flush()

    async def stream(self, chunk: Any) -> None:
        """Send a chunk to whoever reads the instance's stream; durable once this returns.

        It arrives as a ``workflow.stream`` event with its index. A step that runs again after a crash, and a flow that replays, send
        no chunk twice: the first so many are taken as sent.

        Raises:
            InvalidInput: the chunk is not of the type that the flow has named (`stream=`).
            NotSerializable: the chunk has no JSON form.
            PayloadTooLarge: its JSON is longer than `max_payload`.
        """
        await self._frame.execution.chunks.send(self._frame.key, self._plain_chunk(chunk))

    def _plain_chunk(self, chunk: Any) -> Any:
        schema = self._frame.chunk
        text = schema.encode(chunk, "a stream chunk", self._frame.execution.max_payload)
        schema.decode(text, "a stream chunk")
        return plain_json(text)

    def log(self, level: str, message: str, **data: Any) -> None:
        """Keep a log record with the instance.

        Raises:
            ConfigError: no such level.
        """
        method = getattr(self._frame.logger, level, None)
        if level not in ("debug", "info", "warning", "error", "critical") or method is None:
            raise ConfigError(f"no log level {level!r}: use debug, info, warning, error or critical")
        method(message, **data)

    def heartbeat(self, progress: Any = None) -> None:
        """Tell that this step is getting on; `progress` (any JSON) arrives as a `workflow.progress` event."""
        if progress is not None:
            self._progressed(self._plain_progress(progress))

    def _plain_progress(self, progress: Any) -> Any:
        return json.loads(Schema().encode(progress, "progress", self._frame.execution.max_payload))

    def _progressed(self, value: Any) -> None:
        execution = self._frame.execution
        done = execution.progress(self._frame.key)
        data = {
            "progress": done.percent,
            "current_step": self._frame.key,
            "completed_steps": done.completed_steps,
            "total_steps": done.total_steps,
            "step_progress": value,
        }
        execution.writer.add(Emitted("workflow.progress", data))

    def blocking(self) -> BlockingContext:
        """Return the twin of this context for code in a worker thread."""
        return BlockingContext(self._frame, asyncio.get_running_loop())


class BlockingContext(Context):
    """The context in a plain function, which runs in a worker thread: the same names, and calls that return when they are done."""

    def __init__(self, frame: Frame, loop: asyncio.AbstractEventLoop) -> None:
        """Remember the loop that does the work."""
        super().__init__(frame)
        self._loop = loop
        self._thread = threading.get_ident()

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        if threading.get_ident() == self._thread:
            # a plain function returned a coroutine (a lambda around an async one), which runs on the loop and awaits what it calls
            return cast("T", call)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def set_metadata(self, key: str, value: Any) -> None:  # type: ignore[override]
        """Set one key of the instance's metadata; durable once this returns."""
        return self._wait(super().set_metadata(key, value))

    def emit(self, event: str, data: Any = None) -> None:  # type: ignore[override]
        """Publish an event of the user's own; durable once this returns."""
        return self._wait(super().emit(event, data))

    def stream(self, chunk: Any) -> None:  # type: ignore[override]
        """Send a chunk to whoever reads the instance's stream; durable once this returns."""
        return self._wait(super().stream(chunk))

    def heartbeat(self, progress: Any = None) -> None:
        """Tell that this step is getting on."""
        if progress is not None:
            value = self._plain_progress(progress)  # refused here, where the caller can see it
            self._on_loop(lambda: self._progressed(value))

    def _on_loop(self, call: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(call)

    def blocking(self) -> BlockingContext:
        """Return itself."""
        return self
