"""The table of an instance's life: which status may follow which, and which event tells of it.

`store/instances.py:move` is the one function that changes a status; it asks this table. The diagram in the documents is drawn
from it. Everything that decides a status lives here.
"""

from __future__ import annotations

from ..base.errors import InvalidTransition
from ..base.records import TERMINAL, Status

__all__ = ["ENDING_EVENT", "TRANSITIONS", "check_move"]

_P, _R, _S, _W = Status.PENDING, Status.RUNNING, Status.SLEEPING, Status.WAITING
_A, _B = Status.PAUSED, Status.BLOCKED
_ENDS = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT})

#: From each status, those that may follow it.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    # claimed by the dispatcher; held; refused; cancelled or out of time in the queue
    _P: frozenset({_R, _A, _B, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    # ends, suspends, or goes back to the queue after a crash
    _R: frozenset({_P, _S, _W, _A, _B}) | _ENDS,
    # due, held, cancelled, out of time
    _S: frozenset({_P, _A, _B, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    # signalled or due, held, cancelled, out of time
    _W: frozenset({_P, _A, _B, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    # released, cancelled, out of time
    _A: frozenset({_P, _B, Status.CANCELLED, Status.TIMED_OUT}),
    # tried again, cancelled, out of time
    _B: frozenset({_P, _A, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    # the ends; `retry` alone opens a failed instance again (`steering.py:reopen`), and says so by an event of its own
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.TIMED_OUT: frozenset(),
}

#: The one terminal event of each end.
ENDING_EVENT = {
    Status.COMPLETED: "workflow.completed",
    Status.FAILED: "workflow.failed",
    Status.CANCELLED: "workflow.cancelled",
    Status.TIMED_OUT: "workflow.timed_out",
}


def check_move(source: Status, target: Status) -> None:
    """Refuse a change of status that the table does not hold.

    Raises:
        InvalidTransition: `target` may not follow `source`.
    """
    if target not in TRANSITIONS[source]:
        kind = "has ended as" if source in TERMINAL else "is"
        raise InvalidTransition(f"an instance that {kind} {source.value} cannot become {target.value}")
