"""Stacks of running, stopped and unprepared processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paddock.watchdog.identity import ProcessHandle, identify, process_state
from paddock.watchdog.stacks import MAX_STACKS, take_stacks, trace_path_of

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


def test_a_process_without_a_handler_is_left_alone(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", UNPREPARED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            identity = identify(process.pid)
            handle = ProcessHandle.open(identity)
            assert handle is not None
            with handle:
                assert take_stacks(handle, identity, str(tmp_path / "x"), state="S") is None
                assert take_stacks(handle, identity, str(tmp_path / "none"), state="S") is None
            assert process.poll() is None
        finally:
            process.kill()
