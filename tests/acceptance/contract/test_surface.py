"""The names, signatures and refusals that need no running server."""

import inspect
import sys
import types
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import contractflows as flows
import pytest

import paddock
from paddock import (
    AppServer,
    ConfigError,
    Context,
    Instance,
    InvalidWorkflow,
    PaddockError,
    Poll,
    Retry,
    Status,
    WatchdogConfig,
    WorkflowAlreadyRegistered,
    WorkflowNotImportable,
    WorkflowsConfig,
    branch,
    workflow,
)


def test_all_names_are_there_and_a_star_takes_them():
    taken: dict[str, object] = {}
    exec("from paddock import *", taken)
    assert set(paddock.__all__) <= set(taken)
    assert len(paddock.__all__) == len(set(paddock.__all__))
    for name in [
        "AppServer",
        "WorkflowsConfig",
        "WatchdogConfig",
        "SqlitePragmas",
        "workflow",
        "branch",
        "Context",
        "Poll",
        "Retry",
        "Plugin",
        "Core",
        "Event",
        "Instance",
        "StepResult",
        "LogRecord",
        "PaddockError",
        "WorkflowNotFound",
        "InstanceNotFound",
        "InvalidInstanceId",
        "InvalidInput",
        "InvalidState",
        "InvalidTransition",
        "StepFailed",
        "WaitTimeout",
        "WorkflowFailed",
        "WorkflowCancelled",
        "WorkflowTimedOut",
        "WorkflowBlocked",
        "WorkflowAlreadyRegistered",
        "ConcurrencyLimitReached",
        "InstanceIdConflict",
        "InvalidSignal",
        "InvalidWorkflow",
        "PayloadTooLarge",
        "PluginConfigError",
        "ServerAlreadyRunning",
        "NonDeterminismError",
        "InterruptError",
        "LeaseLost",
    ]:
        assert name in paddock.__all__, name


def test_every_error_is_paddocks_and_the_suspension_is_none():
    errors = [v for v in vars(paddock).values() if inspect.isclass(v) and issubclass(v, BaseException)]
    assert len(errors) > 25
    for error in errors:
        if error is paddock.InterruptError:
            assert not issubclass(error, Exception)
        else:
            assert issubclass(error, PaddockError), error
        assert inspect.getdoc(error)
    assert issubclass(paddock.WaitTimeout, TimeoutError)


def test_the_statuses():
    assert {s.value for s in Status} == {
        "pending", "running", "sleeping", "waiting", "paused", "blocked", "completed", "failed", "cancelled", "timed_out",
    }  # fmt: skip
    assert Status.TIMED_OUT == "timed_out"


def test_fields_of_the_records():
    def fields(model) -> set[str]:
        return set(model.model_fields)

    assert fields(Instance) == {
        "id", "workflow_name", "status", "current_step", "input", "output", "error", "step_results", "metadata", "created_at",
        "started_at", "completed_at", "wake_at", "executions", "parent_id", "priority", "version", "pid",
    }  # fmt: skip
    assert fields(paddock.StepResult) == {
        "key", "step_name", "kind", "status", "input", "output", "error", "attempts", "started_at", "completed_at",
        "poll_count", "loop_count",
    }  # fmt: skip
    assert fields(paddock.Event) == {"id", "name", "instance_id", "workflow_name", "created_at", "data"}
    assert fields(paddock.LogRecord) == {
        "id", "created_at", "level", "message", "data", "instance_id", "workflow_name", "step_name", "attempt", "source",
    }  # fmt: skip
    assert {"type", "message", "step", "traceback", "signal", "exit_code", "stack"} <= fields(paddock.ErrorInfo)


def test_the_defaults_of_the_configuration():
    config, watchdog = WorkflowsConfig(), WatchdogConfig()
    assert (config.concurrent_workflows, config.concurrent_workflows_by_name, config.max_processes) == (0, {}, None)
    assert (config.launcher, config.transport, config.resume, config.max_resumes) == ("fork", "unix", "background", 3)
    assert (config.ready_timeout, config.kill_grace, config.orphan_grace) == (10, 5, 30)
    assert (config.max_payload, config.cleanup_days, config.cleanup_interval) == (4 * 2**20, 30, 3600)
    pragmas = config.sqlite_pragmas
    assert (pragmas.busy_timeout, pragmas.journal_mode, pragmas.synchronous) == (5, "WAL", "FULL")
    assert (watchdog.enabled, watchdog.interval, watchdog.heartbeat_timeout) == (True, 1, 30)
    assert (watchdog.stall_timeout, watchdog.kill_grace) == (None, 5)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (1.5, 1.5),
        (2, 2),
        (timedelta(minutes=1), 60),
        ("500ms", 0.5),
        ("30s", 30),
        ("5min", 300),
        ("2h", 7200),
        ("30d", 2_592_000),
        (" 1h 30min ", 5400),
    ],
)
def test_durations_are_the_same_everywhere(given, seconds):
    assert WorkflowsConfig(ready_timeout=given).ready_timeout == seconds
    assert Retry(interval=given).interval == seconds
    assert workflow("x").timeout(given).task("a", flows.echo).build().timeout == seconds


