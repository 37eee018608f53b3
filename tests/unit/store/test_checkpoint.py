"""The checkpointer, and a file that is ruined beside it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from paddock import SqlitePragmas
from paddock.runtime.base.errors import DatabaseDamaged
from paddock.runtime.store.checkpoint import Checkpointer
from paddock.runtime.store.sqlite import SqliteStore
from paddock.runtime.store.turn import LockFile


class _Turn:
    """The writers' turn; right after it was given back the file is cut, where that is wanted."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = LockFile.of(path)
        self.cut = False

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._lock.__exit__(*exc)
        if self.cut:
            os.truncate(self._path, os.stat(self._path).st_size - 4096)


def test_a_file_that_is_cut_right_after_a_checkpoint_is_noticed_by_the_next(tmp_path: Path):
    path = str(tmp_path / "app.db")
    pragmas = SqlitePragmas()
    store = SqliteStore.open(path, pragmas)
    turn = _Turn(path)
    checkpointer = Checkpointer(path, pragmas, turn)  # type: ignore[arg-type]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE filling (text)")
        assert checkpointer.run(least_bytes=0)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN").execute(
                "SELECT count(*) FROM filling"
            ).fetchone()  # so that the WAL goes on to be read
            other.execute("INSERT INTO filling VALUES (zeroblob(100000))")
            turn.cut = True
            checkpointer.run(least_bytes=0)
            turn.cut = False
            with pytest.raises(DatabaseDamaged, match="was cut to"):
                checkpointer.run(least_bytes=0)
    checkpointer.close()
    store.close()
