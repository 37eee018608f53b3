"""Whole trees of real processes are found and ended, strangers are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paddock.watchdog.identity import ProcessIdentity, identify, is_alive
from paddock.watchdog.tree import end_tree, find_tree

DEADLINE = 30.0
MARKER = f"PADDOCK_INSTANCE=i-1:3:{os.getpid()}"  # of this run: others may run on the same machine

# A process writes its pid once it stands, so that nobody is looked for too early.
PROLOGUE = """
import os, signal, subprocess, sys, time
folder = sys.argv[1]
def here(name):
    with open(f"{folder}/.{name}", "w") as file: file.write(str(os.getpid()))
    os.rename(f"{folder}/.{name}", f"{folder}/{name}")
def rest():
    while True: time.sleep(60)
def sub(name, *, env=None, session=False, body="here(sys.argv[2]); rest()"):
    code = open(folder + "/prologue.py").read() + body
    subprocess.Popen([sys.executable, "-c", code, folder, name], env=env, start_new_session=session)
"""

SHAPES = {
    "deaf": 'sub("a", body="signal.signal(signal.SIGTERM, signal.SIG_IGN); here(sys.argv[2]); rest()")',
    "session": 'sub("a", session=True)',
    "cleared environment": 'sub("a", env={})',
    "cleared environment, session": 'sub("a", env={}, session=True)',
    "stopped": 'sub("a", body="here(sys.argv[2]); os.kill(os.getpid(), signal.SIGSTOP); rest()")',
    "double fork, session": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        here("a"); rest()
    os._exit(0)
os.wait()
""",
    "daemon": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        orphaned = f"while os.getppid() == {os.getpid()}: time.sleep(0.005)"
        sub("a", body=orphaned + "\\nhere(sys.argv[2]); rest()")
    os._exit(0)
os.wait()
""",
    "group": """
if os.fork() == 0:
    os.setpgid(0, 0); here("a"); rest()
""",
}

# An orphan that changed its session and was never executed, or was with an empty environment, carries no mark any more.
FOUND_AFTER_THE_ROOT = ["deaf", "session", "cleared environment", "stopped", "daemon", "group"]


class Family:
    """A root in a session of its own with one member of some shape."""

    def __init__(self, folder: Path, shape: str) -> None:
        self._folder = folder
        (folder / "prologue.py").write_text(PROLOGUE)
        (folder / "source.py").write_text(PROLOGUE + shape + '\nhere("root")\nrest()\n')
        environ = {**os.environ, "PADDOCK_INSTANCE": MARKER.partition("=")[2]}
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "source.py"), str(folder)], env=environ, start_new_session=True
        )
        self.root = identify(self.process.pid)
        try:
            self.member = self.named("a")
            self.named("root")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def named(self, name: str) -> ProcessIdentity:
        deadline = time.monotonic() + DEADLINE
        while not (self._folder / name).exists():
            assert time.monotonic() < deadline, f"{name} does not come up"
            time.sleep(0.01)
        return identify(int((self._folder / name).read_text()))

    def end(self) -> None:
        for identity in (self.root, self.member):
            if is_alive(identity):
                os.kill(identity.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def family(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Family]:
    family = Family(tmp_path, SHAPES[request.param])
    yield family
    family.end()


@pytest.mark.parametrize("family", [shape for shape in SHAPES if shape != "double fork, session"], indirect=True)
def test_a_living_roots_tree(family: Family):
    found = find_tree(family.root, marker=MARKER)
    assert {family.root, family.member} <= set(found)
    assert os.getpid() not in {identity.pid for identity in found}
    assert end_tree(family.root, marker=MARKER) == []
    assert not is_alive(family.member)
    assert family.process.wait(DEADLINE) == -signal.SIGKILL
    assert end_tree(family.root, marker=MARKER) == []


@pytest.mark.parametrize("family", FOUND_AFTER_THE_ROOT, indirect=True)
def test_a_dead_roots_tree(family: Family):
    family.process.kill()
    family.process.wait()
    assert find_tree(family.root, marker=MARKER) == [family.member]
    assert end_tree(family.root, marker=MARKER) == []
    assert not is_alive(family.member)


@pytest.mark.parametrize("family", ["session"], indirect=True)
def test_strangers_are_not_touched(family: Family):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert find_tree(replace(family.root, boot_id="another boot"), marker=MARKER) == []
        # A later process has the root's pid: neither it nor its session are the root's.
        reused = replace(family.root, start_time=family.root.start_time - 1)
        assert find_tree(reused) == []
        assert set(find_tree(family.root, marker="PADDOCK_INSTANCE=i-1:33")) == {family.root, family.member}
        family.process.kill()
        family.process.wait()
        assert find_tree(family.root) == []
        for marker in ("PADDOCK_INSTANCE=i-1:33", "PADDOCK_INSTANCE=i-1:", "PADDOCK_INSTANCE=i-1"):
            assert find_tree(family.root, marker=marker) == []
        assert end_tree(family.root, marker=MARKER) == []
        assert other.poll() is None
    finally:
        other.communicate(b"\n")


@pytest.mark.parametrize("family", ["deaf"], indirect=True)
def test_an_orphan_of_another_instance_in_a_session_of_that_number(family: Family):
    """The pid was used again as a session by another instance, whose leader is gone too."""
    family.process.kill()
    family.process.wait()
    assert find_tree(family.root, marker="PADDOCK_INSTANCE=other:1") == []
    assert is_alive(family.member)


def asked(
    body: str, folder: Path, *, then: str = "while True: time.sleep(60)"
) -> tuple[subprocess.Popen[bytes], ProcessIdentity]:
    code = f"import signal, sys, time\n{body}\nopen(sys.argv[1] + '/up', 'w').close()\n{then}"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True)
    deadline = time.monotonic() + DEADLINE
    while not (folder / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process, identify(process.pid)


def test_who_ends_when_asked_is_not_killed(tmp_path: Path):
    # blocked and waited for: a handler in Python that is due right before a sleep's system call runs after the sleep
    process, root = asked(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})",
        tmp_path,
        then="signal.sigwait({signal.SIGTERM}); sys.exit(7)",
    )
    os.kill(process.pid, signal.SIGSTOP)  # a stopped one is continued, to hear it
    begun = time.monotonic()
    assert end_tree(root, grace=DEADLINE) == []
    assert time.monotonic() - begun < DEADLINE / 2
    assert process.wait(DEADLINE) == 7


def test_who_does_not_is(tmp_path: Path):
    process, root = asked("signal.signal(signal.SIGTERM, signal.SIG_IGN)", tmp_path)
    assert end_tree(root, grace=0.2) == []
    assert process.wait(DEADLINE) == -signal.SIGKILL


def test_a_tree_that_forks_all_the_time(tmp_path: Path):
    """Each child leaves its session, forks the next and dies: whoever kills one after the other never catches up.

    The root is a subreaper, as children are: without that and without a marker, a generation between two looks is lost.
    """
    body = """
import ctypes, os
if sys.platform == "linux": ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    while True:
        os.setsid()
        if os.fork(): os._exit(0)
        time.sleep(0.01)
"""
    process, root = asked(body, tmp_path)
    left = end_tree(root)
    assert left == []
    process.wait(DEADLINE)
