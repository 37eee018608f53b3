"""Decide who is stale. Pure: samples and times in, a verdict out.

| what is seen | for how long | verdict |
|---|---|---|
| the process is stopped (state T, t) | `heartbeat_timeout` | `STALE_STOPPED` |
| no beat, and all that time no CPU (under 1 %), seldom runnable, never in state D | `heartbeat_timeout` | `STALE_SILENT` |
| the same of one that has not beaten once: it comes up, and may wait for the database | ten times that, a minute at least | `STALE_SILENT` |
| its memory, with that of all it has started, is over its `memory_limit` by more than a sixteenth | – | `MEMORY_LIMIT` |
| a step is past its deadline | 1 s | `STEP_TIMEOUT` |
| its loop has beaten once and does no more | `stall_timeout`, where it is set | `STALLED` |
| no beat, but it uses CPU (a loop in C that holds the GIL) | for ever | none: busy |
| no beat, and it is runnable at two looks of three (a starved machine) | for ever | none: busy |
| no beat, and a thread is in state D (a stalled disk) | for ever | none, and all counts begin again after it |
| it was stopped and is continued | | none: all counts begin again |
| the observer itself overslept | | none: all counts begin again, three intervals pass before any verdict |
| its pid is another process now, or none | | none: whoever waits for its exit will tell |

All durations are counted by the observer, on its own monotonic clock, from when *it* last saw a change. The
children's clocks and the wall clock decide nothing, and CLOCK_MONOTONIC does not count a suspended machine on Linux.
A watchdog that was itself stopped or starved sees everybody silent at once: that shows as a gap between two of its
rounds.

A step's deadline is the exception, it is absolute (CLOCK_MONOTONIC is one clock for all processes). The child ends
its step itself when it can; the second on top is the time that it has for that.

CPU is watched in a window of its own, not since the last beat: a process that computed for an hour and then
deadlocked is silent for an hour but idle only since then. One or two ticks are noise, and threads that wait for the
GIL wake up every 5 ms, which costs a few tenths of a percent. On a loaded machine such a thread also stands in line
for a CPU now and then, just to look again: to be seen runnable once says nothing, to be seen so most of the time does.

A child beats once the lease is its own, for which it waits at the database's write lock. A stranger may hold that for
long, and it looks like any silence from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .beats import Verdict
from .procstat import TICKS_PER_SECOND

__all__ = [
    "MEMORY_MARGIN",
    "MIN_INTERVALS",
    "STEP_MARGIN",
    "Sample",
    "Thresholds",
    "Track",
    "begin",
    "decide",
    "observe",
    "overslept",
    "silence_allowed",
]

#: A timeout must span at least so many intervals, or one late round would kill.
MIN_INTERVALS = 3

#: What share of its memory limit a process may hold on top. The kernel refuses a process what is over the limit, and
#: counts a little differently: who was refused and deals with it must not be ended for it.
MEMORY_MARGIN = 1 / 16

#: Seconds past a step's deadline in which the child may end the step itself.
STEP_MARGIN = 1.0

_STOPPED = frozenset("Tt")
_NOISE_TICKS = 2
_NOISE_SHARE = 0.01
_STARVED_LOOKS = 3
_STARVED_SHARE = 2 / 3
_UNBORN_TIMES, _UNBORN_LEAST = 10, 60.0
_NANO = 1_000_000_000


@dataclass(frozen=True)
class Thresholds:
    """When to act, in seconds.

    Attributes:
        interval: between two rounds.
        heartbeat_timeout: how long a process may be stopped, or silent and idle once it has begun to beat.
        stall_timeout: how long a loop may stand still; None lets it.
        kill_grace: between SIGTERM and SIGKILL.
    """

    interval: float
    heartbeat_timeout: float
    stall_timeout: float | None
    kill_grace: float

    def __post_init__(self) -> None:
        """Refuse values that would kill the living.

        Raises:
            ValueError: a value is out of range; the text says what to do.
        """
        if not self.interval > 0:
            raise ValueError(f"the watchdog's interval is {self.interval} s; give it more than 0")
        if not self.kill_grace >= 0:
            raise ValueError(f"the watchdog's kill_grace is {self.kill_grace} s; it cannot be negative")
        for name, value in (("heartbeat_timeout", self.heartbeat_timeout), ("stall_timeout", self.stall_timeout)):
            if value is not None and not value >= MIN_INTERVALS * self.interval:
                raise ValueError(
                    f"{name} is {value} s, less than {MIN_INTERVALS} intervals of {self.interval} s; "
                    f"raise {name} to {MIN_INTERVALS * self.interval} s or more, or lower interval"
                )


@dataclass(frozen=True)
class Sample:
    """One look at one process.

    Attributes:
        thread_beats: see `SlotView`.
        loop_beats: see `SlotView`.
        cpu_ticks: CPU time of all its threads so far.
        state: its state letter; "D" where any thread of a silent process is in D, "R" where any is runnable.
        step_deadline_ns: see `SlotView`.
        identity_ok: whether pid and start time are still those of the slot.
        memory: bytes that its tree holds; 0 where it may hold any.
        memory_limit: see `SlotView`.
    """

    thread_beats: int
    loop_beats: int
    cpu_ticks: int
    state: str
    step_deadline_ns: int
    identity_ok: bool = True
    memory: int = 0
    memory_limit: int = 0


@dataclass(frozen=True)
class Track:
    """What the observer remembers of one process; times are its monotonic seconds.

    Attributes:
        sample: the last look.
        thread_since: since when the thread's beats have not changed.
        loop_since: since when the loop's have not.
        idle_since: begin of the time with no CPU to speak of.
        idle_ticks: CPU time used up to then.
        stopped_since: since when it is stopped, None while it is not.
        grace_until: no verdict before.
        looks: how often it was seen silent, not stopped and without CPU time, in a row.
        runnable: how often of these it wanted a CPU.
    """

    sample: Sample
    thread_since: float
    loop_since: float
    idle_since: float
    idle_ticks: int
    stopped_since: float | None
    grace_until: float
    looks: int = 0
    runnable: int = 0


def begin(sample: Sample, now: float, *, grace: float = 0.0) -> Track:
    """Start to watch a process; `grace` seconds pass before any verdict."""
    stopped = now if sample.state in _STOPPED else None
    return Track(sample, now, now, now, sample.cpu_ticks, stopped, now + grace)


def overslept(last: float, now: float, thresholds: Thresholds) -> bool:
    """Tell whether the gap between two rounds is the observer's own sleep, after which every silence is suspect."""
    return now - last > max(MIN_INTERVALS * thresholds.interval, thresholds.heartbeat_timeout / 3)


