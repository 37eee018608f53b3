"""Which trace an instance belongs to, for OpenTelemetry. Ids follow from names, so every process comes to the same ones without a word.

The server exports the spans (`runtime/server/tracing.py`), from events, each of which there is once; a replay has none, so it exports
nothing twice. What is here makes the span of the attempt the current one while a handler runs, so that spans of the handler's own find
their parent, in whatever process it runs. Where nothing has imported OpenTelemetry, nothing is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

__all__ = [
    "TRACEPARENT",
    "Trace",
    "attempt",
    "attempt_span",
    "carried",
    "instance",
    "instance_span",
    "step_span",
    "trace_of",
    "with_caller",
]

#: The metadata key that carries the caller's context (W3C trace context).
TRACEPARENT = "traceparent"
_PATTERN = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_OFF: AbstractContextManager[None] = contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of an instance; `parent` is the caller's span, 0 for none."""

    id: int
    parent: int = 0
    sampled: bool = True


def trace_of(instance_id: str, metadata: Mapping[str, Any]) -> Trace:
    """Return an instance's trace: its caller's, else one of its own."""
    given = metadata.get(TRACEPARENT)
    match = _PATTERN.fullmatch(given) if isinstance(given, str) else None
    if match is not None and int(match[1], 16) and int(match[2], 16):
        return Trace(int(match[1], 16), int(match[2], 16), sampled=bool(int(match[3], 16) & 1))
    return Trace(int.from_bytes(_digest("trace", instance_id)[:16], "big") or 1)


def _digest(*names: str) -> bytes:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).digest()


def _span(*names: str) -> int:
    return int.from_bytes(_digest(*names)[:8], "big") or 1


def instance_span(instance_id: str) -> int:
    """Return the id of an instance's span."""
    return _span("instance", instance_id)


def step_span(instance_id: str, key: str) -> int:
    """Return the id of a step's span."""
    return _span("step", instance_id, key)


def attempt_span(instance_id: str, key: str, attempt: int) -> int:
    """Return the id of an attempt's span."""
    return _span("attempt", instance_id, key, str(attempt))


def instance(instance_id: str, metadata: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Make an instance's span the current one for as long as the context lasts; nothing where OpenTelemetry is not in use."""
    otel = sys.modules.get("opentelemetry.trace")
    return _OFF if otel is None else _entered(otel, trace_of(instance_id, metadata), instance_span(instance_id))


def attempt(instance_id: str, metadata: Mapping[str, Any], key: str, number: int) -> AbstractContextManager[None]:
    """Do the same with the span of one try of a step."""
    otel = sys.modules.get("opentelemetry.trace")
    if otel is None:
        return _OFF
    return _entered(otel, trace_of(instance_id, metadata), attempt_span(instance_id, key, number))


@contextlib.contextmanager
def _entered(otel: Any, trace: Trace, span: int) -> Iterator[None]:
    context = otel.SpanContext(trace.id, span, is_remote=True, trace_flags=otel.TraceFlags(int(trace.sampled)))
    with otel.use_span(otel.NonRecordingSpan(context), record_exception=False, set_status_on_exception=False):
        yield


def carried() -> dict[str, str]:
    """Return the metadata that carries the current span to an instance that is started now; `{}` where there is none."""
    otel = sys.modules.get("opentelemetry.trace")
    if otel is None:
        return {}
    context = otel.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"}


def with_caller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an instance's first metadata, with the current span where there is one and the caller names none."""
    extra = carried()
    return {**extra, **metadata} if extra and isinstance(metadata, Mapping) else metadata
