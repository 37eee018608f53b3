"""One child as the server knows it, and what can be read of how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field

from ...ipc.connection import Connection
from ...ipc.messages import Exited, Killed
from ...watchdog.beats import SlotView, Verdict
from ...watchdog.identity import ProcessIdentity
from ..base.causes import Cause, Facts, judge, signal_name, tell
from ..base.records import ErrorInfo, LogSource
from ..child.output import read_leftover, tail
from ..child.spec import EXIT_GIVEN_BACK, EXIT_LOST_GROUND, EXIT_ORPHANED, EXIT_STEP_TIMEOUT, LEAVING, output_paths
from ..store.admission import Death, Held
from ..store.ops import Lease

__all__ = ["Child", "describe_death", "has_left_nothing", "remove_files"]

_TAIL = 64 * 1024
_LEFTOVER = 1024 * 1024
_PAUSE = 0.5
_PLANNED = frozenset({EXIT_GIVEN_BACK, EXIT_ORPHANED, EXIT_LOST_GROUND})
_VERDICTS = {
    Verdict.STALE_SILENT: Cause.SILENT,
    Verdict.STALE_STOPPED: Cause.STOPPED,
    Verdict.STALLED: Cause.STALLED,
    Verdict.STEP_TIMEOUT: Cause.STEP_TIMEOUT,
    Verdict.MEMORY_LIMIT: Cause.MEMORY_LIMIT,
}


@dataclass(slots=True, eq=False)
class Child:
    """A process that holds a lease, from the claim to the settlement."""

    lease: Lease
    instance_id: str
    workflow_name: str
    slot: int
    identity: ProcessIdentity | None = None
    connection: Connection | None = None
    adopted: bool = False
    tasks_group: str | None = None
    ready: bool = False
    draining: bool = False
    at_rest: bool = False
    ending: str | None = None
    ending_since: float | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    exited: asyncio.Future[Exited] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    killed: asyncio.Future[Killed] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    stale: dict[str, object] | None = None
    stop_error: ErrorInfo | None = None

    @property
    def exit_report(self) -> Exited | None:
        """Return what the fork server told of its end, None where it did not (yet)."""
        exited = self.exited
        return exited.result() if exited.done() and not exited.cancelled() and exited.exception() is None else None


@dataclass(frozen=True, slots=True)
class _ExitFacts:
    """What the kernel told the process's parent; `max_rss` in bytes."""

    exit_code: int | None = None
    signal: int | None = None
    max_rss: int = 0
    user_seconds: float | None = None
    system_seconds: float | None = None

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time in all."""
        return None if self.user_seconds is None else round(self.user_seconds + (self.system_seconds or 0.0), 3)


def describe_death(
    child: Child, view: SlotView, run_dir: str, held: Held | None, *, planned: bool, silent: bool = False
) -> Death:
    """Gather what is known of a dead child: exit code or signal, the watchdog's verdict, stacks, the end of its output.

    `held` gives the positions up to which its output is kept already; `silent` says that it has left nothing to read.
    """
    exit_facts = _exit_facts(child, view)
    out_path, err_path = output_paths(run_dir, child.lease.instance, child.lease.epoch)
    killed = child.killed.result() if child.killed.done() and not child.killed.cancelled() else None
    trace = os.path.join(run_dir, "trace", f"{view.pid}.trace")
    printed, complained, traced = (
        ("", "", "") if silent else (tail(path, _TAIL) for path in (out_path, err_path, trace))
    )
    stack = (killed.stack if killed is not None else None) or traced or None
    facts = _facts(child, view, exit_facts)
    error = child.stop_error or ErrorInfo(
        type="ProcessDied",
        message=tell(facts),
        cause=judge(facts),
        step=view.step if view.step and not view.step.startswith(LEAVING) else None,
        signal=facts.signal,
        exit_code=facts.exit_code,
        stack=stack,
        output=printed or None,
        error_output=complained or None,
        max_rss=exit_facts.max_rss or None,
        peak_memory=view.peak_memory or None,
        cpu_seconds=facts.cpu_seconds,
        user_seconds=exit_facts.user_seconds,
        system_seconds=exit_facts.system_seconds,
    )
    code = _meant(view, exit_facts.exit_code)
    step_timed_out = code == EXIT_STEP_TIMEOUT or view.verdict is Verdict.STEP_TIMEOUT
    return Death(
        planned=planned or step_timed_out or code in _PLANNED,
        pause=_PAUSE if code == EXIT_LOST_GROUND else 0.0,
        step_timed_out=step_timed_out,
        error=error,
        fatal=child.stop_error is not None,
        leftover=_leftover(out_path, err_path, held),
        pid=view.pid or None,
        verdicts=_told(child, view, stack),
    )


def _leftover(out_path: str, err_path: str, held: Held | None) -> tuple[tuple[LogSource, str], ...]:
    if held is None:
        return ()
    printed: tuple[tuple[LogSource, str, int], ...] = (
        ("stdout", out_path, held.out_position),
        ("stderr", err_path, held.err_position),
    )
    return tuple(
        (source, line) for source, path, position in printed for line in read_leftover(path, position, _LEFTOVER)
    )


def _told(child: Child, view: SlotView, stack: str | None) -> tuple[tuple[str, dict[str, object]], ...]:
    """Return the events of what the watchdog has done."""
    if view.verdict is Verdict.NONE:
        return ()
    facts: dict[str, object] = {"pid": view.pid, "reason": _VERDICTS[view.verdict].value}
    stale = () if child.stale is not None else (("workflow.watchdog.stale", {**facts, "timeout": None}),)
    return (*stale, ("workflow.watchdog.killed", {**(child.stale or {}), **facts, "stack": stack}))


def _facts(child: Child, view: SlotView, exit_facts: _ExitFacts) -> Facts:
    since = child.stale.get("silent_for") if child.stale is not None else None
    timed_out = _meant(view, exit_facts.exit_code) == EXIT_STEP_TIMEOUT
    return Facts(
        pid=view.pid,
        exit_code=exit_facts.exit_code,
        signal=signal_name(exit_facts.signal),
        verdict=Cause.STEP_TIMEOUT if timed_out else _VERDICTS.get(view.verdict),
        cpu_seconds=exit_facts.cpu_seconds,
        cpu_limit=view.cpu_limit_us / 1e6,
        memory_limit=view.memory_limit,
        peak_memory=view.peak_memory,
        since=since if isinstance(since, float) else None,
    )


def _meant(view: SlotView, exit_code: int | None) -> int | None:
    """Return the code with which the process left by our own doing, whether its parent told of it or not."""
    if view.step.startswith(LEAVING):
        return int(view.step.removeprefix(LEAVING))
    return (
        exit_code if exit_code == EXIT_LOST_GROUND and not view.thread_beats else None
    )  # it did not get as far as a slot


def _exit_facts(child: Child, view: SlotView) -> _ExitFacts:
    if (found := child.exit_report) is not None:
        return _ExitFacts(
            found.exit_code, found.signal, found.max_rss, round(found.user_time, 3), round(found.system_time, 3)
        )
    if view.exit_recorded:
        return _ExitFacts(
            view.exit_code, view.signal, view.max_rss, round(view.user_us / 1e6, 3), round(view.sys_us / 1e6, 3)
        )
    return _ExitFacts()


def has_left_nothing(run_dir: str, lease: Lease, pid: int) -> bool:
    """Tell whether there is nothing to read of an execution: it printed nothing, and nobody took its stacks. So it is of most."""
    return not any(_size(path) for path in _files(run_dir, lease, pid))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _files(run_dir: str, lease: Lease, pid: int) -> tuple[str, ...]:
    return (*output_paths(run_dir, lease.instance, lease.epoch), os.path.join(run_dir, "trace", f"{pid}.trace"))


def remove_files(run_dir: str, lease: Lease, pid: int) -> None:
    """Remove what an execution left in the run directory."""
    for path in _files(run_dir, lease, pid):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