def observe(track: Track, sample: Sample, now: float) -> Track:
    """Return the track after one more look."""
    if sample.state == "D" or (track.stopped_since is not None and sample.state not in _STOPPED):
        # Slept in the kernel, or just continued: whatever it did not do meanwhile was not its fault, and it has had
        # no time yet.
        return begin(sample, now, grace=max(0.0, track.grace_until - now))
    beaten = sample.thread_beats != track.sample.thread_beats
    track = replace(
        track,
        sample=sample,
        thread_since=now if beaten else track.thread_since,
        loop_since=now if sample.loop_beats != track.sample.loop_beats else track.loop_since,
    )
    if sample.state in _STOPPED:
        return track if track.stopped_since is not None else replace(track, stopped_since=now)
    used = sample.cpu_ticks - track.idle_ticks
    noise = max(_NOISE_TICKS, _NOISE_SHARE * TICKS_PER_SECOND * (now - track.idle_since))
    looks, runnable = track.looks + 1, track.runnable + (sample.state == "R")
    starved = runnable >= max(_STARVED_LOOKS, _STARVED_SHARE * looks)
    if used > noise or starved:
        return replace(track, idle_since=now, idle_ticks=sample.cpu_ticks, looks=0, runnable=0)
    return replace(track, looks=0 if beaten else looks, runnable=0 if beaten else runnable)


def silence_allowed(sample: Sample, thresholds: Thresholds) -> float:
    """Return for how many seconds this process may be silent and idle."""
    timeout = thresholds.heartbeat_timeout
    return timeout if sample.thread_beats else max(_UNBORN_TIMES * timeout, _UNBORN_LEAST)


def decide(  # noqa: PLR0911  one return per row of the table
    track: Track, sample: Sample, now: float, thresholds: Thresholds
) -> Verdict | None:
    """Return the verdict on a process as of this sample, None while nothing is against it.

    Args:
        track: what is remembered, `sample` included.
        sample: the look that is judged.
        now: the observer's monotonic seconds; they are compared with the step's deadline too.
        thresholds: when to act.
    """
    if not sample.identity_ok:
        return None
    if sample.memory > sample.memory_limit * (1 + MEMORY_MARGIN):
        return Verdict.MEMORY_LIMIT  # no silence that may be the observer's own doing: it needs no grace
    if now < track.grace_until:
        return None
    if track.stopped_since is not None:
        return Verdict.STALE_STOPPED if now - track.stopped_since >= thresholds.heartbeat_timeout else None
    if sample.step_deadline_ns and now - sample.step_deadline_ns / _NANO > STEP_MARGIN:
        return Verdict.STEP_TIMEOUT
    if sample.state == "D":
        return None
    if now - max(track.thread_since, track.idle_since) >= silence_allowed(sample, thresholds):
        return Verdict.STALE_SILENT
    stall = thresholds.stall_timeout
    if stall is not None and sample.loop_beats > 0 and now - track.loop_since >= stall:
        return Verdict.STALLED
    return None
