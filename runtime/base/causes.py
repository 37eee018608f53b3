"""Why a child died: the verdicts that `ErrorInfo.cause` can hold, and how each reads. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Cause", "Facts", "judge", "signal_name", "tell"]


class Cause(StrEnum):
    """Why a process died, as far as the kernel, the watchdog and its own last words tell."""

    FATAL_SIGNAL = "fatal_signal"  # its own code did what the processor or the C library forbids
    EXIT = "exit"  # it left in the middle of its workflow
    MEMORY_LIMIT = "memory_limit"  # it held more than `memory_limit`; the watchdog ended it
    CPU_LIMIT = "cpu_limit"  # it had used `cpu_limit`; the kernel ended it
    KILLED = "killed"  # a signal from outside
    SILENT = "silent"  # no heartbeat and no CPU time: a deadlock; the watchdog ended it
    STOPPED = "stopped"  # stopped and not continued; the watchdog ended it
    STALLED = "stalled"  # its event loop stood still; the watchdog ended it
    STEP_TIMEOUT = "step_timeout"  # a step outran its timeout and could not be stopped otherwise
    UNKNOWN = "unknown"  # nobody saw it die


#: Signals that a process earns by what its own code does.
_FAULTS = {
    "SIGSEGV": "a segmentation fault: C code touched memory that is not its own",
    "SIGBUS": "a bus error: C code touched memory that has no page behind it",
    "SIGFPE": "an arithmetic fault in C code",
    "SIGILL": "an instruction that this processor does not have",
    "SIGABRT": "abort(): C code gave up",
    "SIGSYS": "a system call that is forbidden here",
    "SIGTRAP": "a breakpoint that no debugger took",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a dead process.

    Attributes:
        pid: the process.
        exit_code: its exit code; None if a signal ended it, or nobody knows.
        signal: the signal's name, or None.
        verdict: the watchdog's, as a cause; None where it had nothing to do with it.
        cpu_seconds: CPU time that it used; None where nobody counted.
        cpu_limit: seconds of CPU time that it may use; 0 for any.
        memory_limit: bytes that its tree may hold; 0 for any.
        peak_memory: the most that the watchdog saw its tree hold, bytes.
        since: for how many seconds that lasted for which the watchdog ended it; None where that is not known.
    """

    pid: int
    exit_code: int | None = None
    signal: str | None = None
    verdict: Cause | None = None
    cpu_seconds: float | None = None
    cpu_limit: float = 0.0
    memory_limit: int = 0
    peak_memory: int = 0
    since: float | None = None


def judge(facts: Facts) -> Cause:
    """Return why a process died."""
    if facts.verdict is not None:
        return facts.verdict
    if facts.signal is None:
        return Cause.UNKNOWN if facts.exit_code is None else Cause.EXIT
    # The kernel kills who goes on after SIGXCPU: then the limit shows in the time only.
    spent = facts.signal == "SIGKILL" and facts.cpu_limit and (facts.cpu_seconds or 0.0) >= facts.cpu_limit
    if facts.signal == "SIGXCPU" or spent:
        return Cause.CPU_LIMIT
    return Cause.FATAL_SIGNAL if facts.signal in _FAULTS else Cause.KILLED


def tell(facts: Facts) -> str:
    """Return in one sentence how a process died."""
    cause, who = judge(facts), f"process {facts.pid}" if facts.pid else "its process"
    lasted = f" for {facts.since:.0f}s" if facts.since is not None and facts.since >= 1 else ""
    killed = f"{who} was killed by {facts.signal} from outside"
    if facts.signal == "SIGKILL":
        killed += ": by a person or a program, or by the kernel because the machine had no memory left"
    left = f"{who} exited with code {facts.exit_code} in the middle of its workflow"
    return {
        Cause.FATAL_SIGNAL: f"{who} crashed with {facts.signal} ({_FAULTS.get(facts.signal or '')})",
        Cause.EXIT: f"{left} (os._exit in a handler, or C code that calls exit)",
        Cause.MEMORY_LIMIT: f"{who} was ended because it held {_mb(facts.peak_memory)}, with all that it had started; "
        f"its memory_limit is {_mb(facts.memory_limit)}",
        Cause.CPU_LIMIT: f"{who} was ended because it had used its cpu_limit of {facts.cpu_limit:g}s",
        Cause.KILLED: killed,
        Cause.SILENT: f"{who} hung, without a heartbeat and without CPU time{lasted} (a deadlock?), and the watchdog ended it",
        Cause.STOPPED: f"{who} was stopped{lasted} (SIGSTOP, a debugger), and the watchdog ended it",
        Cause.STALLED: f"{who} did not turn its event loop{lasted}, and the watchdog ended it (stall_timeout)",
        Cause.STEP_TIMEOUT: f"{who} was ended because a step outran its timeout and could not be stopped otherwise",
        Cause.UNKNOWN: f"{who} died while no server looked",
    }[cause]


def _mb(size: int) -> str:
    return f"{size / 2**20:,.0f} MB"


def signal_name(number: int | None) -> str | None:
    """Return a signal's name; None for None."""
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
