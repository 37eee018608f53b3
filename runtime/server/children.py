"""One child as the server knows it, and what can be read of how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field

from ...ipc.connection import Connection
from ...ipc.messages import Exited, Killed
from ...watchdog.beats import SlotView, Verdict
from ...watchdog.identity import ProcessIdentity
from ..base.records import ErrorInfo, LogSource
from ..child.output import read_leftover, tail
from ..child.spec import EXIT_GIVEN_BACK, EXIT_LOST_GROUND, EXIT_ORPHANED, EXIT_STEP_TIMEOUT, LEAVING, output_paths
from ..store.admission import Death, Held
from ..store.ops import Lease

__all__ = ["Child", "describe_death"]

_TAIL = 64 * 1024
_LEFTOVER = 1024 * 1024
_PAUSE = 0.5
_PLANNED = frozenset({EXIT_GIVEN_BACK, EXIT_ORPHANED, EXIT_LOST_GROUND})
_VERDICTS = {
    Verdict.STALE_SILENT: "silent: no heartbeat and no CPU use",
    Verdict.STALE_STOPPED: "stopped",
    Verdict.STALLED: "stalled: its event loop does not turn",
    Verdict.STEP_TIMEOUT: "a step outran its timeout",
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
    ready: bool = False
    draining: bool = False
    at_rest: bool = False
    ending: str | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    exited: asyncio.Future[Exited] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    killed: asyncio.Future[Killed] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    stale: dict[str, object] | None = None
    stop_error: ErrorInfo | None = None


def describe_death(child: Child, view: SlotView, run_dir: str, held: Held | None, *, planned: bool) -> Death:
    """Gather what is known of a dead child: exit code or signal, the watchdog's verdict, stacks, the end of its output.

    `held` gives the positions up to which its output is kept already.
    """
    exit_code, number, rss, cpu = _exit_facts(child, view)
    out_path, err_path = output_paths(run_dir, child.lease.instance, child.lease.epoch)
    leftover: tuple[tuple[LogSource, str], ...] = ()
    if held is not None:
        printed: tuple[tuple[LogSource, str, int], ...] = (
            ("stdout", out_path, held.out_position),
            ("stderr", err_path, held.err_position),
        )
        leftover = tuple(
            (source, line) for source, path, position in printed for line in read_leftover(path, position, _LEFTOVER)
        )
    verdict = Verdict(view.verdict)
    killed = child.killed.result() if child.killed.done() and not child.killed.cancelled() else None
    trace = os.path.join(run_dir, "trace", f"{view.pid}.trace")
    stack = (killed.stack if killed is not None else None) or tail(trace, _TAIL) or None
    name = _signal_name(number)
    error = child.stop_error or ErrorInfo(
        type="ProcessDied",
        message=_sentence(view.pid, exit_code, name, verdict),
        step=view.step if view.step and not view.step.startswith(LEAVING) else None,
        signal=name,
        exit_code=exit_code,
        stack=stack,
        output=(tail(out_path, _TAIL // 2) + tail(err_path, _TAIL // 2)) or None,
        max_rss=rss or None,
        cpu_seconds=cpu,
    )
    verdicts: list[tuple[str, dict[str, object]]] = []
    if verdict is not Verdict.NONE:
        facts: dict[str, object] = {"pid": view.pid, "reason": _VERDICTS[verdict]}
        if child.stale is None:
            verdicts.append(("workflow.watchdog.stale", {**facts, "timeout": None}))
        verdicts.append(("workflow.watchdog.killed", {**(child.stale or {}), **facts, "stack": stack}))
    code = _meant(view, exit_code)
    step_timed_out = code == EXIT_STEP_TIMEOUT or verdict is Verdict.STEP_TIMEOUT
    return Death(
        planned=planned or step_timed_out or code in _PLANNED,
        pause=_PAUSE if code == EXIT_LOST_GROUND else 0.0,
        step_timed_out=step_timed_out,
        error=error,
        fatal=child.stop_error is not None,
        leftover=leftover,
        verdicts=tuple(verdicts),
    )


def _meant(view: SlotView, exit_code: int | None) -> int | None:
    """Return the code with which the process left by our own doing, whether its parent told of it or not."""
    if view.step.startswith(LEAVING):
        return int(view.step.removeprefix(LEAVING))
    return (
        exit_code if exit_code == EXIT_LOST_GROUND and not view.thread_beats else None
    )  # it did not get as far as a slot


def _exit_facts(child: Child, view: SlotView) -> tuple[int | None, int | None, int, float | None]:
    if child.exited.done() and not child.exited.cancelled() and child.exited.exception() is None:
        message = child.exited.result()
        return message.exit_code, message.signal, message.max_rss, round(message.user_time + message.system_time, 3)
    if view.exit_recorded:
        return view.exit_code, view.signal, view.max_rss, round((view.user_us + view.sys_us) / 1e6, 3)
    return None, None, 0, None


def _signal_name(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _sentence(pid: int, exit_code: int | None, name: str | None, verdict: Verdict) -> str:
    if verdict is not Verdict.NONE:
        return f"process {pid} was ended by the watchdog: {_VERDICTS[verdict]}"
    if name is not None:
        return f"process {pid} was killed by {name}"
    if exit_code is None:
        return f"process {pid} died while no server looked"
    if exit_code == 0:
        return f"process {pid} exited with code 0 before its workflow had ended (os._exit or sys.exit in a handler?)"
    return f"process {pid} exited with code {exit_code}"


def remove_files(run_dir: str, lease: Lease, pid: int) -> None:
    """Remove what an execution left in the run directory."""
    for path in (*output_paths(run_dir, lease.instance, lease.epoch), os.path.join(run_dir, "trace", f"{pid}.trace")):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
