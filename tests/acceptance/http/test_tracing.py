"""OpenTelemetry: one span for each instance, step and attempt, and the caller's trace carried into the process that works."""

import pytest
import traceflows
from contractkit import became
from httpflows import greet
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from paddock import AppServer, ConfigError, WatchdogConfig, WorkflowsConfig, otel


@pytest.fixture
def exported():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def made(tmp_path, launcher):
    server = AppServer(
        tmp_path / "t.db", workflows=WorkflowsConfig(launcher=launcher), watchdog=WatchdogConfig(enabled=False)
    )
    for one in (traceflows.traced, traceflows.parted, greet):
        server.workflows.register(one)
    return server


def ids(span):
    return [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]


async def spans(exporter, name, count=1):
    """Return the spans there are, once `count` of a name are."""

    def look():
        found = exporter.get_finished_spans()
        return found if sum(span.name == name for span in found) >= count else None

    return await became(look)


@pytest.mark.parametrize("launcher", ["inline", pytest.param("fork", marks=pytest.mark.slow)])
async def test_a_flow_with_a_retry_a_wait_and_a_child(tmp_path, exported, launcher):
    provider, exporter = exported
    server = made(tmp_path, launcher)
    otel.trace(server, provider)
    traceflows.Tries.left = 1
    async with server:
        with provider.get_tracer("test").start_as_current_span("request") as request:
            ident = await server.workflows.start("traced", 5)
        await became(lambda: waits(server, ident))
        await server.workflows.signal(ident, "go")
        first, second, outside = await server.workflows.result(ident)
        found = await spans(exporter, "traced")
    by_name = {span.name: span for span in found if span.name != "greet" or "paddock.status" in span.attributes}
    assert len({span.context.span_id for span in found}) == len(found) == len(by_name) + 1  # a replay makes none twice
    assert {"request", "traced", "unsteady", "unsteady #1", "unsteady #2", "where", "where #1", "greet"} <= set(by_name)
    assert {span.context.trace_id for span in found} == {request.get_span_context().trace_id}
    assert by_name["traced"].parent.span_id == request.get_span_context().span_id
    assert by_name["unsteady"].parent.span_id == by_name["traced"].context.span_id
    assert by_name["unsteady #1"].parent.span_id == by_name["unsteady"].context.span_id
    assert by_name["greet"].parent.span_id == by_name["traced"].context.span_id
    assert not by_name["unsteady #1"].status.is_ok
    assert by_name["unsteady #1"].attributes["error.type"] == "ConnectionError"
    assert by_name["unsteady #2"].attributes["paddock.attempt"] == 2
    # what the handlers saw as the current span is what was exported
    assert (first, second, outside) == (ids(by_name["unsteady #2"]), ids(by_name["where #1"]), ids(by_name["traced"]))
    assert by_name["traced"].start_time <= by_name["unsteady #1"].start_time <= by_name["unsteady #1"].end_time
    assert by_name["where"].end_time <= by_name["traced"].end_time


async def waits(server, ident):
    return (await server.workflows.get_instance(ident)).status == "waiting"


async def test_branches_stand_below_their_parallel(tmp_path, exported):
    provider, exporter = exported
    server = made(tmp_path, "inline")
    stop = otel.trace(server, provider)
    async with server:
        ident = await server.workflows.start("parted", 5)
        await server.workflows.wait(ident)
        by_name = {span.name: span for span in await spans(exporter, "parted")}
        inner = [by_name[f"both/{branch}"] for branch in ("left/one", "right/two")]
        assert {span.parent.span_id for span in inner} == {by_name["both"].context.span_id}
        assert by_name["parted"].parent is None
        assert by_name["parted"].attributes["paddock.instance.id"] == ident
        assert (await server.workflows.get_instance(ident)).metadata == {}
        stop()
        exporter.clear()
        await server.workflows.run("greet", "Ada")
        assert exporter.get_finished_spans() == ()


def test_without_a_provider_it_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="TracerProvider"):
        otel.trace(made(tmp_path, "inline"))
