"""The short kill loop; `make chaos` is the long one. A seed that fails is in the message: `make chaos CHAOS_ARGS="--seed N"`."""

import secrets
from pathlib import Path

import pytest
from chaoskit import Chaos, storm


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("cancels", [False, True])
async def test_everything_completes_whoever_is_killed(tmp_path: Path, cancels: bool):
    """Instances of all kinds under kills and stops; some of them cancelled. What is drawn is another each time."""
    said: list[str] = []
    chaos = Chaos(
        secrets.randbelow(10**6), 10 if cancels else 12, 14 if cancels else 28, cancels=cancels, say=said.append
    )
    found = await storm(chaos, tmp_path, deadline=150)
    assert not found, "\n".join([f"seed {chaos.seed}: {chaos.killed}", *said[-40:], *found])
    assert sum(chaos.killed.values()) >= chaos.kills
