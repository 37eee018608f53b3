"""Test workflows without processes and without waiting: a server in memory, a clock that jumps, a crash at every commit."""

from paddock.runtime.testing.clock import ManualClock
from paddock.runtime.testing.crashes import CrashReport, Difference, crash_everywhere
from paddock.runtime.testing.server import MemoryServer, server

__all__ = ["CrashReport", "Difference", "ManualClock", "MemoryServer", "crash_everywhere", "server"]
