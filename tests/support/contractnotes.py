"""How handlers of the contract's tests, in whatever process, tell what they do and wait for a test."""

import asyncio
import os
from pathlib import Path


async def gate(path: str) -> None:
    """Wait until a test makes the file."""
    while not os.path.exists(path):
        await asyncio.sleep(0.003)


def note(path: str, line: str) -> None:
    """Write a line that other processes see whole."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def notes(path: str | Path) -> list[str]:
    """Return the lines that handlers wrote."""
    return Path(path).read_text().splitlines() if os.path.exists(path) else []
