"""Test workflows without processes or waiting: a server in memory, a clock that jumps, crashes, replays of what is on its way."""

from paddock.runtime.authoring.replays import ReplayCheck, check_replays
from paddock.runtime.testing.clock import ManualClock
from paddock.runtime.testing.crashes import CrashReport, Difference, crash_everywhere
from paddock.runtime.testing.server import MemoryServer, server
from paddock.runtime.testing.store_exercise import exercise_store

__all__ = [
    "CrashReport",
    "Difference",
    "ManualClock",
    "MemoryServer",
    "ReplayCheck",
    "check_replays",
    "crash_everywhere",
    "exercise_store",
    "server",
]
