"""The watchdog as a process, with real children and a hub made of a listener."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from paddock.ipc.address import UnixAddress, format_address
from paddock.ipc.connection import Connection
from paddock.ipc.listener import Listener
from paddock.ipc.messages import Hello, Killed, Message, Policy, Stale, StaleAck
from paddock.watchdog.beats import BeatTable, SlotView, Verdict
from paddock.watchdog.identity import ProcessIdentity, identify, is_alive

DEADLINE = 20.0
TOKEN = "s3cret-token"

CHILD = """
import ctypes, faulthandler, os, signal, sys, threading, time
from paddock.watchdog.beats import BeatTable
from paddock.watchdog.stacks import STACK_SIGNAL, trace_path_of
beats, slot, traces, way = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
trace = open(trace_path_of(traces, os.getpid()), "w")
faulthandler.register(STACK_SIGNAL, file=trace, all_threads=True)
writer = BeatTable.open(beats).writer(slot)
def beat():
    while True:
        writer.beat_thread()
        time.sleep(0.03)
threading.Thread(target=beat, daemon=True).start()
writer.beat_loop()
print("up", flush=True)
def compute():
    while True: sum(range(100_000))
def compute_in_c():
    while True: sum(range(60_000_000))
def hold_the_gil():
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2): ctypes.PyDLL(None).pthread_mutex_lock(mutex)
def step_without_end():
    writer.set_step("endless", time.monotonic_ns() + 200_000_000)
    compute()
def nap():
    while True: time.sleep(1)
locals()[way]()
"""


class Hub:
    """A server as the watchdog sees it."""

    def __init__(self, path: Path) -> None:
        self.messages: list[Message] = []
        self.hellos: list[Hello] = []
        self.acknowledge = True
        self.connection: Connection | None = None
        self._changed = asyncio.Event()
        self._listener = Listener(UnixAddress(str(path)), token=TOKEN, on_peer=self._serve)

    async def _serve(self, connection: Connection, hello: Hello) -> None:
        self.hellos.append(hello)
        self.connection = connection
        self._changed.set()
        while (message := await connection.receive()) is not None:
            self.messages.append(message)
            self._changed.set()
            if isinstance(message, Stale) and self.acknowledge:
                connection.send(StaleAck(slot=message.slot))

    async def start(self) -> None:
        await self._listener.start()

    async def stop(self) -> None:
        await self._listener.stop()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kind)]

    async def killed(self) -> Killed:
        await self.until(lambda: bool(self.of(Killed)))
        [message] = self.of(Killed)
        assert isinstance(message, Killed)
        return message


class World:
    """A table, a hub, a watchdog, and children that are ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = BeatTable.create(str(folder / "beats"), slots=8)
        self.hub = Hub(folder / "hub")
        self.thresholds = {"interval": 0.1, "heartbeat_timeout": 0.6, "stall_timeout": None, "kill_grace": 0.3}
        self._processes: list[subprocess.Popen[str]] = []

    def watchdog(self, orphan_grace: float = 60.0) -> subprocess.Popen[str]:
        me = identify(os.getpid())
        settings = {
            "address": format_address(UnixAddress(str(self.folder / "hub"))),
            "token": TOKEN,
            "beats_path": self.table.path,
            "trace_dir": str(self.folder),
            "thresholds": self.thresholds,
            "orphan_grace": orphan_grace,
            "server": {"pid": me.pid, "start_time": me.start_time},
        }
        return self._spawn(["-m", "paddock.watchdog"], json.dumps(settings) + "\n")

    async def child(self, way: str) -> tuple[int, subprocess.Popen[str]]:
        slot = self.table.claim()
        process = self._spawn(["-c", CHILD, self.table.path, str(slot), str(self.folder), way])
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "up\n"
        start_time = identify(process.pid).start_time
        self.table.assign(slot, pid=process.pid, start_time=start_time, epoch=5, instance_id=f"instance-{slot}")
        return slot, process

    def _spawn(self, arguments: list[str], line: str | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if line else None,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        if line is not None and process.stdin is not None:
            process.stdin.write(line)
            process.stdin.flush()
        return process

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.02)

    async def rounds(self, number: int) -> None:
        begun = self.table.watchdog()[2]
        await self.until(lambda: self.table.watchdog()[2] >= begun + number)

    def view(self, slot: int) -> SlotView:
        return self.table.read(slot)

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self.table.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="pd") as folder:
        world = World(Path(folder))
        await world.hub.start()
        try:
            yield world
        finally:
            await world.hub.stop()
            world.end()


