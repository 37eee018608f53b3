"""An engine on a memory store, by a clock that jumps."""

from collections.abc import AsyncIterator

import pytest
from enginekit import Engine, an_engine


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with an_engine() as made:
        yield made
