"""Know a process again, and signal no other.

A pid alone names nobody: it is used again after the process is gone, and after a reboot. With its start time and the
boot it names one process. Checking both and then calling `kill` leaves a moment between the two; a pidfd (Linux 5.3)
closes it: it is opened first, the identity is verified through the pid after that, and from then on the descriptor
stands for that one process for ever.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self

from .procstat import LINUX, read_stat

__all__ = ["ProcessHandle", "ProcessIdentity", "boot_id", "identify", "is_alive", "process_state"]

_GONE = frozenset("ZXx")
_POLL_INTERVAL = 0.01


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, for ever.

    Attributes:
        pid: its number.
        start_time: field 22 of proc_pid_stat(5), in ticks since boot, on Linux; elsewhere milliseconds since the epoch.
        boot_id: the boot of the machine that the two belong to.
    """

    pid: int
    start_time: int
    boot_id: str


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return a text that is another one after each boot."""
    if LINUX:
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            pass
    import psutil

    return str(int(psutil.boot_time()))


def identify(pid: int) -> ProcessIdentity:
    """Return the identity of the process that has this pid now; about 20 µs on Linux.

    Raises:
        ProcessLookupError: there is no such process. (A zombie still has an identity.)
    """
    return ProcessIdentity(pid, read_stat(pid).start_time, boot_id())


def process_state(pid: int) -> tuple[str, int]:
    """Return the state letter of proc_pid_stat(5) and the CPU time used so far, in ticks.

    Raises:
        ProcessLookupError: there is no such process.
    """
    stat = read_stat(pid)
    return stat.state, stat.cpu_ticks


def is_alive(identity: ProcessIdentity) -> bool:
    """Tell whether exactly this process lives; a zombie does not, though `kill(pid, 0)` succeeds on it."""
    if identity.boot_id != boot_id():
        return False
    try:
        stat = read_stat(identity.pid)
    except ProcessLookupError:
        return False
    return stat.start_time == identity.start_time and stat.state not in _GONE


class ProcessHandle:
    """A hold on one process: signals and waits reach it or nobody. Close it, or use it in a `with`.

    Attributes:
        identity: the process.
    """

    def __init__(self, identity: ProcessIdentity, descriptor: int) -> None:
        """Wrap a pidfd that was verified, or -1; `open` is the way to get one."""
        self.identity = identity
        self._descriptor = descriptor

    @classmethod
    def open(cls, identity: ProcessIdentity) -> ProcessHandle | None:
        """Return a handle on a living process, None when it is gone."""
        descriptor = -1
        if hasattr(os, "pidfd_open"):
            try:
                descriptor = os.pidfd_open(identity.pid)
            except ProcessLookupError:
                return None
            except OSError:
                # No descriptors left, or a sandbox without the call: the identity is checked before each signal then.
                descriptor = -1
        # The order matters: verified after the pidfd was opened, the identity is that of the process which the pidfd
        # holds.
        alive = False
        try:
            alive = is_alive(identity)
        finally:
            if not alive and descriptor >= 0:
                os.close(descriptor)
        return cls(identity, descriptor) if alive else None

    def fileno(self) -> int:
        """Return the pidfd, which polls readable when the process ends; -1 where there is none."""
        return self._descriptor

    def send_signal(self, number: int) -> bool:
        """Send a signal; False when the process is gone.

        Raises:
            PermissionError: it runs as another user now.
        """
        try:
            if self._descriptor >= 0:
                if self.wait(0):  # the kernel takes signals to zombies without a word
                    return False
                signal.pidfd_send_signal(self._descriptor, number)
            else:
                if not is_alive(self.identity):
                    return False
                os.kill(self.identity.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the process to end; True when it has.

        It need not be a child of the caller, nor be reaped.
        """
        if self._descriptor >= 0:
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            return bool(poller.poll(max(0.0, timeout) * 1000))
        deadline = time.monotonic() + timeout
        while is_alive(self.identity):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_POLL_INTERVAL, left))
        return True

    def close(self) -> None:
        """Give the descriptor back; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Return the handle itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
