"""The table of beats, alone and between processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.watchdog.beats import BeatTable, BeatTableError, NoFreeSlot, Verdict
from paddock.watchdog.identity import boot_id
from paddock.watchdog.slots import pack


@pytest.fixture
def table(tmp_path: Path) -> Iterator[BeatTable]:
    table = BeatTable.create(str(tmp_path / "beats"), slots=4)
    yield table
    table.close()
    table.close()


def test_a_slots_life(table: BeatTable):
    slot = table.claim()
    assert (table.used(), table.read(slot).used, table.read(slot).pid) == ([0], True, 0)
    writer = table.writer(slot)
    writer.beat_thread()
    table.assign(slot, pid=4_000_000_000, start_time=2**50, epoch=7, instance_id="ïd")
    writer.beat_thread()
    writer.beat_loop()
    writer.bump_progress()
    writer.set_step("fulfill/ship", 123)
    view = table.read(slot)
    assert (view.pid, view.start_time, view.epoch, view.instance_id) == (4_000_000_000, 2**50, 7, "ïd")
    assert (view.thread_beats, view.loop_beats, view.progress) == (2, 1, 1)
    assert (view.step, view.step_deadline_ns) == ("fulfill/ship", 123)
    assert view.last_beat_ns > 0
    writer.clear_step()
    assert (table.read(slot).step, table.read(slot).step_deadline_ns) == ("", 0)
    table.set_verdict(slot, Verdict.STALLED)
    assert table.read(slot).verdict is Verdict.STALLED
    writer.close()
    table.release(slot)
    assert table.used() == []
    assert table.claim() == slot
    fresh = table.read(slot)
    assert (fresh.pid, fresh.thread_beats, fresh.instance_id, fresh.verdict) == (0, 0, "", Verdict.NONE)


@pytest.mark.parametrize(("code", "signal"), [(0, None), (255, None), (-1, None), (None, 9), (None, None)])
def test_an_exit(table: BeatTable, code: int | None, signal: int | None):
    slot = table.claim()
    assert table.read(slot).exit_code is None
    assert not table.read(slot).exit_recorded
    table.record_exit(slot, exit_code=code, signal=signal, max_rss=2**40, user_us=5, sys_us=6)
    view = table.read(slot)
    assert (view.exit_recorded, view.exit_code, view.signal) == (True, code, signal)
    assert (view.max_rss, view.user_us, view.sys_us) == (2**40, 5, 6)


def test_slots_run_out_and_are_apart(table: BeatTable):
    slots = [table.claim() for _ in range(4)]
    assert slots == table.used() == [0, 1, 2, 3]
    with pytest.raises(NoFreeSlot):
        table.claim()
    for slot in slots:
        table.assign(slot, pid=slot + 1, start_time=1, epoch=1, instance_id="x" * 500)
        writer = table.writer(slot)
        writer.set_step("y" * 500, slot)
        writer.close()
    table.release(2)
    assert table.used() == [0, 1, 3]
    assert table.claim() == 2
    assert [table.read(slot).pid for slot in slots] == [1, 2, 0, 4]
    assert [table.read(slot).step_deadline_ns for slot in (0, 1, 3)] == [0, 1, 3]
    for bad in (-1, 4):
        with pytest.raises(IndexError):
            table.read(bad)


@given(st.text(max_size=200), st.integers(1, 200))
def test_texts_are_cut_between_characters(text: str, size: int):
    packed = pack(text, size)
    kept = packed[1:].decode()
    whole = text.encode("utf-8", "replace").decode()
    assert packed[0] == len(packed) - 1 <= size
    assert whole.startswith(kept)
    assert kept == whole or len(whole[: len(kept) + 1].encode()) > size


def test_the_file_is_private_whole_and_checked(tmp_path: Path):
    path = tmp_path / "beats"
    BeatTable.create(str(path), slots=100).close()
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_blocks * 512 >= found.st_size == 101 * 512
    assert os.listdir(tmp_path) == ["beats"]
    again = BeatTable.open(str(path))
    assert (again.slots, again.boot_id) == (100, boot_id())
    again.close()
    for content in (b"", b"x" * 100, bytes(1024), path.read_bytes()[:-1], b"\0" + path.read_bytes()[1:]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(BeatTableError):
            BeatTable.open(str(tmp_path / "bad"))
    with pytest.raises(FileNotFoundError):
        BeatTable.open(str(tmp_path / "none"))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        BeatTable.open(str(tmp_path / "link"))


def test_the_watchdogs_own_life(table: BeatTable):
    assert table.watchdog() == (0, 0, 0)
    table.set_watchdog(5, 6)
    table.beat_watchdog()
    table.beat_watchdog()
    assert table.watchdog() == (5, 6, 2)
    assert table.used() == []


CHILD = """
import sys
from paddock.watchdog.beats import BeatTable
table = BeatTable.open(sys.argv[1])
writer = table.writer(int(sys.argv[2]))
for number in range(20_000):
    writer.beat_thread()
    writer.set_step("ä" * (number % 50), number)
print("done", flush=True)
sys.stdin.read()
"""


def test_two_processes(table: BeatTable):
    slot = table.claim()
    command = [sys.executable, "-c", CHILD, table.path, str(slot)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        last = 0
        while last < 20_000:
            view = table.read(slot)
            assert view.thread_beats >= last
            assert set(view.step) <= {"ä"}
            last = view.thread_beats
            if child.poll() is not None:
                pytest.fail("the child died")
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        assert table.read(slot).step_deadline_ns == 19_999
        child.communicate("")
    assert table.read(slot).thread_beats == 20_000


def test_looks_are_promised_for_a_time_and_a_last_word_waits_in_a_crowd_only(tmp_path):
    with closing(BeatTable.create(str(tmp_path / "beats"), 4)) as table:
        boot = table.boot_id
        slot = table.claim()
        table.note_on_disk(slot, 6)
        assert table.on_disk(slot) == 6
        assert not table.looks_promised()
        table.promise_looks(1000)
        assert (table.looks_promised(), table.looks_promised(last=True)) == (True, False)
        table.promise_looks(1000, crowded=True)
        assert (table.looks_promised(), table.looks_promised(last=True)) == (True, True)
        table.promise_looks(1e-9, crowded=True)
        while table.looks_promised():  # a nanosecond is over soon
            pass
        table.promise_looks(0)
        assert not table.looks_promised()
        assert table.boot_id == boot
        table.release(slot)
        assert table.on_disk(table.claim()) == 0, "a slot begins with nothing"


def test_a_name_of_any_length_touches_nothing_else(table: BeatTable):
    slot = table.claim()
    table.limit(slot, memory=2**30, cpu_us=7)
    table.assign(slot, pid=1, start_time=2, epoch=3, instance_id="x" * 500)
    with closing(table.writer(slot)) as writer:
        writer.set_step("y" * 500, 9)
    view = table.read(slot)
    assert (view.memory_limit, view.cpu_limit_us, view.step_deadline_ns, view.epoch) == (2**30, 7, 9, 3)
    assert (set(view.instance_id), set(view.step)) == ({"x"}, {"y"})
