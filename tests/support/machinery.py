"""Faults of the machine: a disk that fills up, system calls that fail or take long. Where they cannot be made the test skips and says so."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tracing import Strace


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
