"""A child that dies in the middle of a write, or whose commit fails, at any of them: nothing acknowledged is lost, nothing runs twice.

By strace, where it is installed; the skip says so where it is not.
"""

import secrets
from random import Random

import pytest
from crashflows import result_of
from crashkit import Stage, pid_of, proven, until
from tracing import Strace, why_not

from paddock import AppServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _can_be_tried() -> None:
    """Say why nothing is tried, where nothing is."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)


async def struck(stage: Stage, server: AppServer, ident: str, n: int, inject: str) -> None:
    """Run an instance whose processes meet a fault; when three of them have met it, or it has completed, the disk is well again."""
    with Strace(await pid_of(server, "fork-server"), inject):
        await server.workflows.start("everything", {"n": n}, id=ident)
        await until(
            lambda: stage.sql(
                "SELECT 1 FROM paddock_instances WHERE id = ? AND (epoch > 3 OR status = 'completed')", ident
            ),
            f"{inject}: three deaths or the end",
        )
    await proven(server, ident, result_of(n))


@pytest.mark.parametrize("fault", ["fdatasync:error=EIO", "pwrite64:signal=KILL"])
async def test_a_child_is_struck_at_any_write(stage: Stage, fault: str):
    """At the nth page that it writes, or the nth commit; the seed is another each time. The file is whole afterwards."""
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    async with stage.server(max_resumes=100) as server:
        for n in Random(seed).sample(range(1, 12 if "EIO" in fault else 60), 3):
            await struck(stage, server, f"at-{n}", n % 4 + 1, f"{fault}:when={n}")
    assert stage.sql("PRAGMA integrity_check") == [("ok",)]
