"""Faults in system calls, by strace: fail, delay or kill at the nth call of a process and of all that it forks."""

import contextlib
import functools
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

PATIENCE = 20.0
_MANNERS = 1.0


class Strace:
    """Inject into a running process while the block lasts: `with Strace(pid, "fdatasync:error=EIO:when=3+")`.

    Calls are counted for each thread by itself, from the attachment or from its birth.
    """

    def __init__(self, pid: int, inject: str) -> None:
        """Say where and what."""
        self._pid = pid
        self._inject = inject
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Attach.

        Raises:
            PermissionError: the system lets nobody trace, or not this process.
        """
        call = self._inject.partition(":")[0]
        self._process = subprocess.Popen(
            ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={self._inject}", "-p", str(self._pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while not self._attached():
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise PermissionError(f"strace cannot be attached to {self._pid}")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        """Detach; whoever is traced goes on undisturbed.

        strace 6.1 waits for the first thread of a process that has ended meanwhile, which the kernel hands over after the other threads
        only, and so for ever. Killed it detaches as well: the kernel does that for it (ptrace(2)).
        """
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_MANNERS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)

    def _attached(self) -> bool:
        """Tell whether every thread is traced."""
        with contextlib.suppress(OSError):
            return all(
                "\nTracerPid:\t0\n" not in path.read_text() for path in Path(f"/proc/{self._pid}/task").glob("*/status")
            )
        return False


@functools.cache
def why_not() -> str | None:
    """Return why system calls cannot be made to fail here, None where they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            with Strace(sleeper.pid, "fdatasync:error=EIO"):
                return None
        except PermissionError as error:
            return f"{error} (ptrace is not allowed here)"
        finally:
            sleeper.kill()
