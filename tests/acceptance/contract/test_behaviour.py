"""What a workflow does, the same in every mode: values and types, the context, the kinds of steps, retries, timeouts, events."""

import os
from datetime import UTC, datetime
from pathlib import Path

import contractflows as flows
import pytest
from contractkit import became, names, past, until
from contractnotes import notes

from paddock import (
    AppServer,
    Event,
    InvalidInput,
    NotSerializable,
    PayloadTooLarge,
    WorkflowFailed,
    WorkflowTimedOut,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
everywhere = pytest.mark.modes("inline", "fork", "spawn", "tcp")
warm = pytest.mark.modes("inline", "fork", "tcp")
twice = pytest.mark.modes("inline", "fork")


# --- processes -------------------------------------------------------------------------------------------------------


@everywhere
async def test_each_instance_has_a_process_of_its_own_unless_inline(server: AppServer, request):
    mode = request.node.callspec.params["shared"]
    first, second = await server.workflows.run("pid"), await server.workflows.run("pid")
    if mode == "inline":
        assert {first, second} == {os.getpid()}
    else:
        assert len({first, second, os.getpid()}) == 3


async def test_a_workflow_that_is_not_isolated_runs_in_the_server(server: AppServer):
    assert await server.workflows.run(flows.inside_flow) == os.getpid()


# --- handlers and values ----------------------------------------------------------------------------------------------


@warm
async def test_handlers_take_input_and_context_either_or_nothing_in_any_order(server: AppServer):
    ident = await server.workflows.start("shapes", {"a": [1, None, "ü"]})
    found = await server.workflows.result(ident, timeout=30)
    assert found["only_context"] == "shapes"
    assert found["by_name"] == [{"a": [1, None, "ü"]}, ident]
    assert found["first"] == {"a": [1, None, "ü"]}
    assert found["async"] == {"thread": True, "loop": True}
    assert found["sync"] == {"thread": False, "loop": False, "blocking": True}


@everywhere
async def test_a_value_comes_back_as_the_type_that_the_annotation_names(server: AppServer):
    order = flows.Order(id="o1", qty=3, due="2024-01-31")
    found = await server.workflows.run("price", order, timeout=30)
    assert found == ["Priced", "Decimal", "datetime", "set", "date", "Priced", "Priced", "True"]


async def test_every_kind_of_type_and_plain_json_without_one(server: AppServer):
    found = await server.workflows.run("types")
    assert found["point"] == "Point(x=1, y=2, colour=<Colour.BLUE: 'blue'>)"
    assert found["points"] == "[Point(x=3, y=4, colour=<Colour.RED: 'red'>)]"
    assert found["untyped"] == "[{'x': 5, 'y': 6, 'colour': 'red'}, ['set'], '1.5']"
    assert found["raw"] == found["untyped order"] == "{'id': 'made', 'qty': 7}"
    assert found["as order"] == found["schema"] == "Order(id='made', qty=7, due=None)"
    assert found["missing"] == "None"


@twice
async def test_a_declared_input_is_what_ctx_input_is(server: AppServer):
    assert await server.workflows.run("declared", {"id": "x", "qty": 2}) == [["Order", 2], "dict", "Order"]
    with pytest.raises(InvalidInput, match=r"declared.*qty"):
        await server.workflows.start("declared", {"id": "x", "qty": 0})


async def test_input_is_plain_json_where_none_is_declared(server: AppServer):
    assert await server.workflows.run("echo", flows.Point(1, 2)) == {"x": 1, "y": 2, "colour": "red"}
    assert await server.workflows.run("echo") is None


@twice
@pytest.mark.parametrize(
    ("flow", "given", "type_name", "message"),
    [
        ("wrong-type", None, "InvalidInput", "make"),
        ("no-json", "object", "NotSerializable", "make"),
        ("no-json", "nan", "NotSerializable", "make"),
        ("no-json", "big", "PayloadTooLarge", "make"),
    ],
)
async def test_an_output_that_is_no_json_too_large_or_of_another_type_fails_its_step(
    server: AppServer, flow: str, given: str | None, type_name: str, message: str
):
    with pytest.raises(WorkflowFailed) as caught:
        await server.workflows.run(flow, given, timeout=30)
    assert caught.value.error.type == type_name
    assert caught.value.error.step == "make"
    assert message in caught.value.error.message


async def test_a_mapped_value_is_checked_by_the_handlers_annotation(server: AppServer):
    with pytest.raises(WorkflowFailed) as caught:
        await server.workflows.run("bad-map")
    assert (caught.value.error.type, caught.value.error.step) == ("InvalidInput", "two")
    assert "id" in caught.value.error.message
    assert "qty" in caught.value.error.message
    assert "many" not in caught.value.error.message


# --- the context ------------------------------------------------------------------------------------------------------


@everywhere
async def test_the_context_shows_and_does_what_the_contract_says(server: AppServer):
    ident = await server.workflows.start("context", {"n": 1}, metadata={"given": [1]})
    found = await server.workflows.result(ident, timeout=30)
    first, second = found["sync"], found["async"]
    assert first == {
        "metadata": {"given": [1], "seen": {"by": "sync"}},
        "key": first["key"],
        "steps": [],
        "prev": None,
    }
    assert second == {
        "input": {"n": 1},
        "prev": first,
        "steps": ["see-blocking"],
        "id": ident,
        "workflow": "context",
        "status": "running",
        "current": "see",
        "executions": 1,
        "started": True,
        "metadata": {"given": [1], "seen": {"by": "async"}},
        "seen": {"by": "async"},
        "default": "fallback",
        "config": {"feature_x": True, "nested": {"list": [1, "two"]}},
        "key": second["key"],
        "attempt": 1,
        "result": first,
    }
    assert ident in first["key"]
    assert first["key"] != second["key"]
    assert (await server.workflows.get_instance(ident)).metadata == second["metadata"]


@twice
async def test_custom_events_arrive_under_three_names(server: AppServer):
    ident = await server.workflows.start("context", 5)
    await server.workflows.wait(ident, timeout=30)
    events = [e for e in await past(server, ident) if e.name.endswith(".event")]
    assert [e.name for e in events] == [
        "workflow.event",
        "workflow.context.event",
        f"workflow.{ident}.event",
    ] * 2
    for event in events:
        assert event.data == {
            "instance_id": ident,
            "workflow_name": "context",
            "event": "looked",
            "data": {"at": 5},
        }


@twice
async def test_a_heartbeat_with_progress_is_a_progress_event(server: AppServer):
    ident = await server.workflows.start("context", 5)
    await server.workflows.wait(ident, timeout=30)
    told = [e.data for e in await past(server, ident, "workflow.progress") if "step_progress" in e.data]
    assert [(d["current_step"], d["step_progress"]) for d in told] == [
        ("see-blocking", {"rows": 1}),
        ("see", {"rows": 7}),
    ]


@twice
async def test_misuse_of_the_context_is_refused_where_it_happens(server: AppServer):
    found = await server.workflows.run("misuse")
    for way in ("async", "sync"):
        kinds = [line.partition(":")[0] for line in found[way]]
        assert kinds == [
            "InvalidInput",
            "NotSerializable",
            "NotSerializable",
            "PayloadTooLarge",
            "ConfigError",
            "NotSerializable",
            "ConfigError",
        ], way
        assert "'x'" in found[way][1]
        assert "'e'" in found[way][2]
        assert "loud" in found[way][4]


@everywhere
async def test_plugins_are_there_by_name_and_by_class(server: AppServer):
    assert await server.workflows.run("stamped", timeout=30) == ["a in ink", "b in ink", True, "c in ink"]
    assert await server.plugins.stamp.press("here") == "here in ink"


# --- logs -------------------------------------------------------------------------------------------------------------


@warm
async def test_logs_have_scope_level_and_data(server: AppServer):
    ident = await server.workflows.start("speak")
    await server.workflows.wait(ident, timeout=30)
    records = [r for r in await server.logs.query(instance_id=ident) if r.source == "handler"]
    assert [(r.level, r.message) for r in records] == [
        ("debug", "one"),
        ("info", "two"),
        ("warning", "three"),
        ("error", "four"),
        ("critical", "five"),
    ]
    assert records[1].data == {"bound": True, "n": 2}
    assert "object" in records[2].data["thing"]
    assert "ValueError: held" in records[3].data["exception"]
    for record in records:
        assert (record.instance_id, record.workflow_name, record.step_name, record.attempt) == (
            ident,
            "speak",
            "speak",
            1,
        )
        assert record.created_at.tzinfo is UTC


@pytest.mark.modes("fork", "spawn")
async def test_what_a_child_prints_is_kept_with_its_stream(server: AppServer):
    ident = await server.workflows.start("chatter")
    await server.workflows.wait(ident, timeout=30)

    async def whole():
        found = await server.logs.query(instance_id=ident)
        return found if len(found) == 5 else None

    records = await became(whole)
    assert {r.message for r in records if r.source == "stdout"} == {
        "plain",
        "räw ☃",
        "from a grandchild",
        "no newline",
    }
    assert [r.message for r in records if r.source == "stderr"] == ["to stderr"]
    assert all(r.instance_id == ident and r.workflow_name == "chatter" for r in records)


# --- ways through a graph ---------------------------------------------------------------------------------------------


@warm
async def test_the_graph_of_the_contract(server: AppServer):
    ident = await server.workflows.start("process-order", {"id": "a", "qty": 4})
    instance = await server.workflows.wait(ident, timeout=30)
    assert instance.output == {
        "prev": {"shipping": {"order": "a"}, "notification": {"sent": True}},
        "total": "10.00",
    }
    assert set(instance.step_results) == {
        "price",
        "large",
        "fulfill",
        "fulfill/shipping/ship",
        "fulfill/notification/notify",
        "fulfill/notification/log",
        "complete",
    }
    ship = instance.step_results["fulfill/shipping/ship"]
    assert (ship.key, ship.step_name, ship.kind, ship.status) == ("fulfill/shipping/ship", "ship", "task", "completed")
    assert ship.output == {"order": "a"}
    assert ship.attempts == 1
    assert ship.input["order"]["id"] == "a"
    assert {r.kind for r in instance.step_results.values()} == {"task", "choice", "parallel", "pass"}
    assert await server.workflows.run("process-order", {"id": "b", "qty": 400}, timeout=30) == {
        "prev": {"given": "b"},
        "total": "1000.00",
    }


@twice
async def test_the_first_condition_that_holds_is_taken(server: AppServer):
    assert await server.workflows.run("choices", {"go": "left"}) == "left"
    assert await server.workflows.run("choices", {"go": "right"}) == "right"
    assert await server.workflows.run("choices", {"go": "?", "zero": 1}) == "right"
    for given, kind in (({"go": "?", "zero": -1}, None), ({"go": "?", "zero": 0}, "ZeroDivisionError")):
        with pytest.raises(WorkflowFailed) as caught:
            await server.workflows.run("choices", given)
        assert caught.value.error.step == "which"
        assert kind in (None, caught.value.error.type)


@twice
async def test_start_at_pass_sleep_and_end(server: AppServer):
    ident = await server.workflows.start("ends", 1)
    instance = await server.workflows.wait(ident, timeout=30)
    assert instance.output == {"fixed": [1]}
    assert [s.kind for s in instance.step_results.values()] == ["task", "pass", "pass", "sleep", "end"]
    assert list(instance.step_results) == ["first", "fixed", "bare", "nap", "finish"]


@twice
async def test_fail_fast_stops_the_other_branch(server: AppServer):
    ident = await server.workflows.start("fail-fast", "it")
    instance = await server.workflows.wait(ident, timeout=30)
    assert instance.status == "failed"
    assert (instance.error.type, instance.error.message) == ("ValueError", "cannot it")
    assert instance.error.step == "both/bad/fail"
    assert {k: v.status for k, v in instance.step_results.items()} == {
        "both": "failed",
        "both/bad/fail": "failed",
        "both/slow/wait": "failed",
    }


@twice
async def test_wait_all_lets_the_other_branch_end(server: AppServer, tmp_path: Path):
    log, gate = tmp_path / "log", tmp_path / "gate"
    ident = await server.workflows.start("wait-all", {"log": str(log), "gate": str(gate)})
    await until(server, "workflow.step.failed", ident)
    gate.touch()
    instance = await server.workflows.wait(ident, timeout=30)
    assert instance.error.step == "both/bad/fail"
    assert instance.error.type == "ValueError"
    assert notes(log) == ["sibling ended"]
    assert instance.step_results["both/good/after"].status == "completed"


# --- retries and timeouts ---------------------------------------------------------------------------------------------


@everywhere
async def test_a_retry_tells_of_itself_and_keeps_its_idempotency_key(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("flaky", {"log": str(tmp_path / "log"), "good_at": 3})
    instance = await server.workflows.wait(ident, timeout=30)
    assert instance.output == {"attempt": 3}
    step = instance.step_results["flaky"]
    assert (step.status, step.attempts, step.error) == ("completed", 3, None)
    tries = [line.split() for line in notes(tmp_path / "log")]
    assert [int(number) for number, _ in tries] == [1, 2, 3]
    assert len({key for _, key in tries}) == 1
    told = await past(server, ident, "workflow.step.*")
    assert names(told) == ["step.started", "step.retry", "step.started", "step.retry", "step.started", "step.completed"]
    assert [e.data["attempt"] for e in told if e.name.endswith("started")] == [1, 2, 3]
    retries = [e.data for e in told if e.name.endswith("retry")]
    assert [(d["attempt"], d["max_attempts"], d["delay"]) for d in retries] == [(1, 3, 0.01), (2, 3, 0.02)]
    assert [(d["step_name"], d["step_type"]) for d in retries] == [("flaky", "task")] * 2
    assert [d["error"]["message"] for d in retries] == ["try 1", "try 2"]
    assert retries[0]["error"]["type"] == "Flaky"


async def test_a_default_retry_reaches_the_tasks_in_branches(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("defaults", {"log": str(tmp_path / "log"), "good_at": 9})
    instance = await server.workflows.wait(ident, timeout=30)
    attempts = {key: step.attempts for key, step in instance.step_results.items() if step.kind == "task"}
    assert attempts == {
        "fan/default/a": 2,  # the workflow's
        "fan/fields/a": 3,  # its own attempts, the workflow's interval
        "fan/own/a": 1,  # its own
        "fan/branch/a": 4,  # its branch's
    }
    delays = {e.data["step"]: e.data["delay"] for e in await past(server, ident, "workflow.step.retry")}
    assert delays["fan/fields/a"] == 0.004
    assert delays["fan/default/a"] == 0.002


@twice
async def test_max_attempts_counts_the_first_try_and_failed_comes_once(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("flaky", {"log": str(tmp_path / "log"), "good_at": 9})
    instance = await server.workflows.wait(ident, timeout=30)
    assert len(notes(tmp_path / "log")) == 3
    failed = await past(server, ident, "workflow.step.failed")
    assert [(e.data["attempts"], e.data["error"]["type"]) for e in failed] == [(3, "Flaky")]
    assert (instance.error.type, instance.error.message, instance.error.step) == ("Flaky", "try 3", "flaky")
    assert "raise Flaky" in instance.error.traceback
    assert (instance.error.signal, instance.error.exit_code, instance.error.stack) == (None, None, None)
    assert instance.step_results["flaky"].error.message == "try 3"


async def test_retry_on_takes_types_and_patterns(server: AppServer, tmp_path: Path):
    with pytest.raises(WorkflowFailed):
        await server.workflows.run("picky", {"log": str(tmp_path / "picky"), "good_at": 2})
    assert len(notes(tmp_path / "picky")) == 1
    given = {"log": str(tmp_path / "pattern"), "good_at": 3}
    assert await server.workflows.run("pattern", given) == {"attempt": 3}


@warm
async def test_a_steps_timeout_fails_the_instance_at_that_step(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("slow-step", {"log": str(tmp_path / "log")})
    instance = await server.workflows.wait(ident, timeout=30)
    assert (instance.status, instance.error.type, instance.error.step) == ("failed", "StepTimeout", "slow")
    assert notes(tmp_path / "log") == ["let go"]
    assert names(await past(server, ident))[-1] == "failed"


async def test_a_timeout_is_retried(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("slow-twice", {"log": str(tmp_path / "log")})
    instance = await server.workflows.wait(ident, timeout=30)
    assert (instance.status, instance.step_results["slow"].attempts) == ("failed", 2)
    assert notes(tmp_path / "log") == ["let go"] * 2


@pytest.mark.modes("fork", "spawn")
async def test_a_plain_function_that_outruns_its_timeout_is_ended_with_its_process(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("slow-thread", {"log": str(tmp_path / "log")})
    instance = await server.workflows.wait(ident, timeout=30)
    assert (instance.status, instance.error.type, instance.error.step) == ("failed", "StepTimeout", "slow")
    assert notes(tmp_path / "log") == ["begun"]


@warm
async def test_the_workflows_own_deadline_gives_timed_out(server: AppServer, tmp_path: Path):
    ident = await server.workflows.start("deadline", {"log": str(tmp_path / "log")})
    with pytest.raises(WorkflowTimedOut, match=ident) as caught:
        await server.workflows.result(ident, timeout=30)
    assert caught.value.instance_id == ident
    instance = await server.workflows.get_instance(ident)
    assert instance.status == "timed_out"
    assert instance.completed_at >= instance.started_at
    terminal = [n for n in names(await past(server, ident)) if n in ("completed", "failed", "cancelled", "timed_out")]
    assert terminal == ["timed_out"]
    assert instance.step_results["ok"].status == "completed"


@warm
async def test_a_deadline_of_a_year_ends_nothing_today(server: AppServer):
    """No timer may take it for a short one, as those do that count milliseconds in 32 bits."""
    ident = await server.workflows.start("patient")
    found = await server.workflows.wait(ident, timeout=30)
    assert (found.status, found.error) == ("completed", None)
    assert found.current_step is None


# --- polls, loops, sleeps ---------------------------------------------------------------------------------------------


@warm
async def test_a_poll_checks_until_it_is_done_and_keeps_its_type(server: AppServer):
    ident = await server.workflows.start("poll", {"ready_at": 3})
    instance = await server.workflows.wait(ident, timeout=30)
    assert instance.output == ["Found", 3]
    step = instance.step_results["ready"]
    assert (step.kind, step.poll_count, step.output) == ("poll", 3, {"at": 3})
    polls = await past(server, ident, "workflow.step.poll")
    assert [(e.data["step_name"], e.data["step_type"], e.data["poll_count"]) for e in polls] == [
        ("ready", "poll", n) for n in (1, 2, 3)
    ]


@twice
@pytest.mark.parametrize(("flow", "given"), [("poll", {"ready_at": 9}), ("poll-timeout", None), ("poll-wrong", None)])
async def test_a_poll_that_finds_nothing_or_returns_something_else_fails_the_step(server: AppServer, flow, given):
    ident = await server.workflows.start(flow, given)
    instance = await server.workflows.wait(ident, timeout=30)
    assert (instance.status, instance.error.step) == ("failed", "ready")
    assert names(await past(server, ident))[-2:] == ["step.failed", "failed"]
    if flow == "poll":
        assert instance.step_results["ready"].poll_count == 4


@warm
async def test_a_loop_counts_its_jumps_back(server: AppServer):
    ident = await server.workflows.start("loop", {"until": 3})
    instance = await server.workflows.wait(ident, timeout=30)
    assert instance.output == {"prev": 3, "keys": ["after", "again", "count", "count#2", "count#3"]}
    assert instance.step_results["again"].loop_count == 2
    assert instance.step_results["count#2"].step_name == "count"
    loops = await past(server, ident, "workflow.step.loop")
    assert [e.data["loop_count"] for e in loops] == [1, 2]
    assert {(e.data["step_name"], e.data["step_type"]) for e in loops} == {("again", "loop")}


@twice
async def test_a_loop_that_does_not_end_fails_its_step(server: AppServer):
    ident = await server.workflows.start("loop", {"until": 99})
    instance = await server.workflows.wait(ident, timeout=30)
    assert (instance.status, instance.error.step) == ("failed", "again")
    assert instance.step_results["again"].loop_count == 3
    assert "count#4" in instance.step_results
    assert "count#5" not in instance.step_results


@twice
async def test_a_sleeping_instance_has_no_process_and_goes_on_by_itself(server: AppServer):
    long = await server.workflows.start("long-sleep")
    event = await until(server, "workflow.suspended", long)
    instance = await server.workflows.get_instance(long)
    assert (event.data["reason"], instance.status, instance.current_step) == ("sleeping", "sleeping", "night")
    assert (instance.pid, instance.executions) == (None, 1)
    assert instance.wake_at > datetime.now(UTC)

    async def alone():
        return all(row["instance_id"] != long for row in await server.processes())

    await became(alone)
    await server.workflows.cancel(long)
    ident = await server.workflows.start("sleep")
    event = await until(server, "workflow.suspended", ident)
    assert (event.data["reason"], event.data["status"]) == ("sleeping", "sleeping")
    assert event.data["wake_at"] > event.created_at.timestamp()
    assert await server.workflows.result(ident, timeout=30) == ["slept", 2]
    assert names(await past(server, ident))[-1] == "completed"
    assert "resumed" in names(await past(server, ident))
    assert (await server.workflows.get_instance(ident)).wake_at is None


# --- the instance and its events ---------------------------------------------------------------------------------------


@warm
async def test_a_finished_instance_tells_all_of_itself(server: AppServer):
    before = datetime.now(UTC)
    ident = await server.workflows.start("context", [1], priority=3, metadata={"a": None})
    instance = await server.workflows.wait(ident, timeout=30)
    assert (instance.id, instance.workflow_name, instance.status) == (ident, "context", "completed")
    assert (instance.input, instance.error, instance.current_step, instance.wake_at) == ([1], None, None, None)
    assert (instance.executions, instance.parent_id, instance.priority, instance.pid) == (1, None, 3, None)
    assert isinstance(instance.version, str)
    times = [before, instance.created_at, instance.started_at, instance.completed_at, datetime.now(UTC)]
    assert times == sorted(times)
    assert all(t.tzinfo is UTC for t in times)
    step = instance.step_results["see"]
    assert (step.step_name, step.kind, step.status, step.attempts) == ("see", "task", "completed", 1)
    assert (step.poll_count, step.loop_count, step.error, step.input) == (0, 0, None, [1])
    assert step.started_at.tzinfo is UTC
    assert step.completed_at >= step.started_at


def _check_order(told: list[Event], ident: str) -> None:
    assert [e.id for e in told] == sorted({e.id for e in told})
    for event in told:
        assert (event.instance_id, event.workflow_name) == (ident, "process-order")
        assert event.data["instance_id"] == ident
        assert event.data["workflow_name"] == "process-order"
        assert event.created_at.tzinfo is UTC


@warm
async def test_events_tell_the_whole_story_in_order(server: AppServer):
    ident = await server.workflows.start("process-order", {"id": "b", "qty": 400})
    await server.workflows.wait(ident, timeout=30)
    told = await past(server, ident)
    _check_order(told, ident)
    story = [(e.name.removeprefix("workflow."), e.data.get("step_name")) for e in told if e.name != "workflow.progress"]
    assert story == [
        ("started", None),
        ("step.started", "price"),
        ("step.completed", "price"),
        ("step.started", "large"),
        ("step.completed", "large"),
        ("step.started", "by hand"),
        ("step.completed", "by hand"),
        ("step.started", "complete"),
        ("step.completed", "complete"),
        ("completed", None),
    ]
    by_name = {e.name: e.data for e in told}
    assert by_name["workflow.completed"]["output"] == {"prev": {"given": "b"}, "total": "1000.00"}
    done = [e.data for e in told if e.name == "workflow.step.completed"]
    assert done[0]["output"]["order"]["id"] == "b"
    assert [d["step_type"] for d in done] == ["task", "choice", "task", "pass"]
    assert isinstance(by_name["workflow.started"]["pid"], int)


@twice
async def test_progress_runs_from_nought_to_a_hundred(server: AppServer):
    ident = await server.workflows.start("process-order", {"id": "a", "qty": 4})
    await server.workflows.wait(ident, timeout=30)
    told = [e.data for e in await past(server, ident, "workflow.progress")]
    percents = [d["progress"] for d in told]
    assert percents == sorted(percents)
    assert percents[0] >= 0
    assert percents[-1] == 100
    assert {d["total_steps"] for d in told} == {8}
    counts = [d["completed_steps"] for d in told]
    assert counts == sorted(counts)
    assert told[0]["current_step"] == "price"
    assert counts[0] == 1


@everywhere
async def test_a_failure_is_told_with_its_error(server: AppServer):
    with pytest.raises(WorkflowFailed) as caught:
        await server.workflows.run("failing", "that", timeout=30)
    error = caught.value
    assert (error.error.type, error.error.message, error.error.step) == ("ValueError", "cannot that", "fail")
    assert error.instance_id in str(error)
    assert "failing" in str(error)
    assert "cannot that" in str(error)
    told = await past(server, error.instance_id)
    assert told[-1].name == "workflow.failed"
    assert told[-1].data["error"]["type"] == "ValueError"
    assert told[-1].data["error"]["step"] == "fail"


async def test_thirty_large_outputs_arrive_whole(server: AppServer):
    text = "ü☃" * 40_000
    ids = [await server.workflows.start("echo", {"n": n, "text": text}) for n in range(6)]
    for n, ident in enumerate(ids):
        event = await until(server, "workflow.completed", ident)
        assert event.data["output"] == {"n": n, "text": text}


async def test_a_payload_at_the_door(server: AppServer):
    with pytest.raises(PayloadTooLarge, match="echo") as caught:
        await server.workflows.start("echo", "x" * 256 * 1024)
    assert (caught.value.size, caught.value.limit) == (256 * 1024 + 2, 256 * 1024)
    with pytest.raises(NotSerializable, match="echo"):
        await server.workflows.start("echo", {"f": print})
    with pytest.raises(NotSerializable, match="echo"):
        await server.workflows.start("echo", float("nan"))
    with pytest.raises(NotSerializable, match="echo"):
        await server.workflows.start("echo", "\ud800")
    with pytest.raises(NotSerializable, match="echo"):
        await server.workflows.start("echo", {1: "a", "1": "b"})
    circle: list = []
    circle.append(circle)
    with pytest.raises(NotSerializable, match="echo"):
        await server.workflows.start("echo", circle)