@contextlib.contextmanager
def stopped(process: subprocess.Popen[str]):
    os.kill(process.pid, signal.SIGSTOP)
    yield
    os.kill(process.pid, signal.SIGCONT)


async def test_a_stopped_child_is_announced_and_killed_and_a_busy_one_lives(world: World):
    watchdog = world.watchdog()
    slot, process = await world.child("nap")
    _, busy = await world.child("compute")
    os.kill(process.pid, signal.SIGSTOP)
    killed = await world.hub.killed()
    [stale] = world.hub.of(Stale)
    assert isinstance(stale, Stale)
    assert world.hub.messages == [stale, killed]
    assert (stale.slot, stale.pid, stale.instance_id, stale.epoch) == (slot, process.pid, f"instance-{slot}", 5)
    assert stale.reason == killed.reason == "stopped"
    assert stale.silent_for >= stale.timeout == 0.6
    assert killed.signal == signal.SIGKILL
    assert killed.stack is not None
    assert "in nap" in killed.stack
    assert "in beat" in killed.stack
    assert world.view(slot).verdict is Verdict.STALE_STOPPED
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert busy.poll() is None
    [hello] = world.hub.hellos
    assert (hello.role, hello.pid) == ("watchdog", watchdog.pid)


async def test_a_deadlock_is_ended_and_c_code_that_computes_is_not(world: World):
    world.watchdog()
    _, busy = await world.child("compute_in_c")
    slot, process = await world.child("hold_the_gil")
    killed = await world.hub.killed()
    assert (killed.slot, killed.reason) == (slot, "silent")
    assert killed.stack is not None
    assert "in hold_the_gil" in killed.stack
    assert process.wait(DEADLINE) == -signal.SIGTERM
    await world.rounds(5)
    assert busy.poll() is None
    assert world.hub.of(Killed) == [killed]
    assert {message.slot for message in world.hub.of(Stale)} == {
        slot
    }  # twice, where it seemed to wake between two looks


async def test_a_step_without_end(world: World):
    world.watchdog()
    slot, process = await world.child("step_without_end")
    killed = await world.hub.killed()
    assert (killed.reason, killed.signal) == ("step_timeout", signal.SIGKILL)
    assert "compute" in (killed.stack or "")
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert world.view(slot).verdict is Verdict.STEP_TIMEOUT


async def test_a_policy_changes_the_thresholds(world: World):
    world.watchdog()
    _, process = await world.child("nap")  # its loop has beaten once
    await world.rounds(10)
    assert process.poll() is None
    connection = world.hub.connection
    assert connection is not None
    connection.send(Policy(interval=0.1, heartbeat_timeout=0.01, stall_timeout=None, kill_grace=0.0))  # refused
    connection.send(Policy(interval=0.1, heartbeat_timeout=60.0, stall_timeout=0.5, kill_grace=0.1))
    assert (await world.hub.killed()).reason == "stalled"
    process.wait(DEADLINE)


async def test_a_child_continued_in_time_is_spared(world: World):
    world.hub.acknowledge = False  # so a second passes between the announcement and the last look
    world.watchdog()
    slot, process = await world.child("nap")
    with stopped(process):
        await world.hub.until(lambda: bool(world.hub.of(Stale)))
    await world.until(lambda: world.view(slot).verdict is Verdict.NONE)
    await world.rounds(10)
    assert process.poll() is None
    assert world.hub.of(Killed) == []


