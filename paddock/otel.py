"""OpenTelemetry spans for instances, steps and attempts: `pip install 'paddock[otel]'`, then `paddock.otel.trace(server)`."""

from paddock.runtime.server.tracing import trace

__all__ = ["trace"]
