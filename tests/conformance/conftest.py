"""Every store there is, one after the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock import SqlitePragmas
from paddock.runtime.store.sqlite import MemoryStore, SqliteStore


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    pragmas = SqlitePragmas(synchronous="NORMAL")  # a power cut is not what these tests try
    opened = MemoryStore() if request.param == "memory" else SqliteStore.open(str(tmp_path / "app.db"), pragmas)
    yield opened
    opened.close()
