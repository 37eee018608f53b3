"""A process is known again, and no other is taken for it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paddock.watchdog import identity as module
from paddock.watchdog.identity import ProcessHandle, ProcessIdentity, boot_id, identify, is_alive, process_state
from paddock.watchdog.procstat import LINUX, catches_signal, environ_entries, list_pids, read_stat, thread_states
from paddock.watchdog.tree import end_tree

DEADLINE = 30.0


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def until_state(pid: int, letters: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while process_state(pid)[0] not in letters:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def strangers(known: ProcessIdentity) -> list[ProcessIdentity]:
    return [replace(known, start_time=known.start_time - 1), replace(known, boot_id="another boot")]


@pytest.mark.parametrize("pidfd", [True, False])
def test_only_the_very_process_is_signalled(
    child: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    pidfd: bool,
):
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    known = identify(child.pid)
    assert is_alive(known)
    for stranger in strangers(known):
        assert not is_alive(stranger)
        assert ProcessHandle.open(stranger) is None
    handle = ProcessHandle.open(known)
    assert handle is not None
    with handle:
        assert (handle.fileno() >= 0) == (pidfd and hasattr(os, "pidfd_open"))
        assert not handle.wait(0.01)
        assert handle.send_signal(signal.SIGSTOP)
        until_state(child.pid, "T")
        assert handle.send_signal(signal.SIGKILL)
        assert handle.wait(DEADLINE)
        assert not is_alive(known)  # a zombie: its parent has not looked
        os.kill(child.pid, 0)
        assert not handle.send_signal(signal.SIGTERM)
    handle.close()
    assert handle.fileno() == -1
    child.wait()
    assert ProcessHandle.open(known) is None
    with pytest.raises(ProcessLookupError):
        identify(child.pid)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a pidfd")
def test_a_pid_that_changes_hands_is_not_touched(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch):
    """The process ends, and another takes its pid, right before the pidfd is opened."""
    known = identify(child.pid)
    real, stat = os.pidfd_open, read_stat(child.pid)
    monkeypatch.setattr(module, "read_stat", lambda pid: stat._replace(start_time=stat.start_time + 5))
    opened = []
    monkeypatch.setattr(os, "pidfd_open", lambda pid: opened.append(real(pid)) or opened[-1])
    assert ProcessHandle.open(known) is None
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(opened[0])
    assert child.poll() is None


def test_a_command_with_parentheses_in_its_name(tmp_path):
    program = tmp_path / "x) S 1 (y"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "30"]) as process:
        try:
            until_state(process.pid, "S")
            stat = read_stat(process.pid)
            assert (stat.ppid, stat.pgid, stat.sid) == (os.getpid(), os.getpgid(0), os.getsid(0))
        finally:
            process.kill()


def test_what_the_kernel_says(child: subprocess.Popen[bytes]):
    assert len(boot_id()) > 5
    assert process_state(os.getpid())[1] > 0
    assert {os.getpid(), child.pid} <= set(list_pids())
    until_state(child.pid, "S")
    assert thread_states(child.pid) <= {"S", "R", "D"}
    assert any(entry.startswith(b"PATH=") for entry in environ_entries(child.pid))
    gone = 2**22 + 1
    assert thread_states(gone) == set()
    assert environ_entries(gone) == []
    assert catches_signal(gone, signal.SIGUSR2) is None
    if LINUX:
        assert catches_signal(os.getpid(), signal.SIGINT) is True
        assert catches_signal(child.pid, signal.SIGUSR2) is False


@pytest.mark.skipif(not LINUX, reason="only Linux shows a main thread's end")
def test_a_process_without_its_main_thread_lives_until_it_is_ended(tmp_path):
    """The kernel calls it a zombie, like the dead; it is none."""
    program = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        identity = identify(process.pid)
        until = time.monotonic() + 20
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < until
            time.sleep(0.005)
        assert is_alive(identity)
        assert end_tree(identity) == []
        assert not is_alive(identity)
        assert process.wait(20) == -signal.SIGKILL


def test_ones_own_identity_is_cheap():
    begun = time.process_time()
    for _ in range(500):
        identify(os.getpid())
    assert (time.process_time() - begun) / 500 < 0.0005


def test_without_proc(monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]):
    """The way of other systems, tried on this one."""
    until_state(child.pid, "S")  # while it is being executed it has no environment yet
    monkeypatch.setattr("paddock.watchdog.procstat.LINUX", False)
    stat = read_stat(child.pid)
    assert (stat.pid, stat.ppid, stat.sid) == (child.pid, os.getpid(), os.getsid(0))
    assert abs(stat.start_time / 1000 - time.time()) < 60
    known = identify(child.pid)
    assert is_alive(known)
    assert not is_alive(replace(known, start_time=known.start_time - 1))
    assert child.pid in list_pids()
    assert any(entry.startswith(b"PATH=") for entry in environ_entries(child.pid))
    assert thread_states(child.pid) <= {"S", "R", "D"}
    assert catches_signal(child.pid, signal.SIGUSR2) is None
    with pytest.raises(ProcessLookupError):
        read_stat(2**22 + 1)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a pidfd")
def test_a_pidfd_of_a_process_that_cannot_be_verified_is_given_back(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    """It was the last descriptor there was."""
    known, real, opened = identify(child.pid), os.pidfd_open, []
    monkeypatch.setattr(os, "pidfd_open", lambda pid: opened.append(real(pid)) or opened[-1])

    def read_stat(_pid: int) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(module, "read_stat", read_stat)
    with pytest.raises(OSError, match="too many"):
        ProcessHandle.open(known)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(opened[0])
