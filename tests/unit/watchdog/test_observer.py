"""The observer's rounds, with real processes and a clock of the test's own."""

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

from paddock.watchdog.beats import BeatTable, Verdict
from paddock.watchdog.identity import identify, process_state
from paddock.watchdog.observer import Observer
from paddock.watchdog.policy import Thresholds

LIMITS = Thresholds(interval=1.0, heartbeat_timeout=30.0, stall_timeout=None, kill_grace=5.0)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[BeatTable]:
    table = BeatTable.create(str(tmp_path / "beats"), slots=4)
    yield table
    table.close()


@pytest.fixture
def stopped(table: BeatTable) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, stop it, and put it into slot 0."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        os.kill(process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while process_state(process.pid)[0] != "T":
            assert time.monotonic() < deadline
            time.sleep(0.005)
        start_time = identify(process.pid).start_time
        table.assign(table.claim(), pid=process.pid, start_time=start_time, epoch=1, instance_id="i")
        yield process
        process.kill()


def first_finding(observer: Observer, seconds: range) -> int | None:
    return next((now for now in seconds if observer.scan(float(now))), None)


def test_a_stopped_process_is_found_each_round_until_it_is_gone(table: BeatTable, stopped: subprocess.Popen[bytes]):
    observer = Observer(table, LIMITS)
    assert first_finding(observer, range(100)) == 30
    [finding] = observer.scan(31.0)
    assert (finding.verdict, finding.silent_for, finding.timeout) == (Verdict.STALE_STOPPED, 31.0, 30.0)
    assert (finding.identity, finding.state) == (identify(stopped.pid), "T")
    assert observer.still_stale(finding, 31.0)
    stopped.kill()
    stopped.wait()
    assert not observer.still_stale(finding, 31.0)
    assert observer.scan(32.0) == []


def test_an_overslept_observer_begins_again(table: BeatTable, stopped: subprocess.Popen[bytes]):
    observer = Observer(table, LIMITS)
    assert first_finding(observer, range(20)) is None
    assert first_finding(observer, range(1000, 1100)) == 1030


def test_it_judges_no_stranger_and_nobody_whose_exit_is_known(table: BeatTable, stopped: subprocess.Popen[bytes]):
    known = identify(stopped.pid)
    observer = Observer(table, LIMITS)
    table.assign(0, pid=known.pid, start_time=known.start_time - 1, epoch=1, instance_id="i")
    assert first_finding(observer, range(100)) is None
    table.assign(0, pid=0, start_time=0, epoch=1, instance_id="i")
    assert first_finding(observer, range(100, 200)) is None
    table.assign(0, pid=known.pid, start_time=known.start_time, epoch=1, instance_id="i")
    [*_, finding] = [found for now in range(200, 240) for found in observer.scan(float(now))]
    table.assign(0, pid=known.pid, start_time=known.start_time, epoch=2, instance_id="j")
    assert not observer.still_stale(finding, 240.0)
    table.record_exit(0, exit_code=0, signal=None)
    assert first_finding(observer, range(240, 300)) is None


def test_a_slot_that_changes_hands_is_a_new_process(table: BeatTable, stopped: subprocess.Popen[bytes]):
    observer = Observer(table, replace(LIMITS, heartbeat_timeout=3.0))
    known = identify(stopped.pid)
    assert first_finding(observer, range(3)) is None
    table.release(0)
    assert observer.scan(3.0) == []
    table.assign(table.claim(), pid=known.pid, start_time=known.start_time, epoch=2, instance_id="j")
    assert first_finding(observer, range(4, 20)) == 7
