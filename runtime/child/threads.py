"""Which threads a process has: a fork copies the one that calls it, and leaves the others' locks locked for ever."""

from __future__ import annotations

import os
import threading
import time

__all__ = ["other_threads", "thread_count"]

_ENDING = 0.1


def other_threads() -> list[str]:
    """Return the threads that stay; one that is just ending gets the moment that it needs."""
    until = time.monotonic() + _ENDING
    while True:
        found = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        hidden = thread_count() - 1 - len(found)
        found += [f"{hidden} native"] if hidden > 0 else []
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.005)


def thread_count() -> int:
    """Return how many threads this process has, those of native libraries too."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
