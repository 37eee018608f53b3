"""One little workflow in every style (graph, flow, plain flow, state class): the same behaviour, whatever it is written in."""

from datetime import timedelta

import flowflows
import pytest
from flowflows import STYLES, Receipt
from flowkit import ended, suspended

import paddock.testing
from paddock import InvalidInput, InvalidSignal, WorkflowFailed

styles = pytest.mark.parametrize("style", STYLES)


@pytest.fixture(autouse=True)
def _forget():
    flowflows.CALLS.clear()


def receipt_of(output):
    """Return the receipt in an output: a state machine's output is its data."""
    return Receipt.model_validate(output["receipt"] if "receipt" in output else output)


def by_name(instance):
    return {step.step_name: step for step in instance.step_results.values()}


@styles
@pytest.mark.parametrize("ok", [True, False])
async def test_it_runs_to_its_end_with_every_wait(style, ok):
    async with paddock.testing.server(register=[STYLES[style]]) as server:
        ident = await server.workflows.start(STYLES[style], {"id": "o-1", "qty": 2})
        waiting = await suspended(server, ident, "waiting")
        assert waiting.current_step == "approve"
        assert waiting.metadata == {"stage": "checked"}
        with pytest.raises(InvalidSignal, match="ok"):
            await server.workflows.signal(ident, "approve", {"ok": "perhaps"})
        await server.workflows.signal(ident, "approve", {"ok": ok, "by": "eve"})
        instance = await ended(server, ident)
        logs = await server.logs.query(instance_id=ident)
        events = await server.events.history("workflow.*", instance_id=ident, limit=500)
    assert instance.status == "completed", instance.error
    how = "shipped" if ok else "refused"
    assert receipt_of(instance.output) == Receipt(id="o-1", how=how, total=6, left=0, by="eve")
    steps = by_name(instance)
    assert steps["reserve"].attempts == 2
    assert steps["left"].output == 0
    assert steps["validate"].output == {"order": {"id": "o-1", "qty": 2, "broken": False}, "total": 6}
    assert ("ship" in steps, "refuse" in steps) == (ok, not ok)
    assert ["validate", "reserve", "reserve", "left", "ship" if ok else "refuse"] == flowflows.CALLS
    assert [line.message for line in logs if line.source == "handler"] == ["checked"]
    assert instance.completed_at - instance.started_at >= timedelta(days=1, hours=2)
    names = [event.name for event in events]
    assert (names.count("workflow.started"), names.count("workflow.completed")) == (1, 1)
    assert [e.data["reason"] for e in events if e.name == "workflow.suspended"] == ["sleeping", "waiting", "sleeping"]
    (retry,) = [event.data for event in events if event.name == "workflow.step.retry"]
    assert (retry["step_name"], retry["attempt"], retry["max_attempts"], retry["delay"]) == ("reserve", 1, 3, 7200)
    assert instance.executions == names.count("workflow.resumed") + 1 == 4


@styles
async def test_it_fails_at_its_step_and_a_retry_goes_on_there(style):
    async with paddock.testing.server(register=[STYLES[style]]) as server:
        ident = await server.workflows.start(STYLES[style], {"id": "o-2", "broken": True})
        await server.workflows.signal(ident, "approve", {"ok": True})
        instance = await ended(server, ident)
        with pytest.raises(WorkflowFailed, match="o-2 is broken"):
            await server.workflows.result(ident)
        assert (instance.status, instance.error.type, instance.error.message) == (
            "failed",
            "ValueError",
            "o-2 is broken",
        )
        assert instance.error.step.endswith("ship")
        assert by_name(instance)["ship"].status == "failed"
        flowflows.CALLS.clear()
        await server.workflows.retry(ident)
        again = await ended(server, ident)
    assert (again.status, again.error.message) == ("failed", "o-2 is broken")
    assert flowflows.CALLS == ["ship"]


@styles
async def test_a_bad_input_is_refused_at_the_door(style):
    async with paddock.testing.server(register=[STYLES[style]]) as server:
        with pytest.raises(InvalidInput, match="qty"):
            await server.workflows.start(STYLES[style], {"id": "x", "qty": "many"})
        assert await server.workflows.get_all_instances() == []


@styles
async def test_a_crash_at_any_commit_changes_nothing(style):
    report = await paddock.testing.crash_everywhere(
        STYLES[style], {"id": "o-3", "qty": 1}, signals={"approve": {"ok": True, "by": "eve"}}
    )
    assert report.points >= 8
    assert receipt_of(report.outcome).how == "shipped"
    assert report, report.differences


@pytest.mark.parametrize("style", ["graph", "flow"])
async def test_a_crash_at_any_commit_of_a_failure_changes_nothing(style):
    report = await paddock.testing.crash_everywhere(
        STYLES[style], {"id": "o-4", "broken": True}, signals={"approve": {"ok": True}}
    )
    assert report, report.differences
    assert report.outcome is None


@styles
async def test_it_is_cancelled_while_it_waits_and_while_it_sleeps(style):
    async with paddock.testing.server(register=[STYLES[style]]) as server:
        ident = await server.workflows.start(STYLES[style], {"id": "o-5"})
        await suspended(server, ident, "waiting")
        assert await server.workflows.cancel(ident)
        assert (await ended(server, ident)).status == "cancelled"
        with pytest.raises(InvalidSignal, match="cancelled"):
            await server.workflows.signal(ident, "approve", {"ok": True})
