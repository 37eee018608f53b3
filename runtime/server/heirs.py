"""Helpers that a server left to the next one, and that are this process's own children: somebody has to reap them.

After `stop(handover=True)` the watchdog and the fork server live on. Mostly their parent ends too, and the system's first process reaps
them. Where the next server runs in the same process (started again, or after the process has executed itself anew, which keeps its pid
and its children), they would stay zombies when they end. So they are noted, the note survives an exec in the environment, and the next
server waits for them. A note holds the start time too: a pid that is another process by then is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess

from ...watchdog.identity import ProcessIdentity, boot_id, identify
from .exits import ended

__all__ = ["VARIABLE", "Heirs", "bequeath", "leave"]

#: The environment variable that carries the note through an exec; it is taken out of the environment where it is read.
VARIABLE = "PADDOCK_HEIRS"

_left: set[tuple[int, int]] = set()  # a child belongs to the process, so this note does too


def leave(process: subprocess.Popen[bytes]) -> None:
    """Let a helper live on without us; whoever runs the next server here reaps it."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        identity = identify(process.pid)
        _left.add((identity.pid, identity.start_time))
    process.returncode = 0  # nobody will ask: a Popen that is forgotten while its process runs complains


def bequeath() -> None:
    """Put the note into the environment, right before an exec."""
    if _left:
        os.environ[VARIABLE] = ",".join(f"{pid}:{start_time}" for pid, start_time in sorted(_left))


def _inherit() -> None:
    for entry in os.environ.pop(VARIABLE, "").split(","):
        pid, _, start_time = entry.partition(":")
        if pid.isdecimal() and start_time.isdecimal():
            _left.add((int(pid), int(start_time)))


class Heirs:
    """Reap what earlier servers of this process left, as it ends."""

    def __init__(self) -> None:
        """Wait for nobody yet."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to wait."""
        _inherit()
        for pid, start_time in _left:
            task = asyncio.create_task(self._reap(ProcessIdentity(pid, start_time, boot_id())), name="paddock-heir")
            self._tasks.add(task)

    async def _reap(self, identity: ProcessIdentity) -> None:
        await ended(identity)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if identify(identity.pid) == identity:  # else somebody has reaped it, and the pid may be another child's
                os.waitpid(identity.pid, os.WNOHANG)  # noqa: ASYNC222  it has ended: this does not wait
        _left.discard((identity.pid, identity.start_time))

    async def stop(self) -> None:
        """Wait no longer; who is left stays noted."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
