"""Faults of the machine: a disk that fills up or loses its power, system calls that fail or take long. Where they cannot be made the test skips and says so."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import pytest
from tracing import Strace

PATIENCE = 20.0
_SHUTDOWN, _NO_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH (fs/ext4/ext4.h)


@contextlib.contextmanager
def small_disk(path: Path, size: str = "2m") -> Iterator[Path]:
    """Mount a small file system of its own."""
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "paddock-test", str(path)],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


class CutDisk:
    """An ext4 of its own, in a file, whose power can be cut: what was not synced is gone, as if the machine had stopped.

    Args:
        folder: where it lies, made here; `path` is where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        """Say where."""
        self._image, self.path = folder / "image", folder / "mounted"

    def __enter__(self) -> Self:
        """Make and mount it, or skip the test and say why."""
        self.path.mkdir(parents=True)
        with open(self._image, "wb") as file:
            file.truncate(128 * 2**20)
        made = subprocess.run(["mkfs.ext4", "-q", str(self._image)], check=False, capture_output=True)
        made = made if made.returncode else self._mount()
        if made.returncode:
            pytest.skip(f"no ext4 of its own can be mounted here: {made.stderr.decode().strip()}")
        return self

    def _mount(self) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["mount", "-o", "loop", str(self._image), str(self.path)], check=False, capture_output=True
        )

    def cut(self) -> None:
        """Cut the power: nothing reaches the disk from here on, and who writes is told that it fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        finally:
            os.close(descriptor)

    def come_back(self) -> None:
        """Kill who still has a file open there, as the cut would have, and mount the disk again."""
        until = time.monotonic() + PATIENCE
        while not self._unmounted():  # busy for as long as one of them is about to end
            assert time.monotonic() < until, "the disk is in use"
            self._kill_users()
            time.sleep(0.01)
        self._mount().check_returncode()

    def _unmounted(self) -> bool:
        return not subprocess.run(["umount", str(self.path)], check=False, capture_output=True).returncode

    def _kill_users(self) -> None:
        found = {int(link.parts[2]) for link in Path("/proc").glob("[0-9]*/fd/*") if _leads_to(link, self.path)}
        for pid in found - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)
        self._image.unlink()


def _leads_to(link: Path, folder: Path) -> bool:
    try:
        return os.readlink(link).startswith(f"{folder}/")
    except OSError:
        return False


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Take all the room that is left."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.asynccontextmanager
async def injected(pid: int, calls: str, what: str) -> AsyncIterator[None]:
    """Let system calls of a running process fail or take long: `what` is strace's, such as `error=EIO`."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    tracer = Strace(pid, f"{calls}:{what}")
    try:
        await asyncio.to_thread(tracer.__enter__)
    except PermissionError as error:
        pytest.skip(f"strace cannot attach here: {error}")
    try:
        yield
    finally:
        await asyncio.to_thread(tracer.__exit__)
