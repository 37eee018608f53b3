"""Short turns for the server: what the kernel says that a thread has, before, during and after."""

import os
import platform
import sys
from pathlib import Path

import pytest

from paddock.runtime.base.timeslice import ask_for_short_slices, forget_slices

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="asks Linux, by x86_64's numbers"
)


def _slice() -> float | None:
    """Return the slice of this thread in nanoseconds, as proc(5) tells where the kernel was built to; None elsewhere."""
    try:
        text = Path("/proc/thread-self/sched").read_text(encoding="ascii")
    except OSError:
        return None
    found = [line.split(":")[1] for line in text.splitlines() if line.startswith("se.slice")]
    return float(found[0]) if found else None


def test_a_short_slice_is_asked_for_and_given_back() -> None:
    before = _slice()
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    assert ask_for_short_slices()
    try:
        asked = _slice()
        assert asked == before or (asked is not None and before is not None and asked < before)
        assert os.getpriority(os.PRIO_PROCESS, 0) == nice
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    finally:
        assert forget_slices()
    assert _slice() == before
