"""Code that holds the database's write lock while it waits for a durable call fails, and holds up nobody else."""

import pytest
import transactionflows as flows
from crashkit import Stage

pytestmark = pytest.mark.slow

HELD = [
    flows.holds_locally,
    flows.holds_for_ever,
    flows.holds_core,
    flows.holds_in_a_thread,
    flows.holds_in_a_handler,
    flows.holds_inline,
]


async def test_a_transaction_held_over_a_durable_call_fails_its_step(stage: Stage):
    async with stage.server(sqlite_pragmas={"busy_timeout": "100ms"}) as server:
        for held in HELD:
            server.workflows.register(held)
            found = await server.workflows.wait(await server.workflows.start(held, str(stage.db)), timeout=60)
            assert (found.status, found.error.type, found.error.step) == ("failed", "OpenTransaction", "a"), held.name
            assert "commit it before the call" in found.error.message
            assert (found.executions, found.step_results["a"].attempts) == (1, 1), held.name


async def test_a_transaction_that_ends_by_itself_is_waited_for(stage: Stage):
    async with stage.server(sqlite_pragmas={"busy_timeout": "50ms"}) as server:
        server.workflows.register(flows.ends_it_after_all)
        assert await server.workflows.run(flows.ends_it_after_all.name, str(stage.db), timeout=60) == 1
