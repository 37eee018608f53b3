"""What a child works with, made before its order: used where the order names the same, and otherwise let go of."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from childkit import told

from paddock import DatabaseUnavailable
from paddock.runtime.base.config import SqlitePragmas
from paddock.runtime.child.outfit import Outfit
from paddock.runtime.child.spec import Needs
from paddock.runtime.store.sql_store import SqlStore
from paddock.runtime.store.sqlite import SqliteStore
from paddock.watchdog.beats import BeatTable

_PRAGMAS = SqlitePragmas()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in ("one.db", "two.db"):
        SqliteStore.open(str(tmp_path / name), _PRAGMAS).close()
    with contextlib.closing(BeatTable.create(str(tmp_path / "beats"), 1)):
        yield tmp_path


@pytest.fixture
def outfit(folder: Path) -> Outfit:
    made = Outfit(Needs(database=str(folder / "one.db"), pragmas=_PRAGMAS, beats_path=str(folder / "beats")))
    made.make_ahead(
        ["INSERT INTO paddock_metadata VALUES (?, ?, ?)", "SELECT 1 FROM paddock_leases", "no statement at all"],
    )
    return made


def rows_of(store: SqlStore) -> int:
    return store._writer.call_now(lambda tx: tx.execute("SELECT count(*) FROM paddock_metadata").fetchone()[0])


def test_it_is_used_where_the_order_names_the_same(folder: Path, outfit: Outfit):
    ahead = outfit._database
    assert ahead is not None
    found = outfit.database(told(folder, "one.db"))
    with (
        contextlib.closing(found[1]),
        contextlib.closing(outfit.table(told(folder, "one.db"))) as table,
        outfit.runner() as runner,
    ):
        assert found is ahead
        assert table.read(0).instance_id == ""
        assert rows_of(found[1]) == 0  # what was compiled was not executed
        assert runner.get_loop() is runner.get_loop()


@pytest.mark.parametrize("other", [{"database": "two.db"}, {"pragmas": SqlitePragmas(synchronous="NORMAL")}])
def test_an_order_that_says_otherwise_is_followed(folder: Path, outfit: Outfit, other: dict):
    ahead = outfit._database
    assert ahead is not None
    wanted = told(folder, **{"database": "one.db", **other})
    database, store = outfit.database(wanted)
    with contextlib.closing(store), contextlib.closing(outfit.table(wanted)), outfit.runner():
        assert database.name == wanted.database
        assert store is not ahead[1]
        with pytest.raises(DatabaseUnavailable, match="closed"):
            rows_of(ahead[1])


def test_what_cannot_be_made_ahead_fails_where_it_is_needed(tmp_path: Path):
    outfit = Outfit(Needs(database=str(tmp_path / "none.db"), pragmas=_PRAGMAS, beats_path=str(tmp_path / "none")))
    outfit.make_ahead(())
    with outfit.runner(), pytest.raises(DatabaseUnavailable, match=r"none\.db"):
        outfit.database(told(tmp_path, "none.db"))
    with pytest.raises(OSError, match="beats"):
        outfit.table(told(tmp_path))


def test_what_was_compiled_ahead_is_not_compiled_again(folder: Path):
    read, write = (
        "SELECT value FROM paddock_metadata WHERE instance = ?",
        "DELETE FROM paddock_metadata WHERE instance = ?",
    )
    compiled: list[object] = []
    with contextlib.closing(SqliteStore(str(folder / "one.db"), _PRAGMAS, reader=False)) as store:
        connection = store._sqlite._connection
        connection.set_authorizer(lambda *what: compiled.append(what) or sqlite3.SQLITE_OK)  # asked when one compiles
        for statement in (read, write):
            store.prepare([statement])
            assert compiled
            compiled.clear()
            connection.execute(statement, (1,)).fetchall()
            assert not compiled
