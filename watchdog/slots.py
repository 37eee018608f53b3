"""What one slot of the beat table holds, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "CPU_LIMIT",
    "EPOCH",
    "EXIT_CODE",
    "EXIT_RECORDED",
    "ID_AT",
    "ID_SIZE",
    "LAST_BEAT",
    "LOOP_BEATS",
    "MAX_RSS",
    "MEMORY_LIMIT",
    "ON_DISK",
    "PEAK_MEMORY",
    "PID",
    "PROGRESS",
    "SIGNAL",
    "STACKS_ASKED",
    "STACKS_WRITTEN",
    "START_TIME",
    "STATE",
    "STEP_AT",
    "STEP_DEADLINE",
    "STEP_SIZE",
    "SYS_US",
    "TEXT_SEQUENCE",
    "THREAD_BEATS",
    "USER_US",
    "VERDICT",
    "SlotView",
    "Verdict",
    "pack",
    "signed",
    "unsigned",
]

_NO_NUMBER = 2**63  # an exit code or a signal that is not known
_MASK = 2**64 - 1

# Words of a slot.
(
    STATE,
    PID,
    START_TIME,
    EPOCH,
    THREAD_BEATS,
    LOOP_BEATS,
    PROGRESS,
    STEP_DEADLINE,
    LAST_BEAT,
    VERDICT,
    EXIT_RECORDED,
    EXIT_CODE,
    SIGNAL,
    MAX_RSS,
    USER_US,
    SYS_US,
    TEXT_SEQUENCE,
    STACKS_WRITTEN,
) = range(18)
# Texts of a slot, in bytes from its beginning: the length in one byte, then UTF-8.
ID_AT, ID_SIZE = 144, 200
STEP_AT, STEP_SIZE = 352, 119
# Words behind the texts.
MEMORY_LIMIT, PEAK_MEMORY, CPU_LIMIT, STACKS_ASKED, ON_DISK = 59, 60, 61, 62, 63


class Verdict(IntEnum):
    """Why the watchdog ends a process; it sets the verdict before it acts, whoever settles the exit reads it."""

    NONE = 0  # nothing against it
    STALE_SILENT = 1  # no beat and no CPU time for heartbeat_timeout
    STALE_STOPPED = 2  # stopped (SIGSTOP, a debugger) for heartbeat_timeout
    STALLED = 3  # its event loop did not turn for stall_timeout
    STEP_TIMEOUT = 4  # a step is past its deadline and the process did not end it itself
    MEMORY_LIMIT = 5  # it holds more memory than its workflow may, with all that it has started


@dataclass(frozen=True, slots=True)
class SlotView:
    """What one slot said at one moment.

    Attributes:
        slot: its number.
        used: whether it is claimed.
        pid: its process, 0 before one is assigned.
        start_time: see `ProcessIdentity`.
        epoch: the lease that the process runs under.
        instance_id: the instance.
        thread_beats: count of the beat thread's beats.
        loop_beats: count of the event loop's beats, 0 before the loop runs.
        progress: count of commits.
        step: the step that runs, or an empty text.
        step_deadline_ns: CLOCK_MONOTONIC nanoseconds at which that step should be over, 0 for none.
        last_beat_ns: CLOCK_MONOTONIC nanoseconds of the last beat by the child's own word, for display.
        verdict: the watchdog's.
        exit_recorded: whether the following fields hold.
        exit_code: its exit code, None if a signal ended it.
        signal: the signal that ended it, or None.
        max_rss: the largest resident set in bytes.
        user_us: CPU time in user mode, microseconds.
        sys_us: CPU time in the kernel, microseconds.
        memory_limit: bytes that its tree may hold, 0 for any.
        peak_memory: the most that the watchdog saw its tree hold, where there is a limit.
        cpu_limit_us: CPU time that it may use, microseconds, 0 for any.
    """

    slot: int
    used: bool
    pid: int
    start_time: int
    epoch: int
    instance_id: str
    thread_beats: int
    loop_beats: int
    progress: int
    step: str
    step_deadline_ns: int
    last_beat_ns: int
    verdict: Verdict
    exit_recorded: bool
    exit_code: int | None
    signal: int | None
    max_rss: int
    user_us: int
    sys_us: int
    memory_limit: int = 0
    peak_memory: int = 0
    cpu_limit_us: int = 0


def pack(text: str, size: int) -> bytes:
    """Return length and UTF-8 of the text, cut between characters so that it fits."""
    data = text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore").encode()
    return bytes([len(data)]) + data


def signed(word: int) -> int | None:
    """Return the number that `unsigned` stored."""
    if word == _NO_NUMBER:
        return None
    return word - 2**64 if word > _NO_NUMBER else word


def unsigned(number: int | None) -> int:
    """Return a number, negative or None too, as a 64-bit word."""
    return _NO_NUMBER if number is None else number & _MASK
