"""The child's heartbeat goes on whatever its process lacks."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from paddock.runtime.child import pulse as module
from paddock.runtime.child.pulse import Pulse
from paddock.watchdog.beats import BeatTable

PROLOGUE = """
import errno, os, resource, sys, time
from paddock.runtime.child.lifeline import Lookout
from paddock.runtime.child.pulse import Pulse
from paddock.watchdog.beats import BeatTable
folder = sys.argv[1]
table = BeatTable.create(folder + "/beats", slots=1)
slot = table.claim()
pulse = Pulse(table, slot, 0.01, folder)
def use_up_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    while True:
        try: os.dup(0)
        except OSError: return
def beats_go_on(number=5):
    until, begun = time.monotonic() + 20, table.read(slot).thread_beats
    while table.read(slot).thread_beats < begun + number:
        assert time.monotonic() < until, "it has fallen silent"
        time.sleep(0.01)
"""


def run(body: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + body, str(folder)], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_look_for_the_server_needs_no_descriptor(tmp_path: Path):
    done = run("use_up_descriptors()\nassert Lookout(f'unix:{folder}/none', 1).alone() is False\n", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("error", ["MemoryError()", "OSError(errno.EMFILE, 'too many')"])
def test_what_cannot_be_looked_at_now_ends_no_heartbeat(tmp_path: Path, error: str):
    body = f"""
asked = []
def fail():
    asked.append(1)
    raise {error}
pulse.bound = fail
pulse.start()
beats_go_on()
assert len(asked) > 3
"""
    done = run(body, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_cannot_be_bound_anew_is_held_to_its_deadline(tmp_path: Path):
    body = """
def fail(): raise OSError(errno.EMFILE, "too many")
pulse.bound = fail
pulse.start()
pulse.step_begun("key", "name", 1, 0.01)
time.sleep(30)
"""
    assert run(body, tmp_path).returncode == 77


def test_without_descriptors_it_beats(tmp_path: Path):
    body = """
from paddock.runtime.child.confine import bound_memory
pulse.bound = lambda: bound_memory(2**40)
pulse.start()
use_up_descriptors()
beats_go_on()
"""
    done = run(body, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("naps", "left_at"),
    [
        pytest.param([0.5, 0.5, 0.5], 1.5, id="it saw the deadline pass"),
        pytest.param([0.5, 9.0, 0.5], 10.0, id="the loop got no core either, and does not end it"),
        pytest.param([0.5, 9.0, 9.0], 18.5, id="nor later"),
    ],
)
def test_a_loop_that_got_no_core_may_end_the_step_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, naps: list[float], left_at: float
):
    now, left = 0.0, []

    def sleep(_seconds: float) -> None:
        nonlocal now
        now += naps.pop(0)

    time = SimpleNamespace(monotonic=lambda: now, monotonic_ns=lambda: int(now * 1e9), sleep=sleep)
    monkeypatch.setattr(module, "time", time)
    with closing(BeatTable.create(str(tmp_path / "beats"), slots=1)) as table:
        with closing(Pulse(table, table.claim(), 0.5, str(tmp_path))) as pulse:
            monkeypatch.setattr(pulse, "leave", lambda _code: left.append(now))
            pulse.step_begun("key", "name", 1, 0.9)
            while not left:
                pulse._rest()
                pulse._round()
        assert left == [left_at]
