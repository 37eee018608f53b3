"""What the tests of flows do again and again, on a server in memory."""

import asyncio
from typing import Any

from contractkit import DEADLINE

import paddock.testing
from paddock import Instance


async def suspended(server: Any, instance_id: str, reason: str, step: str | None = None, *, after: int = 0) -> Instance:
    """Return the instance once it has given its process back for this reason, at this step."""
    async with asyncio.timeout(DEADLINE):
        async for _ in server.events.subscribe("workflow.suspended", instance_id=instance_id, after=after):
            instance = await server.workflows.get_instance(instance_id)
            if instance.status == reason and step in (None, instance.current_step):
                return instance
    raise AssertionError("the subscription ended")


async def run(definition: Any, input: Any = None, *also: Any, signals: dict[str, Any] | None = None) -> Instance:
    """Run a workflow on a server in memory to its end (or to where it is blocked)."""
    async with paddock.testing.server(register=[definition, *also]) as server:
        ident = await server.workflows.start(definition, input)
        for name, payload in (signals or {}).items():
            await server.workflows.signal(ident, name, payload)
        return await ended(server, ident)


def outputs(instance: Instance) -> dict[str, Any]:
    """Return the outputs of completed steps by key."""
    return {key: step.output for key, step in instance.step_results.items() if step.status == "completed"}


async def ended(server: Any, instance_id: str) -> Instance:
    """Return the instance once it has ended or is blocked; say where it stands when it does not come to that."""
    try:
        return await server.workflows.wait(instance_id, timeout=DEADLINE)
    except TimeoutError:
        instance = await server.workflows.get_instance(instance_id)
        events = await server.events.history("workflow.*", instance_id=instance_id, limit=1000)
        told = [f"{event.id} {event.name} {event.data.get('step', event.data.get('reason', ''))}" for event in events]
        raise AssertionError(f"stuck as {instance.status} at {instance.current_step}: {told}") from None
