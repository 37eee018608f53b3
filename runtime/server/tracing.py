"""OpenTelemetry: one span for each instance, step and attempt, exported by the server as their events come by.

A span is made when it ends, with the time at which it began and an id that follows from its name (`engine/tracing.py`), so it does not
matter which process did the work. What ends while no server runs is not exported.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from opentelemetry import trace as otel
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator

from ..base.errors import ConfigError
from ..base.records import Event, Instance
from ..engine.tracing import Trace, attempt_span, instance_span, step_span, trace_of
from .bus import EventBus
from .workflows import Workflows

__all__ = ["Traced", "trace"]

_KEPT = 10_000
_ENDS = {
    "workflow.completed": "completed",
    "workflow.failed": "failed",
    "workflow.cancelled": "cancelled",
    "workflow.timed_out": "timed_out",
}
_STEP_ENDS = frozenset({"workflow.step.completed", "workflow.step.failed"})


class Traced(Protocol):
    """What is traced: an `AppServer`."""

    workflows: Workflows

    @property
    def events(self) -> EventBus:
        """The event bus."""
        ...


def trace(server: Traced, provider: otel.TracerProvider | None = None) -> Callable[[], None]:
    """Export a span for each instance, step and attempt of a server, from now on; return a function that ends it.

    An instance that is started within a span becomes a part of that span's trace, and so do the instances that it starts.

    Args:
        server: the server; before or after its start.
        provider: an SDK tracer provider; the global one by default.

    Raises:
        ConfigError: the provider is none of the SDK, which alone exports anything.
    """
    known = provider or otel.get_tracer_provider()
    if not isinstance(known, TracerProvider):
        raise ConfigError(
            "there is no OpenTelemetry tracer provider: call opentelemetry.trace.set_tracer_provider(TracerProvider()) first, "
            "or pass one"
        )
    tracer = known.get_tracer("paddock")
    if not isinstance(tracer, Tracer):  # the SDK is switched off by its environment
        return lambda: None
    return server.events.on("workflow.*", _Exporter(tracer, server.workflows).take)


class _ChosenIds(IdGenerator):
    """Hands out the ids that were chosen for the next span."""

    span = trace = 1

    def generate_span_id(self) -> int:
        return self.span

    def generate_trace_id(self) -> int:
        return self.trace


class _Exporter:
    """Makes spans of one server's events, one after the other."""

    def __init__(self, tracer: Tracer, workflows: Workflows) -> None:
        self._tracer = tracer
        self._ids = _ChosenIds()
        tracer.id_generator = self._ids  # this tracer is ours alone
        self._workflows = workflows
        self._traces: OrderedDict[str, tuple[Trace, datetime]] = OrderedDict()
        self._attempts: OrderedDict[tuple[str, str], tuple[int, datetime, bool]] = OrderedDict()
        self._steps: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    async def take(self, event: Event) -> None:
        """Take an event."""
        if event.name.startswith("workflow.step."):
            await self._take_step(event)
        elif event.name in ("workflow.crashed", "workflow.resumed"):
            await self._crash(event)
        elif (status := _ENDS.get(event.name)) is not None:
            await self._crash(event)
            await self._end(event, status)

    # --- steps ---

    async def _take_step(self, event: Event) -> None:
        key = (event.instance_id, str(event.data.get("step")))
        if event.name == "workflow.step.started":
            waits = "wake_at" in event.data
            _keep(self._attempts, key, (int(event.data.get("attempt", 1)), event.created_at, waits))
            if key not in self._steps:
                _keep(self._steps, key, event.created_at)
            return
        if event.name != "workflow.step.retry" and event.name not in _STEP_ENDS:
            return
        found = await self._trace(event)
        if found is None:
            return
        await self._end_attempt(event, found[0], key)
        if event.name in _STEP_ENDS:
            began = self._steps.pop(key, event.created_at)
            parent = self._container(event.instance_id, key[1])
            self._make(
                _label(event),
                found[0],
                span=step_span(*key),
                parent=parent,
                times=(began, event.created_at),
                facts=_facts(event),
                error=event.data.get("error"),
            )

    def _container(self, instance_id: str, key: str) -> int:
        """Return the span that holds a step's: that of the step whose branch it stands in, else the instance's."""
        while "/" in key:
            key = key.rpartition("/")[0]
            if (instance_id, key) in self._steps:
                return step_span(instance_id, key)
        return instance_span(instance_id)

    async def _end_attempt(self, event: Event, found: Trace, key: tuple[str, str]) -> None:
        attempt = self._attempts.pop(key, None)
        if attempt is None or attempt[2]:  # a wait is no attempt
            return
        number, began, _ = attempt
        self._make(
            f"{_label(event)} #{number}",
            found,
            span=attempt_span(*key, number),
            parent=step_span(*key),
            times=(began, event.created_at),
            facts={**_facts(event), "paddock.attempt": number},
            error=event.data.get("error"),
        )

    async def _crash(self, event: Event) -> None:
        """End the attempts that were under way when the instance's process went."""
        for key in [key for key, held in self._attempts.items() if key[0] == event.instance_id and not held[2]]:
            found = await self._trace(event)
            if found is None:
                return
            number, began, _ = self._attempts.pop(key)
            self._make(
                f"{key[1]} #{number}",
                found[0],
                span=attempt_span(*key, number),
                parent=step_span(*key),
                times=(began, event.created_at),
                facts={"paddock.instance.id": event.instance_id, "paddock.step": key[1], "paddock.attempt": number},
                error={"type": "ProcessDied", "message": "its process ended before the attempt did"},
            )

    # --- instances ---

    async def _end(self, event: Event, status: str) -> None:
        found = await self._trace(event)
        if found is None:
            return
        for key in [key for key in self._steps if key[0] == event.instance_id]:
            del self._steps[key]
        self._traces.pop(event.instance_id, None)
        failed = {"type": status, "message": ""} if status != "completed" else None
        self._make(
            event.workflow_name,
            found[0],
            span=instance_span(event.instance_id),
            parent=found[0].parent,
            times=(found[1], event.created_at),
            facts={
                "paddock.instance.id": event.instance_id,
                "paddock.workflow": event.workflow_name,
                "paddock.status": status,
            },
            error=event.data.get("error") or failed,
        )

    async def _trace(self, event: Event) -> tuple[Trace, datetime] | None:
        held = self._traces.get(event.instance_id)
        if held is None:
            instance: Instance | None = await self._workflows.get_instance(event.instance_id)
            if instance is None:  # cleaned up meanwhile
                return None
            began = instance.started_at or instance.created_at
            held = (trace_of(instance.id, instance.metadata), began)
            _keep(self._traces, event.instance_id, held)
        return held

    def _make(
        self,
        name: str,
        found: Trace,
        *,
        span: int,
        parent: int,
        times: tuple[datetime, datetime],
        facts: Mapping[str, str | int],
        error: Mapping[str, Any] | None,
    ) -> None:
        context = None
        if parent:
            flags = otel.TraceFlags(int(found.sampled))
            above = otel.NonRecordingSpan(otel.SpanContext(found.id, parent, is_remote=True, trace_flags=flags))
            context = otel.set_span_in_context(above)
        else:
            context = otel.set_span_in_context(otel.INVALID_SPAN)
        self._ids.span, self._ids.trace = span, found.id
        made = self._tracer.start_span(name, context, attributes=dict(facts), start_time=_nanoseconds(times[0]))
        if error is not None:
            made.set_attribute("error.type", str(error.get("type")))
            made.set_status(otel.StatusCode.ERROR, f"{error.get('type')}: {error.get('message')}"[:500])
        made.end(_nanoseconds(max(times)))


def _keep(held: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    held[key] = value
    while len(held) > _KEPT:
        held.popitem(last=False)


def _label(event: Event) -> str:
    return str(event.data.get("step"))


def _facts(event: Event) -> dict[str, str | int]:
    return {
        "paddock.instance.id": event.instance_id,
        "paddock.workflow": event.workflow_name,
        "paddock.step": str(event.data.get("step")),
        "paddock.step.kind": str(event.data.get("step_type")),
    }


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
