"""Who is stale: the policy's table, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.watchdog.beats import Verdict
from paddock.watchdog.policy import (
    STEP_MARGIN,
    Sample,
    Thresholds,
    Track,
    begin,
    decide,
    observe,
    overslept,
)
from paddock.watchdog.procstat import TICKS_PER_SECOND

LIMITS = Thresholds(interval=1.0, heartbeat_timeout=30.0, stall_timeout=None, kill_grace=5.0)
STALLING = replace(LIMITS, stall_timeout=10.0)
HZ = TICKS_PER_SECOND


@dataclass
class Life:
    """What a process does in each second."""

    seconds: int
    beats: bool = True
    loop: bool = True
    cpu: float = 0.0
    state: str = "S"


def live(lives: list[Life], thresholds: Thresholds = LIMITS, deadline: float = 0.0) -> tuple[Verdict, int] | None:
    """Return the first verdict and the second in which it fell."""
    sample = Sample(1, 1, 0, "S", round(deadline * 1e9))
    track: Track = begin(sample, 0.0)
    now, cpu = 0, 0.0
    for life in lives:
        for _ in range(life.seconds):
            now += 1
            cpu += life.cpu * HZ
            sample = replace(
                sample,
                thread_beats=sample.thread_beats + life.beats,
                loop_beats=sample.loop_beats + life.loop,
                cpu_ticks=int(cpu),
                state=life.state,
            )
            track = observe(track, sample, float(now))
            verdict = decide(track, sample, float(now), thresholds)
            if verdict is not None:
                return verdict, now
    return None


SILENT = {"beats": False, "loop": False}


@pytest.mark.parametrize(
    ("lives", "thresholds", "expected"),
    [
        pytest.param([Life(600)], LIMITS, None, id="idle, and beats"),
        pytest.param([Life(600, loop=False, cpu=1.0, state="R")], LIMITS, None, id="busy in a thread"),
        pytest.param([Life(600, **SILENT, cpu=1.0, state="R")], LIMITS, None, id="holds the GIL and computes"),
        pytest.param([Life(600, **SILENT, cpu=0.05)], LIMITS, None, id="little CPU, seen asleep"),
        pytest.param([Life(600, **SILENT, state="R")], LIMITS, None, id="starved: runnable, gets no CPU"),
        pytest.param([Life(600, **SILENT, state="D")], LIMITS, None, id="a stalled disk"),
        pytest.param([Life(600, **SILENT, state="D"), Life(29, **SILENT)], LIMITS, None, id="just back from the disk"),
        pytest.param([Life(5), Life(600, **SILENT)], LIMITS, (Verdict.STALE_SILENT, 35), id="a deadlock"),
        pytest.param(
            [Life(40, **SILENT, cpu=0.004)], LIMITS, (Verdict.STALE_SILENT, 30), id="threads wait for the GIL"
        ),
        pytest.param(
            [*[Life(2, **SILENT), Life(1, **SILENT, state="R")] * 10, Life(10, **SILENT)],
            LIMITS,
            (Verdict.STALE_SILENT, 30),
            id="waits for the GIL on a loaded machine",
        ),
        pytest.param(
            [Life(1, **SILENT, state="R"), *[Life(3, **SILENT, state="R"), Life(1, **SILENT)] * 100],
            LIMITS,
            None,
            id="starved, seen asleep at times",
        ),
        pytest.param(
            [Life(3600, **SILENT, cpu=1.0), Life(40, **SILENT)],
            LIMITS,
            (Verdict.STALE_SILENT, 3630),
            id="computed for an hour, then deadlocked",
        ),
        pytest.param([Life(29, **SILENT), Life(1), Life(29, **SILENT)], LIMITS, None, id="silent, but not for long"),
        pytest.param([Life(5), Life(60, **SILENT, state="T")], LIMITS, (Verdict.STALE_STOPPED, 36), id="stopped"),
        pytest.param([Life(60, **SILENT, state="t")], LIMITS, (Verdict.STALE_STOPPED, 31), id="in a debugger"),
        pytest.param(
            [Life(29, **SILENT, state="T"), Life(29, **SILENT)], LIMITS, None, id="continued, has had no time to beat"
        ),
        pytest.param(
            [Life(20, **SILENT, state="T"), Life(1), Life(20, state="T")], LIMITS, None, id="stopped twice, shortly"
        ),
        pytest.param([Life(600, loop=False)], LIMITS, None, id="a blocked loop, no stall_timeout"),
        pytest.param([Life(5), Life(600, loop=False, cpu=1.0)], STALLING, (Verdict.STALLED, 15), id="a blocked loop"),
        pytest.param(
            [Life(9, loop=False), Life(1), Life(9, loop=False)], STALLING, None, id="a loop that turns slowly"
        ),
        pytest.param([Life(29, **SILENT, state="T")], STALLING, None, id="stopped is not stalled"),
        pytest.param(
            [Life(60, **SILENT, state="D"), Life(9, loop=False)], STALLING, None, id="the disk stalled the loop"
        ),
    ],
)
def test_the_table(lives: list[Life], thresholds: Thresholds, expected: tuple[Verdict, int] | None):
    assert live(lives, thresholds) == expected


@pytest.mark.parametrize("life", [Life(60, cpu=1.0, state="R"), Life(60), Life(60, **SILENT, cpu=1.0, state="R")])
def test_a_steps_deadline_ends_the_busy_too(life: Life):
    assert live([life], deadline=20.0) == (Verdict.STEP_TIMEOUT, 20 + int(STEP_MARGIN) + 1)


def test_a_loop_that_never_ran_is_not_stalled():
    sample = Sample(1, 0, 0, "S", 0)
    assert decide(begin(sample, 0.0), sample, 29.0, STALLING) is None


def test_a_stranger_is_never_judged():
    sample = Sample(1, 1, 0, "T", 1, identity_ok=False)
    assert decide(begin(sample, 0.0), sample, 1e6, STALLING) is None


def test_grace_comes_before_any_verdict():
    sample = Sample(1, 1, 0, "S", 1)
    track = begin(sample, 100.0, grace=3.0)
    assert decide(track, sample, 102.9, LIMITS) is None
    assert decide(track, sample, 103.0, LIMITS) is Verdict.STEP_TIMEOUT
    assert observe(track, replace(sample, state="D"), 101.0).grace_until == 103.0


@pytest.mark.parametrize(
    ("interval", "timeout", "gap", "expected"),
    [(1.0, 30.0, 9.9, False), (1.0, 30.0, 10.1, True), (1.0, 3.0, 2.9, False), (1.0, 3.0, 3.1, True)],
)
def test_overslept(interval: float, timeout: float, gap: float, expected: bool):
    assert overslept(50.0, 50.0 + gap, Thresholds(interval, timeout, None, 0.0)) is expected


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"interval": 0.0}, "interval"),
        ({"interval": float("nan")}, "interval"),
        ({"heartbeat_timeout": 2.9}, "raise heartbeat_timeout"),
        ({"heartbeat_timeout": float("nan")}, "heartbeat_timeout"),
        ({"stall_timeout": 2.0}, "raise stall_timeout"),
        ({"kill_grace": -1.0}, "kill_grace"),
    ],
)
def test_thresholds_that_would_kill_the_living(changes: dict[str, float], word: str):
    with pytest.raises(ValueError, match=word):
        replace(LIMITS, **changes)


@given(st.lists(st.tuples(st.sampled_from("SRDTt"), st.booleans(), st.booleans(), st.floats(0, 1)), max_size=80))
def test_nobody_who_beat_within_the_timeout_is_silent(history: list[tuple[str, bool, bool, float]]):
    sample, track, cpu, beaten, running = Sample(0, 0, 0, "S", 0), None, 0.0, 0, 0
    for now, (state, beats, loop, share) in enumerate(history):
        cpu += share * HZ
        sample = replace(
            sample,
            state=state,
            thread_beats=sample.thread_beats + beats,
            loop_beats=sample.loop_beats + loop,
            cpu_ticks=int(cpu),
        )
        track = begin(sample, float(now)) if track is None else observe(track, sample, float(now))
        beaten = now if beats or now == 0 else beaten
        running = now if state not in "Tt" or now == 0 else running
        verdict = decide(track, sample, float(now), replace(LIMITS, heartbeat_timeout=5.0))
        if verdict is Verdict.STALE_SILENT:
            assert now - beaten >= 5
            assert state not in "DTt"
        elif verdict is Verdict.STALE_STOPPED:
            assert state in "Tt"
            assert now - running >= 5


@pytest.mark.parametrize(
    ("memory", "verdict"), [(1600, None), (1700, None), (1701, Verdict.MEMORY_LIMIT), (9999, Verdict.MEMORY_LIMIT)]
)
def test_too_much_memory_needs_no_grace(memory: int, verdict: Verdict | None):
    """A sixteenth over the limit passes: the kernel, which refuses what is over, counts a little differently."""
    sample = Sample(1, 1, 0, "S", 0, memory=memory, memory_limit=1600)
    assert decide(begin(sample, 0.0, grace=3.0), sample, 0.1, LIMITS) is verdict


def test_without_a_limit_any_memory_will_do():
    sample = Sample(1, 1, 0, "S", 0)
    assert decide(begin(sample, 0.0), sample, 0.1, LIMITS) is None


@pytest.mark.parametrize(("timeout", "patience"), [(3.0, 60), (30.0, 300)])
def test_one_that_has_not_begun_to_beat_may_be_waiting_for_the_database(timeout: float, patience: int):
    limits, sample = replace(LIMITS, heartbeat_timeout=timeout), Sample(0, 0, 0, "S", 0)
    track = begin(sample, 0.0)
    verdicts = [decide(observe(track, sample, float(now)), sample, float(now), limits) for now in range(patience + 1)]
    assert verdicts == [None] * patience + [Verdict.STALE_SILENT]
    beaten = replace(sample, thread_beats=1)
    track = observe(track, beaten, 100.0)
    assert decide(track, beaten, 99.0 + timeout, limits) is None
    assert decide(track, beaten, 100.0 + timeout, limits) is Verdict.STALE_SILENT


def test_a_stop_before_the_first_beat_is_a_stop():
    sample = Sample(0, 0, 0, "T", 0)
    assert decide(begin(sample, 0.0), sample, 30.0, LIMITS) is Verdict.STALE_STOPPED
