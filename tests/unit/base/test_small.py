"""Durations, ids, configuration, clocks, records, errors: each by its own few rules."""

import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import paddock
from paddock import (
    ConfigError,
    ErrorInfo,
    InvalidInput,
    InvalidInstanceId,
    InvalidWorkflow,
    PaddockError,
    SqlitePragmas,
    Status,
    StepTimeout,
    WaitTimeout,
    WatchdogConfig,
    WorkflowFailed,
    WorkflowsConfig,
)
from paddock.runtime.base import errors
from paddock.runtime.base.clock import as_datetime, as_timestamp
from paddock.runtime.base.duration import parse_duration
from paddock.runtime.base.ids import check_instance_id, check_key, check_step_name, check_workflow_name, new_id

# --- durations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        (timedelta(minutes=2), 120),
        ("500ms", 0.5),
        ("30s", 30),
        ("5min", 300),
        ("5 m", 300),
        ("2h", 7200),
        ("30d", 2_592_000),
        ("1w", 604_800),
        ("1h 30min", 5400),
        ("1h30min5s", 5405),
        (" 0.25 S ", 0.25),
    ],
)
def test_durations(value, seconds):
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "5",
        "5 parsecs",
        "-5s",
        "1h and 2",
        "s",
        -1,
        float("nan"),
        float("inf"),
        10**400,
        timedelta(-1),
        None,
        True,
        [5],
        b"5s",
    ],
)
def test_what_is_no_duration_is_named(value):
    with pytest.raises(ConfigError, match=re.escape(f"{value!r:.30}"[:20])):
        parse_duration(value)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "min", "h", "d", "w"]))
def test_text_and_timedelta_agree(count, unit):
    long = {"ms": "milliseconds", "s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}[unit]
    assert parse_duration(f"{count}{unit}") == pytest.approx(parse_duration(timedelta(**{long: count})))


# --- ids ------------------------------------------------------------------------------------------------------------------


def test_ids_are_ordered_across_threads():
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda own=own: own.extend(new_id() for _ in range(500))) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in made)
    flat = [ident for own in made for ident in own]
    assert len(set(flat)) == 2000
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", ident) for ident in flat
    )
    assert check_instance_id(flat[0])


@pytest.mark.parametrize("ident", ["a", "order-7", "a.b:c@d+e=f~g", "_x", "x" * 128, "7"])
def test_ids_that_users_may_give(ident):
    assert check_instance_id(ident) == ident


_HOSTILE = [
    "",
    "a/b",
    "../x",
    "a\0b",
    "a\nb",
    "a b",
    "x" * 129,
    "x" * 300,
    "-rf",
    ".hidden",
    "ä",
    "a\u202eb",
    "\ud800",
    None,
    5,
    b"a",
    "a\n",
]


@pytest.mark.parametrize("ident", _HOSTILE)
def test_hostile_ids_are_refused_and_shown_safely(ident):
    with pytest.raises(InvalidInstanceId) as caught:
        check_instance_id(ident)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 300
    text.encode()


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "-a", "x" * 129, None, "a\n"])
def test_workflow_names(name):
    with pytest.raises(InvalidWorkflow):
        check_workflow_name(name)
    assert check_workflow_name("größer.x:1-b")


@pytest.mark.parametrize("name", ["", "a/b", "a#2", "a\tb", "\u200b", "x" * 201, None])
def test_step_names(name):
    with pytest.raises(InvalidWorkflow):
        check_step_name(name)
    assert check_step_name("two words, a ü and a 🐎")


def test_keys():
    assert check_key("any key\n", "it") == "any key\n"
    for key in ("", "\ud800", None, 5, "x" * 1001):
        with pytest.raises(InvalidInput, match=r"^it must be text"):
            check_key(key, "it")


# --- configuration ----------------------------------------------------------------------------------------------------------


