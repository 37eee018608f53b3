"""Take the stacks of all threads of a process.

One that goes on is asked to write them itself: its heartbeat's thread does, which holds the GIL, so that no other thread runs Python code
meanwhile. From a signal's handler a thread that runs is read while its frames come and go, and within a few tries the process is dead of
SIGSEGV (`faulthandler.register(…, all_threads=True)` takes no lock, and cannot).

One that does not answer, because C code holds the GIL, and one that is about to be ended gets the signal. The child has called
`faulthandler.register(STACK_SIGNAL, file=…, all_threads=True)` with a file of its own in the trace directory. faulthandler's handler is C: it
answers while other C code holds the GIL or a deadlock holds everything else. What it cannot do is run in a stopped process, so that one is
continued for the moment it takes and stopped again.

When the text is whole, whoever was asked says in its slot. A signal's handler cannot: it writes character by character, and may be held
up before each of them, by others that want the CPU or by the disk. So the end is where nothing came for a moment in which no thread of the
process ran, wanted to run or waited for the disk, and in which this one was there to see it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from .beats import BeatTable, BeatTableError
from .identity import ProcessHandle, ProcessIdentity
from .procstat import catches_signal, thread_states

__all__ = ["MAX_STACKS", "STACK_SIGNAL", "ask_or_take_stacks", "take_stacks", "trace_path_of"]

#: What makes a child write its stacks.
STACK_SIGNAL = signal.SIGUSR2

#: Bytes of the longest text returned; the end is kept.
MAX_STACKS = 64 * 1024

_STOPPED = frozenset("Tt")
_POLL_INTERVAL = 0.01
_SETTLED_AFTER = 0.06
_SETTLED_AFTER_ASKED = 0.6  # for who says when it is over, unless it is of an earlier version
_BUSY_TIMES = 10  # as long where a thread always computes
_LATE = 0.05  # a look so long after the one before says nothing of the time between
_BUSY = frozenset("RD")


def trace_path_of(trace_dir: str, pid: int) -> str:
    """Return the file into which the child with this pid writes its stacks."""
    return os.path.join(trace_dir, f"{pid}.trace")


def ask_or_take_stacks(
    beats_path: str,
    handle: ProcessHandle,
    identity: ProcessIdentity,
    trace_path: str,
    *,
    state: str,
    patience: float,
    timeout: float = 1.0,
) -> str | None:
    """Return the stacks of a process that goes on; None when it does not write them. One that is stopped is not asked.

    Args:
        beats_path: the table in which it beats.
        handle: a hold on the process.
        identity: the process.
        trace_path: the file that it writes to.
        state: its state letter.
        patience: seconds to wait for the process to write them itself.
        timeout: seconds to wait for the signal's answer then; a stopped one has both.
    """
    if state in _STOPPED:
        return take_stacks(handle, identity, trace_path, state=state, timeout=patience + timeout)
    text = _ask(beats_path, identity, trace_path, patience)
    return text or take_stacks(handle, identity, trace_path, state=state, timeout=timeout)


def _ask(beats_path: str, identity: ProcessIdentity, trace_path: str, timeout: float) -> str | None:
    """Have a process write its stacks at its next heartbeat, and return them; None when it does not."""
    before = _size(trace_path)
    if before is None:
        return None
    try:
        table = BeatTable.open(beats_path)
    except (BeatTableError, OSError):
        return None
    try:
        slots = (table.read(slot) for slot in table.used())
        found = next(
            (view.slot for view in slots if (view.pid, view.start_time) == (identity.pid, identity.start_time)), None
        )
        if found is None:
            return None
        asked = table.ask_for_stacks(found)
        _wait_settled(
            identity.pid,
            trace_path,
            before,
            timeout,
            settled_after=_SETTLED_AFTER_ASKED,
            is_whole=lambda: table.stacks_written(found) >= asked,
        )
    finally:
        table.close()
    text = _read_from(trace_path, before)
    return None if text is None else _without_the_writer(text)


def _without_the_writer(text: str) -> str:
    """Leave out the thread that has written this: faulthandler calls it the current one, and it is the heartbeat's."""
    threads = [thread for thread in text.split("\n\n") if not thread.startswith("Current thread")]
    return "\n\n".join(threads) or text


def take_stacks(
    handle: ProcessHandle, identity: ProcessIdentity, trace_path: str, *, state: str, timeout: float = 1.0
) -> str | None:
    """Make a process write its stacks and return them, within about `timeout` seconds; None when it does not.

    Args:
        handle: a hold on the process.
        identity: the process.
        trace_path: the file that its handler writes to.
        state: its state letter; a stopped one is continued meanwhile and stopped again.
        timeout: seconds to wait for the text.
    """
    # The default action of the signal is death, without grace: a child that has not come to register its handler gets
    # none.
    if catches_signal(identity.pid, STACK_SIGNAL) is False:
        return None
    before = _size(trace_path)
    if before is None:
        return None
    stopped = state in _STOPPED
    try:
        if not handle.send_signal(STACK_SIGNAL):
            return None
        if stopped:
            handle.send_signal(signal.SIGCONT)
        _wait_settled(identity.pid, trace_path, before, timeout)
    except PermissionError:
        return None
    finally:
        if stopped:
            with contextlib.suppress(PermissionError):
                handle.send_signal(signal.SIGSTOP)
    return _read_from(trace_path, before)


def _size(path: str) -> int | None:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return None


def _wait_settled(
    pid: int,
    path: str,
    before: int,
    timeout: float,
    *,
    settled_after: float = _SETTLED_AFTER,
    is_whole: Callable[[], bool] = lambda: False,
) -> None:
    """Wait until a process is done with what it writes, or has said so, for `timeout` seconds at most."""
    now = looked_at = time.monotonic()
    deadline, last = now + timeout, before
    silent = idle = 0.0
    while now < deadline and not is_whole():
        size = _size(path)
        if size is None:
            return
        if size != last:
            last, silent, idle = size, 0.0, 0.0
        elif size > before and now - looked_at <= _LATE:
            silent += now - looked_at
            idle = 0.0 if _BUSY & thread_states(pid) else idle + now - looked_at
            if idle >= settled_after or silent >= _BUSY_TIMES * settled_after:
                return
        looked_at = now
        time.sleep(_POLL_INTERVAL)
        now = time.monotonic()


def _read_from(path: str, begin: int) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        end = os.fstat(descriptor).st_size
        file.seek(max(begin, end - MAX_STACKS))
        text = file.read(MAX_STACKS).decode("utf-8", "replace")
    return text or None
