"""`paddock backup`: beside a server at work, without one, and of what is not sound."""

import json
import os
import shutil
import sqlite3
import stat

import pytest
from clikit import Command, ServerProcess


@pytest.fixture
def paddock(tmp_path, zygote):
    return Command(tmp_path, zygote)


def test_a_copy_of_a_moment_goes_on_as_the_server_would(paddock, tmp_path):
    server = ServerProcess(tmp_path)
    paddock.ok("start", "game", '{"answer": 4}', "--id", "kept")
    paddock.until("kept", "waiting")
    kept = tmp_path / "kept.db"
    told = paddock("backup", str(kept), "--db", "app.db")
    assert (told.returncode, told.stdout) == (0, "")
    assert f"{kept} is a backup of" in told.stderr
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    paddock.ok("signal", "kept", "guess", "4", "--db", "app.db")
    paddock.until("kept", "completed")
    server.stop()

    again = paddock.refused("backup", str(kept), "--db", "app.db")
    assert "is there already" in again
    folder = tmp_path / "backups"
    folder.mkdir()
    found = json.loads(paddock.ok("backup", str(folder), "--db", "app.db", "--json"))
    assert [str(path) for path in folder.iterdir()] == [found["file"]]
    assert os.path.basename(found["file"]).startswith("app-2")
    assert "cannot be written" in paddock.refused("backup", "nowhere/a.db", "--db", "app.db")
    assert "pg_dump" in paddock.refused("backup", "a.db", "--db", "postgresql://nobody/x")

    shutil.copy(kept, tmp_path / "app.db")  # as one restores: no server runs, no -wal is there
    server = ServerProcess(tmp_path)
    paddock.until("kept", "waiting")
    paddock.ok("signal", "kept", "guess", "4", "--db", "app.db")
    paddock.until("kept", "completed")
    server.stop()


def test_no_backup_is_made_of_what_is_damaged(paddock, tmp_path):
    ServerProcess(tmp_path).stop()
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'paddock_steps'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    assert "damaged" in paddock.refused("backup", "copy.db", "--db", "app.db")
    assert sorted(name for name in os.listdir(tmp_path) if "copy" in name) == []
