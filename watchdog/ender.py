"""End one stale process, as a thread of its own: a kill that hangs must not stop the watching of others.

The order is what others rely on: verdict into the slot (whoever settles the exit knows it was us), `Stale` to the
server and its acknowledgement (`.stale` is stored before the death is), a last look (who was continued meanwhile is
spared), stacks, the tree's end, `Killed`. Without a server nothing is waited for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..ipc.messages import Killed, Stale
from .beats import BeatTable, Verdict
from .identity import ProcessHandle, is_alive
from .stacks import ask_or_take_stacks, take_stacks, trace_path_of
from .tree import end_tree, marker_of

if TYPE_CHECKING:
    from .hub import HubLine
    from .observer import Finding, Observer

__all__ = ["REASONS", "end_stale"]

#: The words of the messages for each verdict.
REASONS = {
    Verdict.STALE_SILENT: "silent",
    Verdict.STALE_STOPPED: "stopped",
    Verdict.STALLED: "stalled",
    Verdict.STEP_TIMEOUT: "step_timeout",
    Verdict.MEMORY_LIMIT: "memory_limit",
}

_ACK_TIMEOUT = _ANSWER_TIMEOUT = 1.0
_EXIT_TIMEOUT = 0.5
_POLL_INTERVAL = 0.02
# Who can still run gets the chance to end by itself; a stopped process hears nothing, a step's time is up, and who
# holds too much memory would go on to take it.
_ASKED_FIRST = frozenset({Verdict.STALE_SILENT, Verdict.STALLED})


def end_stale(
    finding: Finding,
    *,
    table: BeatTable,
    hub: HubLine,
    observer: Observer,
    trace_dir: str,
    reach: Callable[[str], None],
) -> bool:
    """End the process of a finding with its tree. Blocks.

    Returns False when it was spared, died by itself or could not be ended.
    """
    view, identity = finding.view, finding.identity
    handle = ProcessHandle.open(identity)
    if handle is None:
        return False
    with handle:
        table.set_verdict(view.slot, finding.verdict)
        _announce(finding, hub)
        if not observer.still_stale(finding, time.monotonic()):
            _take_back(finding, table)
            return False
        stack = _stacks_of(finding, handle, table, trace_dir)
        reach("watchdog.killing")
        grace = observer.thresholds.kill_grace if finding.verdict in _ASKED_FIRST else 0.0
        asked = _end_tree(finding, table, grace, reach)
        if is_alive(identity):
            return False  # it sleeps in the kernel; the next round finds it again
        reach("watchdog.killed")
        number = _signal_of(finding, table, asked=asked)
    _report(finding, hub, stack, number)
    return True


def _stacks_of(finding: Finding, handle: ProcessHandle, table: BeatTable, trace_dir: str) -> str | None:
    identity, state, trace = finding.identity, finding.state, trace_path_of(trace_dir, finding.identity.pid)
    if finding.verdict is Verdict.STALLED:  # its loop stands still, its heart beats
        return ask_or_take_stacks(table.path, handle, identity, trace, state=state, patience=_ANSWER_TIMEOUT)
    return take_stacks(handle, identity, trace, state=state)


def _end_tree(finding: Finding, table: BeatTable, grace: float, reach: Callable[[str], None]) -> bool:
    """End the tree; return whether its root went when it was only asked to."""
    view, begun = finding.view, time.monotonic()
    marker = marker_of(table.path, view.instance_id, view.epoch)
    end_tree(finding.identity, marker=marker, grace=grace, asked=lambda: reach("watchdog.asked"))
    return grace > 0 and time.monotonic() - begun < grace


def _report(finding: Finding, hub: HubLine, stack: str | None, number: int | None) -> None:
    view, identity = finding.view, finding.identity
    hub.send(
        Killed(
            slot=view.slot,
            pid=identity.pid,
            start_time=identity.start_time,
            instance_id=view.instance_id,
            epoch=view.epoch,
            reason=REASONS[finding.verdict],
            stack=stack,
            signal=number,
        )
    )


def _announce(finding: Finding, hub: HubLine) -> None:
    view = finding.view
    connected = hub.connected
    acknowledged = hub.expect_ack(view.slot)
    hub.send(
        Stale(
            slot=view.slot,
            pid=view.pid,
            start_time=view.start_time,
            instance_id=view.instance_id,
            epoch=view.epoch,
            reason=REASONS[finding.verdict],
            silent_for=finding.silent_for,
            timeout=finding.timeout,
        )
    )
    if connected:
        acknowledged.wait(_ACK_TIMEOUT)
    hub.forget_ack(view.slot)


def _take_back(finding: Finding, table: BeatTable) -> None:
    view = table.read(finding.view.slot)
    if (view.pid, view.start_time) == (finding.identity.pid, finding.identity.start_time):
        table.set_verdict(view.slot, Verdict.NONE)


def _signal_of(finding: Finding, table: BeatTable, *, asked: bool) -> int | None:
    """Return the signal that the parent saw.

    Where no parent tells in time it is SIGKILL, or unknown for a process that ended while it was only asked to.
    """
    deadline = time.monotonic() + _EXIT_TIMEOUT
    while time.monotonic() < deadline:
        view = table.read(finding.view.slot)
        if (view.pid, view.start_time) != (finding.identity.pid, finding.identity.start_time):
            break
        if view.exit_recorded:
            return view.signal
        time.sleep(_POLL_INTERVAL)
    return None if asked else int(signal.SIGKILL)
