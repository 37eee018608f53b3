"""The guard of the test suite finds what it is there for."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from leftovers import MARKER, Watch


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    marker = uuid4().hex
    monkeypatch.setenv(MARKER, marker)
    return Watch(marker, Path(tempfile.gettempdir()))


SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
# It ends once the other runs: while that one is being executed it has no environment, and nothing tells whose it is.
DAEMON = """
import subprocess, sys
subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.PIPE).stdout.readline()
"""
DEADLINE = 20.0


def ends(pid: int) -> bool:
    """Wait until nothing runs under the pid: where init reaps nobody, as in many containers, a zombie stays for good."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def test_finds_nothing_where_nothing_is(watch: Watch) -> None:
    assert watch.leftovers() == []


def test_finds_and_kills_a_child(watch: Watch) -> None:
    with subprocess.Popen(SLEEP, env={}, stdout=subprocess.DEVNULL) as child:
        (found,) = watch.leftovers(grace=0)
        assert str(child.pid) in found


def test_finds_and_kills_an_orphan_in_a_session_of_its_own(watch: Watch) -> None:
    subprocess.run([sys.executable, "-c", DAEMON, *SLEEP], check=True)
    (found,) = watch.leftovers(grace=0)
    assert "time.sleep(60)" in found
    assert ends(int(found.split()[1]))


def test_finds_an_unreaped_child(watch: Watch) -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (found,) = watch.leftovers(grace=0)
    assert f"process {pid} (zombie)" in found
    assert not psutil.pid_exists(pid)


def test_waits_for_what_is_about_to_end(watch: Watch) -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        ending = threading.Timer(0.05, child.communicate)
        ending.start()
        assert watch.leftovers() == []


def test_finds_a_thread(watch: Watch) -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="forgotten")
    thread.start()
    try:
        assert watch.leftovers(grace=0) == ["thread 'forgotten'"]
    finally:
        release.set()
        thread.join()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_finds_a_socket(watch: Watch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        (found,) = watch.leftovers(grace=0)
        assert f"AF_UNIX, '{tmp_path / 's'}'" in found


def test_finds_and_removes_files(watch: Watch) -> None:
    stray = Path(tempfile.mkdtemp(prefix="paddock-"))
    (stray / "inner").mkdir()
    (stray / "inner" / "file").touch()
    assert watch.leftovers() == [f"file {stray}"]
    assert not stray.exists()


def test_paths_are_short_enough_for_sockets(tmp_path: Path) -> None:
    assert len(os.fsencode(tmp_path)) < 70
    assert len(tempfile.gettempdir()) < 40