def test_configuration_takes_durations_and_sizes_in_words():
    config = WorkflowsConfig(
        ready_timeout="2min", max_payload="8MB", max_output="64 kb", sqlite_pragmas={"busy_timeout": "1s"}
    )
    assert (config.ready_timeout, config.max_payload, config.max_output) == (120, 8 * 2**20, 64 * 1024)
    assert config.sqlite_pragmas.busy_timeout == 1
    with pytest.raises(ValidationError):
        config.kill_grace = 1


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: WorkflowsConfig(concurrent_workflow=1), "concurrent_workflow"),
        (lambda: WorkflowsConfig(concurrent_workflows=-1), "concurrent_workflows"),
        (lambda: WorkflowsConfig(concurrent_workflows_by_name={"a": -1}), "concurrent_workflows_by_name.a"),
        (lambda: WorkflowsConfig(launcher="thread"), "launcher"),
        (lambda: WorkflowsConfig(max_processes=0), "max_processes"),
        (lambda: WorkflowsConfig(ready_timeout="soon"), "ready_timeout.*soon"),
        (lambda: WorkflowsConfig(max_payload="much"), "max_payload"),
        (lambda: SqlitePragmas(synchronous="OFF"), "synchronous"),
        (lambda: SqlitePragmas(journal_mode="DELETE"), "journal_mode"),
        (lambda: WatchdogConfig(interval="10s", heartbeat_timeout="20s"), "heartbeat_timeout.*three intervals"),
        (lambda: WatchdogConfig(interval="1s", stall_timeout="2s"), "stall_timeout"),
        (lambda: WatchdogConfig(interval=0), "interval"),
    ],
)
def test_a_value_that_cannot_work_is_named(make, word):
    with pytest.raises(ConfigError, match=word):
        make()


def test_limits_by_registration_by_name_by_default():
    config = WorkflowsConfig(concurrent_workflows=5, concurrent_workflows_by_name={"a": 2, "free": 0})
    assert [config.limit_for(*args) for args in [("a", 9), ("a", None), ("b", None), ("free", None), ("b", 0)]] == [
        9,
        2,
        5,
        0,
        0,
    ]
    assert WorkflowsConfig(max_processes=1).process_limit == 1
    assert WorkflowsConfig().process_limit >= 4


# --- clocks -------------------------------------------------------------------------------------------------------------------


def test_moments_are_utc_and_come_back():
    moment = datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=UTC)
    assert as_datetime(as_timestamp(moment)) == moment
    assert as_timestamp(moment.replace(tzinfo=None)) == as_timestamp(moment)
    assert as_datetime(None) is as_timestamp(None) is None


@pytest.mark.parametrize("seconds", [1e12, 1e300, float("inf")])
def test_a_moment_past_all_calendars_is_their_end(seconds):
    assert as_datetime(seconds).year == 9999


# --- records and errors -------------------------------------------------------------------------------------------------------


def test_records_are_frozen():
    info = ErrorInfo(type="X", message="m")
    with pytest.raises(ValidationError):
        info.message = "other"


def test_status_is_text():
    assert Status("failed") == "failed"
    assert f"{Status.TIMED_OUT}" == "timed_out"


def test_the_tree_in_the_docstring_is_the_tree():
    drawn, stack = {}, []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"^([│ ]*)(?:[├└]── )(\w+)", line):
            depth = len(match[1]) // 4
            del stack[depth:]
            drawn[match[2]] = stack[-1] if stack else "PaddockError"
            stack.append(match[2])
    public = {name: getattr(errors, name) for name in errors.__all__ if name not in ("PaddockError", "InterruptError")}
    assert set(drawn) == set(public)
    for name, kind in public.items():
        parents = [base.__name__ for base in kind.__mro__[1:] if base.__name__ in {*public, "PaddockError"}]
        assert parents[0] == drawn[name], name


def test_every_error_is_ours_and_tells_what_it_is():
    for name in errors.__all__:
        kind = getattr(paddock, name)
        assert kind.__doc__
        if name != "InterruptError":
            assert issubclass(kind, PaddockError)
    assert not issubclass(paddock.InterruptError, Exception)
    assert issubclass(StepTimeout, TimeoutError)
    assert issubclass(WaitTimeout, TimeoutError)


def test_an_outcome_carries_its_error():
    error = WorkflowFailed("i1", "w", ErrorInfo(type="ValueError", message="boom", step="s"))
    assert str(error) == "w instance i1 failed at step 's': ValueError: boom"
    assert (error.instance_id, error.workflow_name, error.error.step) == ("i1", "w", "s")
    assert str(WorkflowFailed("i1", "w", None)) == "w instance i1 failed"
