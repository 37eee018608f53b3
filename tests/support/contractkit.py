"""What the contract's tests do again and again: wait for an event, collect names, let a server come to rest."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from paddock import AppServer, Event, WatchdogConfig

DEADLINE = 30.0
"""Seconds that anything may take on a busy machine; what takes that long has failed."""

MODES: dict[str, dict[str, Any]] = {
    "inline": {"launcher": "inline"},
    "fork": {"launcher": "fork", "transport": "unix"},
    "spawn": {"launcher": "spawn"},
    "tcp": {"launcher": "fork", "transport": "tcp"},
}


UNWATCHED = WatchdogConfig(enabled=False)
"""For a server of a test's own, where a watchdog would only cost the start of an interpreter; the shared ones have theirs."""


async def until(
    server: AppServer,
    pattern: str,
    instance_id: str | None = None,
    *,
    after: int = 0,
    where: Callable[[Event], bool] = lambda _event: True,
) -> Event:
    """Return the first event that matches, past or to come."""
    async with asyncio.timeout(DEADLINE):
        async for event in server.events.subscribe(pattern, instance_id=instance_id, after=after):
            if where(event):
                return event
    raise AssertionError("the subscription ended")


async def became(check: Callable[[], Any]) -> Any:
    """Return what `check` returns as soon as that is true; for what no event tells of."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = check()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)


async def past(server: AppServer, instance_id: str, pattern: str = "workflow.*") -> list[Event]:
    """Return an instance's events, as kept."""
    return await server.events.history(pattern, instance_id=instance_id, limit=1000)


def names(events: list[Event]) -> list[str]:
    """Return the events' names without their first word."""
    return [event.name.removeprefix("workflow.") for event in events]


def sockets() -> int:
    """Count the sockets that this process holds."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except OSError:
            continue
    return found


async def at_rest(server: AppServer, held: int) -> None:
    """Return once no child lives and no more sockets are open than `held`."""

    async def quiet() -> bool:
        return sockets() <= held and all(row["role"] != "child" for row in await server.processes())

    await became(quiet)