@pytest.mark.parametrize(
    "given", ["", "soon", "1", "1y", "-1s", "1s2", -1, float("nan"), float("inf"), None, True, [1]]
)
def test_what_is_no_duration_is_named(given):
    with pytest.raises(ConfigError) as caught:
        WorkflowsConfig(kill_grace=given)
    assert "kill_grace" in str(caught.value)
    assert repr(given) in str(caught.value)
    if given is not None:
        with pytest.raises(InvalidWorkflow, match="nap") as refused:
            workflow("x").sleep("nap", given)
        assert repr(given) in str(refused.value)


def test_signatures():
    service = AppServer("x.db").workflows

    def parameters(call: Callable) -> list[str]:
        return [
            f"*{p.name}" if p.kind is p.KEYWORD_ONLY else p.name for p in inspect.signature(call).parameters.values()
        ]

    assert parameters(service.register)[:4] == ["definition", "*module", "*max_concurrent", "*on_limit"]
    assert parameters(service.start) == ["name_or_definition", "input", "*id", "*delay", "*priority", "*metadata"]
    assert parameters(service.run) == ["name", "input", "*timeout"]
    assert parameters(service.stream) == ["name", "input"]
    assert parameters(service.fork)[:3] == ["id", "from_step", "input"]
    assert parameters(service.schedule) == ["name", "cron", "every", "input", "id", "*tz", "*catch_up"]
    assert parameters(service.result) == parameters(service.wait) == ["id", "*timeout"]
    assert parameters(service.get_instances) == ["name", "status", "*limit", "*after"]
    assert not inspect.iscoroutinefunction(service.register)
    for name in [
        "start",
        "run",
        "result",
        "wait",
        "get_instance",
        "get_instances",
        "get_all_instances",
        "cancel",
        "update_metadata",
        "cleanup",
        "resume",
        "stop",
    ]:
        assert inspect.iscoroutinefunction(getattr(service, name)), name


# --- register ---------------------------------------------------------------------------------------------------------


def _local():
    return workflow("local").task("a", flows.echo).build()


def test_a_workflow_that_a_child_cannot_import_is_refused_at_register():
    server = AppServer("x.db")
    with pytest.raises(WorkflowNotImportable, match=r"'local'.*module level"):
        server.workflows.register(_local())
    with pytest.raises(WorkflowNotImportable, match=r"'local'.*nowhere"):
        server.workflows.register(_local(), module="nowhere.at.all")
    with pytest.raises(WorkflowNotImportable, match=r"'echo'.*json"):
        server.workflows.register(flows.echo_flow, module="json")
    ghost = types.ModuleType("a_ghost_module")
    ghost.flow = _local()
    sys.modules["a_ghost_module"] = ghost
    try:
        with pytest.raises(WorkflowNotImportable, match=r"'local'.*a_ghost_module.*sys\.path"):
            server.workflows.register(ghost.flow)
    finally:
        del sys.modules["a_ghost_module"]
    server.workflows.register(flows.echo_flow, module="contractflows")


def test_inline_needs_no_import():
    AppServer("x.db", workflows=WorkflowsConfig(launcher="inline")).workflows.register(_local())
    AppServer("x.db").workflows.register(workflow("here").isolated(False).task("a", flows.echo).build())


def test_a_name_is_registered_once():
    server = AppServer("x.db")
    server.workflows.register(flows.echo_flow)
    for again in (flows.echo_flow, workflow("echo").isolated(False).task("a", flows.echo).build()):
        with pytest.raises(WorkflowAlreadyRegistered, match="'echo'"):
            server.workflows.register(again)


def test_what_is_no_workflow_is_refused():
    for wrong in (None, "echo", flows.echo, workflow("x").task("a", flows.echo), object()):
        with pytest.raises(ConfigError, match="build"):
            AppServer("x.db").workflows.register(wrong)


# --- build ------------------------------------------------------------------------------------------------------------


def _yes(ctx: Context) -> bool:
    return True


