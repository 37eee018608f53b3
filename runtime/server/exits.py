"""Notice that a process has ended: by its pidfd on the event loop, elsewhere by looking now and then."""

from __future__ import annotations

import asyncio

from ...watchdog.identity import ProcessHandle, ProcessIdentity, is_alive

__all__ = ["ended"]

_LOOK = 0.05


async def ended(identity: ProcessIdentity) -> None:
    """Return once this very process is dead (a reused pid is another process)."""
    handle = ProcessHandle.open(identity)
    if handle is None:
        return
    try:
        if handle.fileno() < 0:
            while is_alive(identity):  # noqa: ASYNC110  there is nothing to wait on without pidfds
                await asyncio.sleep(_LOOK)
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        loop.add_reader(handle.fileno(), _wake, done)
        try:
            await done
        finally:
            loop.remove_reader(handle.fileno())
    finally:
        handle.close()


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():  # a pidfd stays readable: the loop may call twice
        done.set_result(None)
