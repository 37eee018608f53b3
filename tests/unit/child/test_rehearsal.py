"""The rehearsal: it is a child's whole life, it leaves nothing behind, and where it cannot be had nothing fails."""

import os
import sqlite3
import threading
from pathlib import Path

from paddock.runtime.child import rehearsal
from paddock.runtime.child.process import rehearse_child
from paddock.runtime.child.rehearsal import Stage


def open_files() -> set[str]:
    """Return what this process has open, by name; what was closed while one looked is not among it."""
    found = set()
    for link in Path("/proc/self/fd").glob("*") if Path("/proc/self/fd").exists() else []:
        try:
            found.add(os.readlink(link))
        except OSError:
            continue
    return found


def test_a_life_is_lived_to_its_end_and_leaves_nothing(tmp_path: Path):
    before, threads = open_files(), threading.enumerate()
    assert Stage(str(tmp_path)).play(2) == 2
    assert list(tmp_path.iterdir()) == []
    assert {name for name in open_files() - before if str(tmp_path) in name} == set()
    assert threading.enumerate() == threads


def test_what_is_lived_is_a_child_s_life(tmp_path: Path, monkeypatch):
    ended = []

    def live(spec, database, store):
        rehearse_child(spec, database, store)
        rows = sqlite3.connect(spec.database)
        ended.append(rows.execute("SELECT status FROM paddock_instances").fetchall())
        rows.close()

    monkeypatch.setattr(rehearsal, "rehearse_child", live)
    stage = Stage(str(tmp_path))
    assert stage.play() == 1
    assert ended == [[("completed",)]]
    assert {statement.split()[0] for statement in stage.statements} >= {"SELECT", "INSERT", "UPDATE"}


def test_without_a_place_it_is_done_without(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    assert Stage(str(tmp_path / "taken")).play() == 0


def test_what_a_killed_one_left_is_no_hindrance(tmp_path: Path):
    own = tmp_path / str(os.getpid())
    own.mkdir()
    (own / "life.db").write_text("half of it")
    assert Stage(str(tmp_path)).play() == 1