BAD_GRAPHS: list[tuple[str, Callable[[], object], str]] = [
    ("no steps", lambda: workflow("w").build(), "w.*no steps"),
    ("unknown next", lambda: workflow("w").task("a", flows.echo, next="b").build(), "w.*'a'.*'b'"),
    (
        "unknown choice",
        lambda: workflow("w").choice("c", choices=[(_yes, "x")]).task("a", flows.echo).build(),
        "'c'.*'x'",
    ),
    ("unknown default", lambda: workflow("w").choice("c", choices=[], default="x").build(), "'c'.*'x'"),
    ("empty choice", lambda: workflow("w").choice("c", choices=[]).build(), "'c'.*default"),
    ("a pair that is none", lambda: workflow("w").choice("c", choices=[_yes]), "'c'"),
    (
        "unreachable",
        lambda: workflow("w").task("a", flows.echo, end=True).task("b", flows.echo).build(),
        "'b'.*reached",
    ),
    ("no end", lambda: workflow("w").task("a", flows.echo, next="a").build(), "'a'.*end"),
    (
        "no end after a choice",
        lambda: workflow("w").task("a", flows.echo).choice("c", choices=[], default="a").build(),
        "end",
    ),
    ("duplicate", lambda: workflow("w").task("a", flows.echo).task("a", flows.echo), "'a'.*distinct"),
    ("next and end", lambda: workflow("w").task("a", flows.echo, next="b", end=True), "'a'.*both"),
    ("no handler", lambda: workflow("w").task("a"), "'a'.*handler"),
    ("a handler that is none", lambda: workflow("w").task("a", 7), "'a'.*7"),
    ("a handler of three", lambda: workflow("w").task("a", lambda a, b, c: 1), "'a'"),
    ("two inputs", lambda: workflow("w").task("a", lambda a, b: 1), "'a'.*'b'"),
    ("transform and result", lambda: workflow("w").pass_("p", transform=_yes, result=1), "'p'.*both"),
    ("no branches", lambda: workflow("w").parallel("p", branches=[]), "'p'.*branches"),
    ("no branch", lambda: workflow("w").parallel("p", branches=[flows.echo]), "'p'.*branch"),
    (
        "branches of one name",
        lambda: workflow("w").parallel("p", branches=[branch("b").task("a", flows.echo).build()] * 2),
        "'p'.*b",
    ),
    (
        "unknown on_error",
        lambda: workflow("w").parallel("p", branches=[branch("b").task("a", flows.echo).build()], on_error="retry"),
        "'p'.*retry",
    ),
    ("a bad branch", lambda: branch("b").task("a", flows.echo, next="x").build(), "b.*'a'.*'x'"),
    ("unknown start", lambda: workflow("w").task("a", flows.echo).start_at("b").build(), "'b'"),
    ("unknown loop target", lambda: workflow("w").loop("l", _yes, "x").build(), "'l'.*'x'"),
    (
        "max_iterations",
        lambda: workflow("w").task("a", flows.echo).loop("l", _yes, "a", max_iterations=-1).build(),
        "'l'.*max_iterations",
    ),
    (
        "a condition that is none",
        lambda: workflow("w").task("a", flows.echo).loop("l", True, "a").build(),
        "'l'.*condition",
    ),
    ("poll attempts", lambda: workflow("w").poll("p", Poll.pending, max_attempts=0), "'p'.*max_attempts"),
    ("poll backoff", lambda: workflow("w").poll("p", Poll.pending, backoff=0.5), "'p'.*backoff"),
    (
        "poll interval",
        lambda: workflow("w").poll("p", Poll.pending, interval="often"),
        "'p'.*interval.*often",
    ),
    ("task timeout", lambda: workflow("w").task("a", flows.echo, timeout="long"), "'a'.*timeout.*long"),
    ("workflow timeout", lambda: workflow("w").timeout("long"), "w.*timeout.*long"),
    (
        "retry attempts",
        lambda: workflow("w").task("a", flows.echo, retry={"max_attempts": 0}).build(),
        "'a'.*max_attempts",
    ),
    ("retry field", lambda: workflow("w").task("a", flows.echo, retry={"tries": 3}).build(), "'a'.*tries"),
    ("retry type", lambda: workflow("w").task("a", flows.echo, retry="often").build(), "'a'.*often"),
    ("default retry", lambda: workflow("w").default_retry(backoff_rate=0), "backoff_rate"),
    ("retry pattern", lambda: Retry(retry_on=["("]), r"retry_on.*\("),
    ("retry on", lambda: Retry(retry_on=[7]), "retry_on"),
    ("workflow name", lambda: workflow("a/b"), "a/b"),
    ("no workflow name", lambda: workflow(""), "''"),
    ("step name", lambda: workflow("w").task("a/b", flows.echo), "a/b"),
    ("step name with a mark", lambda: workflow("w").task("a#2", flows.echo), "a#2"),
    ("no step name", lambda: workflow("w").task("", flows.echo), "''"),
    ("long step name", lambda: workflow("w").task("a" * 300, flows.echo), "aaa"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD_GRAPHS], ids=[case[0] for case in BAD_GRAPHS])
def test_a_graph_that_cannot_work_is_refused_with_its_step(make, message: str):
    with pytest.raises(InvalidWorkflow, match=message):
        make()


def test_what_a_definition_tells():
    flow = flows.process_order
    assert (flow.name, flow.isolated, flow.timeout) == ("process-order", True, 3600)
    assert (flow.description, flow.tags) == ("an order from the basket to the door", ("orders",))
    assert flow.module == "contractflows"
    assert flow.total_steps == 8
    assert flows.inside_flow.isolated is False
    with pytest.raises(AttributeError):
        flow.name = "x"


def test_a_server_holds_its_parts_before_it_starts(tmp_path: Path):
    server = AppServer(tmp_path / "a.db", config={"feature_x": True})
    assert server.config == {"feature_x": True}
    for name in ("workflows", "events", "logs", "plugins"):
        assert getattr(server, name) is not None
    assert list(tmp_path.iterdir()) == []
