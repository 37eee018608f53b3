"""Named points in the code where tests make a process die, stop or fail.

Off, a probe costs one call of an empty function. On (`PADDOCK_FAULTS=name:nth:action[,…]` at the start of a process), the nth
passing of the point `name` does `action`: `kill` (SIGKILL), `stop` (SIGSTOP), `exit` (status 3), `raise`, `sleep` (60 s), `eio`
(an `OSError`). With `PADDOCK_FAULT_DIR` passings are counted across processes, in a file each, so that the nth passing happens
once in a whole run; without it each process counts for itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

__all__ = ["POINTS", "reach", "silence"]

#: Every point, and what has just happened or is about to.
POINTS = {
    "server.migrate": "a migration has run, its transaction is open",
    "server.resume": "a lease of the last server was read, nothing is decided about its child",
    "server.start.before": "an instance is about to be stored",
    "server.start.inserted": "an instance's row is committed, nobody knows of it yet",
    "server.listening": "the last server's children may come back, nobody has looked whose they are",
    "server.takeover": "the last server's leases are read, nobody is adopted",
    "server.taken": "children are adopted, nothing is claimed",
    "server.claim.before": "an instance is about to be claimed",
    "server.claim.after": "the claim is committed, no process was asked for",
    "server.fork.sent": "the fork request is sent, the reply is not read",
    "server.born": "a child's pid is known, nothing was heard of it",
    "server.cancelled": "an instance's row says cancelled, its process lives",
    "server.signalled": "a signal is stored, the child does not know",
    "server.settle.before": "a child's death was seen, its lease still stands",
    "server.settle.after": "a child's lease is released",
    "server.drain": "the server stops, and has told its children",
    "server.checkpoint": "the write lock is held for a checkpoint",
    "server.room": "the WAL's file was made longer, nothing of it is valid",
    "forkserver.request": "a fork request was read",
    "forkserver.forked": "the child exists, the reply is unsent",
    "forkserver.reaped": "a dead child is reaped, the server was not told",
    "child.born": "the process exists, and has not taken its lease",
    "child.leased": "the lease names the process, which does not beat yet",
    "child.connect": "the child is about to connect to its server",
    "child.import": "the child has not imported its workflow",
    "child.plugins": "the child is about to set up its plugins",
    "child.ready": "plugins are set up, no step has begun",
    "child.step.begun": "a step's beginning is committed, its handler is not called",
    "child.step.returned": "a handler has returned, nothing is committed",
    "child.waiting": "a retry, a poll or a sleep waits for its time, all of it committed",
    "child.commit.inside": "a transaction is open, not committed",
    "child.commit.unsynced": "a transaction is committed and can be seen, and the disk need not have it",
    "child.commit.after": "a transaction is committed, the server does not know",
    "child.ended": "the terminal commit stands, the process has not exited",
    "child.teardown": "plugins are about to be torn down",
    "watchdog.boot": "the watchdog has started, and looked at nobody yet",
    "watchdog.killing": "a stale child's stacks are taken, no signal was sent",
    "watchdog.asked": "a stale child was sent SIGTERM, and has its grace",
    "watchdog.killed": "a stale child's tree is gone, the server was not told",
}


class FaultInjected(Exception):
    """Raised by a probe that was told to raise."""


_silent = False


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Let no point count in this process for a while: what runs is a rehearsal."""
    global _silent  # noqa: PLW0603  the probes are the process's
    _silent = True
    try:
        yield
    finally:
        _silent = False


def _count(name: str, counter: Counter[str], folder: str | None) -> int:
    if folder is None:
        counter[name] += 1
        return counter[name]
    descriptor = os.open(os.path.join(folder, name), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, b".")  # O_APPEND writes of one byte are atomic: the size counts the passings
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    finally:
        os.close(descriptor)


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # a signal to oneself may arrive a moment later
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "exit":
        os._exit(3)
    elif action == "sleep":
        time.sleep(60)
    elif action == "eio":
        raise OSError(errno.EIO, f"injected at {name}")
    else:
        raise FaultInjected(name)


def _armed(plan: str, folder: str | None) -> Callable[[str], None]:
    faults: dict[str, list[tuple[int, str]]] = {}
    for part in plan.split(","):
        name, nth, action = part.strip().split(":")
        if name not in POINTS:
            raise ValueError(f"PADDOCK_FAULTS names no point of ours: {name!r}; there are {', '.join(sorted(POINTS))}")
        faults.setdefault(name, []).append((int(nth), action))
    counter: Counter[str] = Counter()

    def reach_armed(name: str) -> None:
        if name in faults and not _silent:
            passed = _count(name, counter, folder)
            for nth, action in faults[name]:
                if nth == passed:
                    _act(name, action)

    return reach_armed


def _off(name: str) -> None:
    """Do nothing."""


#: Pass the point `name`.
reach: Callable[[str], None] = (
    _armed(os.environ["PADDOCK_FAULTS"], os.environ.get("PADDOCK_FAULT_DIR"))
    if os.environ.get("PADDOCK_FAULTS")
    else _off
)
