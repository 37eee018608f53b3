"""Stacks of running, stopped and unprepared processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from paddock.watchdog import stacks
from paddock.watchdog.beats import BeatTable
from paddock.watchdog.identity import ProcessHandle, ProcessIdentity, identify, process_state
from paddock.watchdog.stacks import MAX_STACKS, ask_or_take_stacks, take_stacks, trace_path_of

DEADLINE = 30.0
PREPARED = """
import faulthandler, os, sys, threading, time
from paddock.watchdog.stacks import STACK_SIGNAL, trace_path_of
trace = open(trace_path_of(sys.argv[1], os.getpid()), "w")
faulthandler.register(STACK_SIGNAL, file=trace, all_threads=True)
trace.write("before\\n"); trace.flush()
def a_place_to_wait(): print(flush=True); time.sleep(600)
def deep(n): return deep(n - 1) if n else time.sleep(600)
for _ in range(int(sys.argv[2])): threading.Thread(target=deep, args=(400,), daemon=True).start()
a_place_to_wait()
"""
UNPREPARED = "import sys, time; open(sys.argv[1] + '/x', 'w'); print(flush=True); time.sleep(600)"


def until_state(pid: int, letters: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while process_state(pid)[0] not in letters:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("program", "threads", "stop"), [(PREPARED, 0, False), (PREPARED, 0, True), (PREPARED, 40, False)]
)
def test_stacks_are_taken(tmp_path: Path, program: str, threads: int, stop: bool):
    command = [sys.executable, "-c", program, str(tmp_path), str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            if stop:
                os.kill(process.pid, signal.SIGSTOP)
                until_state(process.pid, "T")
            identity = identify(process.pid)
            handle = ProcessHandle.open(identity)
            assert handle is not None
            with handle:
                for _ in range(2):
                    if stop:
                        until_state(process.pid, "T")  # a stop takes effect a moment after the signal
                    state = process_state(process.pid)[0]
                    text = take_stacks(
                        handle, identity, trace_path_of(str(tmp_path), process.pid), state=state, timeout=5.0
                    )
                    assert text is not None
                    assert "before" not in text
                    assert "a_place_to_wait" in text
                    assert len(text) <= MAX_STACKS
                    assert text.count("in a_place_to_wait") == 1
            if stop:
                until_state(process.pid, "T")
            assert process.poll() is None
        finally:
            process.kill()


@contextmanager
def started(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], ProcessIdentity, ProcessHandle]]:
    """Start a program, and go on once it has printed a line; it is killed in the end."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            identity = identify(process.pid)
            handle = ProcessHandle.open(identity)
            assert handle is not None
            with handle:
                yield process, identity, handle
        finally:
            process.kill()


def test_a_process_without_a_handler_is_left_alone(tmp_path: Path):
    with started(sys.executable, "-c", UNPREPARED, str(tmp_path)) as (process, identity, handle):
        assert take_stacks(handle, identity, str(tmp_path / "x"), state="S") is None
        assert take_stacks(handle, identity, str(tmp_path / "none"), state="S") is None
        assert process.poll() is None


SLOW = """
import os, signal, sys, time
trace = open(sys.argv[1] + "/trace", "w")
def write(*_):
    trace.write("one\\n"); trace.flush()
    until = time.monotonic() + 0.3
    while time.monotonic() < until: pass
    trace.write("two\\n"); trace.flush()
signal.signal(signal.SIGUSR2, write)
print(flush=True)
while True: time.sleep(0.5)
"""


def test_who_is_in_the_middle_of_writing_is_waited_for(tmp_path: Path):
    with started(sys.executable, "-S", "-c", SLOW, str(tmp_path)) as (_process, identity, handle):
        text = take_stacks(handle, identity, str(tmp_path / "trace"), state="S", timeout=DEADLINE)
        assert text == "one\ntwo\n"


class Writing:
    """A file that grows by one line at some looks, and a clock that goes on by as much as is slept, or more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, at: set[int], *, late: int, states: str) -> None:
        self.now, self._looks, self._at, self._late = 0.0, 0, at, late
        self.path = folder / "trace"
        self.path.write_text("")
        monkeypatch.setattr(stacks, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep))
        monkeypatch.setattr(stacks, "thread_states", lambda _pid: set(states))

    def _sleep(self, seconds: float) -> None:
        self._looks += 1
        self.now += 5.0 if self._looks == self._late else seconds
        if self._looks in self._at:
            self.path.write_text(self.path.read_text() + "line\n")

    def lines_seen(self) -> int:
        stacks._wait_settled(0, str(self.path), 0, 60.0)
        return len(self.path.read_text().splitlines())


@pytest.mark.parametrize(
    ("at", "late", "states", "seen", "by"),
    [
        pytest.param({1, 5, 20}, 0, "S", 2, 0.2, id="over"),
        pytest.param({1, 5, 20}, 0, "SR", 3, 1.0, id="off the CPU meanwhile"),
        pytest.param({1, 5, 20}, 0, "SD", 3, 1.0, id="waits for the disk"),
        pytest.param({1, 400}, 0, "R", 1, 0.7, id="always computes"),
        pytest.param({1, 5}, 3, "S", 2, 5.2, id="the reader was away"),
    ],
)
def test_where_the_text_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: set[int], late: int, states: str, seen: int, by: float
):
    writing = Writing(monkeypatch, tmp_path, at, late=late, states=states)
    assert writing.lines_seen() == seen
    assert writing.now <= by


def test_who_was_asked_says_when_it_is_done(tmp_path: Path):
    """However long it pauses, and asleep: the process in the slot is one that does nothing, its text comes from here."""
    trace = tmp_path / "trace"
    trace.write_text("before\n")
    with (
        closing(BeatTable.create(str(tmp_path / "beats"), slots=1)) as table,
        subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process,
    ):
        identity = identify(process.pid)
        slot = table.claim()
        table.assign(slot, pid=identity.pid, start_time=identity.start_time, epoch=1, instance_id="i")
        writer = table.writer(slot)

        def write() -> None:
            while not writer.stacks_asked:
                time.sleep(0.001)
            with trace.open("a") as file:
                print("one", file=file, flush=True)
                time.sleep(0.3)
                print("two", file=file, flush=True)
            writer.note_stacks_written(writer.stacks_asked)

        thread = threading.Thread(target=write)
        thread.start()
        handle = ProcessHandle.open(identity)
        assert handle is not None
        with handle:
            text = ask_or_take_stacks(table.path, handle, identity, str(trace), state="S", patience=DEADLINE)
        thread.join()
        writer.close()
        process.kill()
    assert text == "one\ntwo\n"


def test_a_stopped_process_has_all_the_time_there_is(tmp_path: Path):
    """It may get no core for a while once it is continued."""
    slow = SLOW.replace('    trace.write("one', '    time.sleep(0.5)\n    trace.write("one')
    with subprocess.Popen([sys.executable, "-S", "-c", slow, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            os.kill(process.pid, signal.SIGSTOP)
            until_state(process.pid, "T")
            identity = identify(process.pid)
            handle = ProcessHandle.open(identity)
            assert handle is not None
            with handle:
                text = ask_or_take_stacks(
                    "", handle, identity, str(tmp_path / "trace"), state="T", patience=DEADLINE, timeout=0.1
                )
            assert text == "one\ntwo\n"
        finally:
            process.kill()
