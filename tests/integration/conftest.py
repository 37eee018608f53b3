"""The stage that crash tests play on."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from crashkit import DATABASE, Stage, stage_in


@pytest.fixture
async def stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Stage]:
    """Give a database of its own, and a ledger; `PADDOCK_TEST_STAGE=postgres` sets it all on PostgreSQL, where it is not about files."""
    if os.environ.get("PADDOCK_TEST_STAGE") == "postgres":
        monkeypatch.setenv(DATABASE, request.getfixturevalue("postgres_url"))
    async with stage_in(tmp_path) as found:
        yield found


@pytest.fixture
async def pg_stage(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Give a stage on PostgreSQL."""
    monkeypatch.setenv(DATABASE, postgres_url)
    async with stage_in(tmp_path) as found:
        yield found
