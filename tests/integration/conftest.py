"""The stage that crash tests play on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from crashkit import DATABASE, Stage, stage_in


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Give a database of its own, and a ledger."""
    async with stage_in(tmp_path) as found:
        yield found


@pytest.fixture
async def pg_stage(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Give a stage on PostgreSQL."""
    monkeypatch.setenv(DATABASE, postgres_url)
    async with stage_in(tmp_path) as found:
        yield found
