"""The bell: heard from anywhere, by whoever is there; it blocks nobody."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.ipc.bell import Bell, Ringer

DEADLINE = 20.0
RING = "import sys; from paddock.ipc.bell import Ringer; sys.exit(not Ringer(sys.argv[1]).ring(7))"


class Ear:
    """Counts how often a bell tells something, keeps what, and waits for it."""

    def __init__(self) -> None:
        self.heard = 0
        self.highest = 0
        self._changed = asyncio.Event()

    def __call__(self, number: int) -> None:
        self.heard += 1
        self.highest = max(self.highest, number)
        self._changed.set()

    async def until(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.heard < number:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    return "bell.sock"


async def test_a_ring_of_another_process_is_heard(path: str):
    ear = Ear()
    bell = Bell(path, ear)
    bell.start()
    try:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-P", "-c", RING, os.path.abspath(path)], check=False
        )
        assert done.returncode == 0
        await ear.until(1)
    finally:
        bell.stop()
        bell.stop()
    assert not os.path.exists(path)


async def test_rings_that_come_together_are_heard_once_and_a_full_queue_blocks_nobody(path: str):
    ear = Ear()
    bell, ringer = Bell(path, ear), Ringer(path)
    bell.start()
    try:
        assert all(ringer.ring(7) for _ in range(10_000))
        await ear.until(1)
        async with asyncio.timeout(DEADLINE):
            while True:  # what was queued is heard in a few turns; then there is silence
                before = ear.heard
                for _ in range(5):
                    await asyncio.sleep(0)
                if ear.heard == before:
                    break
        assert ear.heard < 10_000 / 10
        assert ringer.ring(7)
        await ear.until(before + 1)
    finally:
        ringer.close()
        bell.stop()


async def test_whoever_rings_finds_the_bell_that_is_there_now(path: str):
    ringer = Ringer(path)
    assert not ringer.ring(7)
    for _ in range(2):
        ear = Ear()
        first, second = Bell(path, Ear()), Bell(path, ear)
        first.start()
        second.start()  # a server that was killed leaves its socket behind
        assert ringer.ring(7)
        await ear.until(1)
        second.stop()
        first.stop()
        assert not ringer.ring(7)
    ringer.close()


async def test_a_path_that_cannot_be_had_is_an_error(path: str):
    with pytest.raises(OSError):
        Bell(os.path.join(path, "not", "there"), Ear()).start()


async def test_of_rings_that_come_together_the_highest_number_is_heard(path: str):
    ear = Ear()
    bell, ringer = Bell(path, ear), Ringer(path)
    bell.start()
    try:
        for number in (8, 2**63 - 1, 9):  # no turn of the loop comes between
            assert ringer.ring(number)
        await ear.until(1)
        assert (ear.heard, ear.highest) == (1, 2**63 - 1)
    finally:
        ringer.close()
        bell.stop()


async def test_a_ring_of_another_version_says_look(path: str):
    ear = Ear()
    bell = Bell(path, ear)
    bell.start()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.sendto(b".", path)
        await ear.until(1)
        assert ear.highest == 0
    finally:
        bell.stop()
