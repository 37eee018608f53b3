"""Look at every assigned slot once per round and say who is stale."""

from __future__ import annotations

from dataclasses import dataclass

from .beats import BeatTable, SlotView, Verdict
from .identity import ProcessIdentity, boot_id
from .memory import tree_memory
from .policy import MIN_INTERVALS, Sample, Thresholds, Track, begin, decide, observe, overslept, silence_allowed
from .procstat import read_stat, thread_states

__all__ = ["Finding", "Observer", "take_sample"]

_Key = tuple[int, int, int]  # slot, pid, start time: a slot that changed hands is another process
_GONE = frozenset("ZXx")


@dataclass(frozen=True)
class Finding:
    """A stale process.

    Attributes:
        view: its slot as it was judged.
        identity: the process.
        verdict: what it is found guilty of.
        track: what was remembered of it.
        state: its state letter.
        silent_for: seconds since what the verdict is about.
        timeout: the threshold in seconds that it passed; 0 for a step's deadline, which is the child's own, and for memory.
    """

    view: SlotView
    identity: ProcessIdentity
    verdict: Verdict
    track: Track
    state: str
    silent_for: float
    timeout: float


def take_sample(view: SlotView, boot: str, *, silent: bool) -> Sample:
    """Look at the process of a slot now.

    Args:
        view: the slot.
        boot: the boot that the table belongs to.
        silent: whether to look at all threads. The state of a process is that of its main thread, but it may be
            another one that holds the GIL and waits for the disk or for a CPU.
    """
    state, ticks, identity_ok = "X", 0, False
    try:
        stat = read_stat(view.pid)
        identity_ok = stat.start_time == view.start_time and stat.state not in _GONE and boot == boot_id()
        state, ticks = stat.state, stat.cpu_ticks
    except ProcessLookupError:
        pass
    if identity_ok and silent and state not in "TtDR":
        states = thread_states(view.pid)
        state = "D" if "D" in states else "R" if "R" in states else state
    memory = tree_memory(view.pid) if identity_ok and view.memory_limit else 0
    return Sample(
        view.thread_beats,
        view.loop_beats,
        ticks,
        state,
        view.step_deadline_ns,
        identity_ok,
        memory,
        view.memory_limit,
    )


class Observer:
    """Remember every process between rounds. For one thread.

    Attributes:
        thresholds: when to act; may be replaced between rounds.
    """

    def __init__(self, table: BeatTable, thresholds: Thresholds) -> None:
        """Watch the processes of this table."""
        self.thresholds = thresholds
        self._table = table
        self._tracks: dict[_Key, Track] = {}
        self._last: float | None = None

    def scan(self, now: float) -> list[Finding]:
        """Look at all processes and return those that are stale.

        A stale one is returned by each round until it is gone.

        Args:
            now: CLOCK_MONOTONIC in seconds.
        """
        # The first round has not seen anybody before either: a new watchdog gives the same grace as one that overslept.
        fresh = self._last is None or overslept(self._last, now, self.thresholds)
        self._last = now
        tracks: dict[_Key, Track] = {}
        findings: list[Finding] = []
        for slot in self._table.used():
            view = self._table.read(slot)
            if not view.used or not view.pid or view.exit_recorded:
                continue
            key = (slot, view.pid, view.start_time)
            track = self._advance(None if fresh else self._tracks.get(key), view, now, fresh=fresh)
            if track is None:
                continue
            tracks[key] = track
            finding = self._judge(view, track, now)
            if finding is not None:
                findings.append(finding)
        self._tracks = tracks
        return findings

    def still_stale(self, finding: Finding, now: float) -> bool:
        """Look again at a process that was found stale. Any thread may call.

        It may have been continued, have come to life or be gone by now.
        """
        view = self._table.read(finding.view.slot)
        if (view.pid, view.start_time, view.epoch) != (
            finding.identity.pid,
            finding.identity.start_time,
            finding.view.epoch,
        ):
            return False
        sample = take_sample(view, self._table.boot_id, silent=True)
        if not sample.identity_ok:
            return False
        track = observe(finding.track, sample, now)
        return decide(track, sample, now, self.thresholds) is not None

    def _advance(self, track: Track | None, view: SlotView, now: float, *, fresh: bool) -> Track | None:
        boot = self._table.boot_id
        silent = track is not None and now - track.thread_since > MIN_INTERVALS * self.thresholds.interval / 2
        sample = take_sample(view, boot, silent=silent)
        if not sample.identity_ok:
            return None
        if sample.memory:
            self._table.saw_memory(view.slot, sample.memory)
        if track is None:
            return begin(sample, now, grace=MIN_INTERVALS * self.thresholds.interval if fresh else 0.0)
        return observe(track, sample, now)

    def _judge(self, view: SlotView, track: Track, now: float) -> Finding | None:
        verdict = decide(track, track.sample, now, self.thresholds)
        if verdict is None:
            return None
        since, timeout = (now, 0.0) if verdict is Verdict.MEMORY_LIMIT else self._measure(verdict, track)
        identity = ProcessIdentity(view.pid, view.start_time, self._table.boot_id)
        return Finding(view, identity, verdict, track, track.sample.state, max(0.0, now - since), timeout)

    def _measure(self, verdict: Verdict, track: Track) -> tuple[float, float]:
        """Return since when, and which threshold was passed."""
        if verdict is Verdict.STALE_STOPPED and track.stopped_since is not None:
            return track.stopped_since, self.thresholds.heartbeat_timeout
        if verdict is Verdict.STALLED:
            return track.loop_since, self.thresholds.stall_timeout or 0.0
        if verdict is Verdict.STEP_TIMEOUT:
            return track.sample.step_deadline_ns / 1e9, 0.0
        return max(track.thread_since, track.idle_since), silence_allowed(track.sample, self.thresholds)