async def test_nobody_is_killed_by_a_watchdog_that_overslept(world: World):
    watchdog = world.watchdog()
    _, process = await world.child("nap")
    await world.rounds(3)
    with stopped(watchdog), stopped(process):
        await asyncio.sleep(1.0)  # longer than the heartbeat's timeout; there is nothing to wait for
    await world.rounds(10)
    assert process.poll() is None
    assert world.hub.messages == []


async def test_without_a_server_it_goes_on_and_tells_the_next(world: World):
    watchdog = world.watchdog(orphan_grace=DEADLINE)
    await world.hub.until(lambda: bool(world.hub.hellos))
    await world.hub.stop()
    _, process = await world.child("nap")
    _, healthy = await world.child("nap")
    os.kill(process.pid, signal.SIGSTOP)
    assert await asyncio.to_thread(process.wait, DEADLINE) == -signal.SIGKILL
    assert healthy.poll() is None  # whose beats no server had to pass on
    await world.hub.start()
    killed = await world.hub.killed()
    assert [type(message) for message in world.hub.messages] == [Stale, Killed]
    assert killed.pid == process.pid
    assert watchdog.poll() is None


async def test_a_stopped_server_delays_no_kill(world: World):
    """A server that accepts nothing is there, and never says welcome."""
    await world.hub.stop()
    listener = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True); input()",
        str(world.folder / "hub"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert listener.stdout is not None
        await listener.stdout.readline()
        world.watchdog()
        _, process = await world.child("nap")
        os.kill(process.pid, signal.SIGSTOP)
        assert await asyncio.to_thread(process.wait, DEADLINE) == -signal.SIGKILL
    finally:
        listener.kill()
        await listener.communicate()


async def test_it_ends_without_a_server_when_replaced_and_when_told(world: World):
    first = world.watchdog()
    await world.hub.until(lambda: len(world.hub.hellos) == 1)
    os.kill(first.pid, signal.SIGINT)
    second = world.watchdog()
    assert await asyncio.to_thread(first.wait, DEADLINE) == 0
    await world.hub.until(lambda: len(world.hub.hellos) == 2)
    assert world.table.watchdog()[0] == second.pid
    os.kill(second.pid, signal.SIGTERM)
    assert await asyncio.to_thread(second.wait, DEADLINE) == 0
    await world.hub.stop()
    third = world.watchdog(orphan_grace=0.3)
    assert await asyncio.to_thread(third.wait, DEADLINE) == 0
    assert "no server" in third.communicate()[1]


async def test_one_that_was_replaced_by_a_dead_one_takes_charge_again(world: World):
    watchdog = world.watchdog()
    await world.rounds(2)
    _, gone = await world.child("nap")
    dead = identify(gone.pid)
    gone.kill()
    gone.wait(DEADLINE)
    world.table.set_watchdog(dead.pid, dead.start_time)
    await world.until(lambda: world.table.watchdog()[0] == watchdog.pid)


@pytest.mark.parametrize("line", ["", "{}", "no json", '{"thresholds": 1, "server": 2, "token": "s3cret-token"}'])
def test_bad_settings_are_refused_without_being_quoted(line: str):
    done = subprocess.run(
        [sys.executable, "-m", "paddock.watchdog"], input=line, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "settings" in done.stderr
    assert TOKEN not in done.stderr


async def test_a_slot_of_a_stranger_is_left_alone(world: World):
    world.watchdog()
    slot, process = await world.child("nap")
    known = identify(process.pid)
    world.table.assign(slot, pid=known.pid, start_time=known.start_time - 1, epoch=5, instance_id="x")
    os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    await world.rounds(10)
    assert time.monotonic() - begun > 0.6
    assert is_alive(ProcessIdentity(known.pid, known.start_time, known.boot_id))
    assert world.hub.messages == []
