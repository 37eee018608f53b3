"""Every store there is, one after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock import SqlitePragmas
from paddock.runtime.store.sql_store import SqlStore
from paddock.runtime.store.sqlite import MemoryStore, SqliteStore


@pytest.fixture(scope="session")
def kept_schema(postgres: Any) -> Iterator[str]:
    """Give a schema that is emptied for each test: to make one anew takes longer than most of them."""
    from pgkit import schema

    with schema(postgres) as url:
        yield url


@pytest.fixture(params=["file", "memory", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    pragmas = SqlitePragmas(synchronous="NORMAL")  # a power cut is not what these tests try
    opened: SqlStore
    if request.param == "postgres":
        from pgkit import emptied

        from paddock.runtime.store.postgres.session import Target
        from paddock.runtime.store.postgres.store import PostgresStore

        url = request.getfixturevalue("kept_schema")
        emptied(url)
        opened = PostgresStore.open(Target(url))
    else:
        opened = MemoryStore() if request.param == "memory" else SqliteStore.open(str(tmp_path / "app.db"), pragmas)
    yield opened
    opened.close()
