"""The child's heartbeat: a thread of its own that beats into the shared table, and the monitor that notes which step runs.

The thread also enforces a step's timeout where the loop cannot: when a handler blocks the loop past its deadline, the process writes
its stacks and ends itself. Where C code holds the GIL, this thread is held up too; then the watchdog does it from outside.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import faulthandler
import os
import time
from collections.abc import Callable
from typing import IO, NoReturn

from ...watchdog.beats import BeatTable, SlotWriter
from ...watchdog.stacks import MAX_STACKS, STACK_SIGNAL, trace_path_of
from ..base.private import open_private
from .confine import trace_cpu_limit
from .spec import EXIT_ORPHANED, EXIT_STEP_TIMEOUT, LEAVING

__all__ = ["Pulse"]

_GRACE_NS = 500_000_000
_STUCK_SECONDS = 1.0
_LATE_SECONDS = 0.05


class Pulse:
    """Beat until the process ends.

    Attributes:
        drain: called with the sole running step when a step begins or ends, so that what was printed is told to be the step's.
        finish: called when the instance's code is over.
        bound: called with each beat and each step, to set the bound of the process's memory anew.
        orphaned: asked from the thread, once a second while the loop stands still: whether there has been no server for too long.
    """

    def __init__(self, table: BeatTable, slot: int, interval: float, trace_dir: str) -> None:
        """Open the file for stacks; `start` begins to beat. `interval` is in seconds."""
        self._table, self._slot = table, slot
        self._writer: SlotWriter = table.writer(slot)
        self._interval = interval
        self._deadlines: dict[str, int] = {}
        self._steps: dict[str, tuple[str, int]] = {}
        self.drain: Callable[[tuple[str, int] | None], None] = lambda _step: None
        self.finish: Callable[[], None] = lambda: None
        self.bound: Callable[[], None] = lambda: None
        self.orphaned: Callable[[], bool] = lambda: False
        self.commits: Callable[[], bool] = lambda: False
        self._turns, self._turns_seen = 0, -1
        self._looked_at = time.monotonic()
        self._asked = 0
        self._late = self._spared = False
        self._trace: IO[str] = open(trace_path_of(trace_dir, os.getpid()), "w", opener=open_private)  # noqa: SIM115  lives as long as the process

    def start(self) -> None:
        """Register the stack dump, write the first beat, and go on beating from a thread."""
        faulthandler.enable(self._trace, all_threads=True)
        faulthandler.register(STACK_SIGNAL, self._trace, all_threads=True, chain=False)
        trace_cpu_limit(self._trace)
        self._writer.beat_thread()
        # `threading.Thread.start` would wait until it runs: two switches of threads
        _thread.start_new_thread(self._beat, ())

    def close(self) -> None:
        """Close what was opened, where nothing has been started."""
        self._writer.close()
        self._trace.close()

    def _beat(self) -> None:
        while True:
            try:  # noqa: SIM105  `suppress` makes an object, which may fail too
                self._round()
            except Exception:  # noqa: BLE001, S110  who lacks memory or descriptors must not look dead for it
                pass
            self._rest()

    def _rest(self) -> None:
        begun = time.monotonic()
        time.sleep(self._interval)
        self._late = time.monotonic() - begun > self._interval + _LATE_SECONDS

    def _round(self) -> None:
        self._writer.beat_thread()
        # a loop that stands still in a commit of ours, which others may hold up: that is no stall of the code's
        if self.commits():
            self._writer.beat_loop()
        for look in (self._answer, self.bound, self._look_for_server, self._look_at_deadlines):
            with contextlib.suppress(Exception):  # what one lacks keeps none of the others from its work
                look()

    def _answer(self) -> None:
        """Write the stacks where somebody has asked for them."""
        asked = self._writer.stacks_asked
        if self._asked != asked:
            self._asked = asked
            faulthandler.dump_traceback(self._trace, all_threads=True)
            self._writer.note_stacks_written(asked)

    def _look_for_server(self) -> None:
        if time.monotonic() - self._looked_at <= _STUCK_SECONDS:
            return
        stuck = self._turns_seen == self._turns
        self._turns_seen, self._looked_at = self._turns, time.monotonic()
        if stuck and self.orphaned():
            self.leave(EXIT_ORPHANED)

    def _look_at_deadlines(self) -> None:
        now = time.monotonic_ns()
        overdue = any(now > deadline + _GRACE_NS for deadline in list(self._deadlines.values()))
        # where this thread got no core, the loop had none to end the step with: it has one more round
        if overdue and (self._spared or not self._late):
            with contextlib.suppress(Exception):
                faulthandler.dump_traceback(self._trace, all_threads=True)
            self.leave(EXIT_STEP_TIMEOUT)
        self._spared = overdue

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat from the loop too, so that a blocked loop can be told from a blocked process."""
        self._writer.beat_loop()
        self._turns += 1
        loop.call_later(self._interval, self.follow, loop)

    @property
    def sole_step(self) -> tuple[str, int] | None:
        """Return name and attempt of the step that runs, when it is the only one: whatever is printed now is its own."""
        return next(iter(self._steps.values())) if len(self._steps) == 1 else None

    def phase(self, text: str) -> None:
        """Name what the process is doing outside steps."""
        self._writer.set_step(text)

    def leaving(self, code: int) -> None:
        """Note that the process is about to leave with an exit code that means something."""
        self._writer.set_step(f"{LEAVING}{code}")

    def leave(self, code: int) -> NoReturn:
        """End the process at once, with a code that means something."""
        try:
            self.leaving(code)
        finally:
            os._exit(code)

    def committed(self, event_id: int) -> None:
        """Note what was committed, and is on the disk."""
        self._writer.bump_progress()
        self._table.note_on_disk(self._slot, event_id)

    def is_looked_for(self, *, last: bool) -> bool:
        """Tell whether the server will look for what was noted, by itself; `last` where nothing follows."""
        return self._table.looks_promised(last=last)

    def step_begun(self, key: str, name: str, attempt: int, timeout: float | None) -> None:
        """Note the step that runs and how many seconds it may take."""
        with contextlib.suppress(OSError, MemoryError):  # no descriptors left: the bound that was set last holds
            self.bound()
        if key not in self._steps:
            self.drain(self.sole_step)
        if timeout is not None:
            self._deadlines[key] = time.monotonic_ns() + int(timeout * 1e9)
        else:
            self._deadlines.pop(key, None)
        self._steps[key] = (name, attempt)
        self._show()

    def step_ended(self, key: str) -> None:
        """Note that a step has ended."""
        self.drain(self.sole_step)
        self._deadlines.pop(key, None)
        self._steps.pop(key, None)
        self._show()

    def caught_up(self) -> None:
        """Read what was printed so far, while it is still known to be a repetition."""
        self.drain(None)

    def over(self) -> None:
        """Read an unfinished line too: nothing follows."""
        self.finish()

    def stacks(self) -> str | None:
        """Return the stacks of all threads as they are now, at most 64 KB."""
        begin = os.fstat(self._trace.fileno()).st_size
        faulthandler.dump_traceback(self._trace, all_threads=True)
        with open(self._trace.name, "rb") as file:
            file.seek(begin)
            return file.read(MAX_STACKS).decode("utf-8", "replace")

    def _show(self) -> None:
        text = next(reversed(self._steps), "")
        self._writer.set_step(text, min(self._deadlines.values(), default=None))
