"""Notice that a process has ended: by its pidfd on the event loop, elsewhere by looking now and then."""

from __future__ import annotations

import asyncio

from ...watchdog.identity import ProcessHandle, ProcessIdentity, identify, is_alive, process_state

__all__ = ["ended", "ended_or_stopped"]

_LOOK = 0.05
_LOOK_AGAIN = 0.5
_STOPPED_LOOKS = 2
_STOPPED = "T"  # not t: who debugs it may


async def ended(identity: ProcessIdentity) -> None:
    """Return once this very process is dead (a reused pid is another process).

    Where no descriptor is left to look with, it looks again: whoever waits here has nobody else to tell it.
    """
    while True:
        try:
            return await _ended(identity)
        except OSError:
            await asyncio.sleep(_LOOK_AGAIN)


async def _ended(identity: ProcessIdentity) -> None:
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


async def ended_or_stopped(pid: int) -> None:
    """Return once a child of this process is dead, or has been stopped (SIGSTOP) for about a second. For the server's own helpers."""
    looks = 0
    gone: asyncio.Future[None] | None = None
    try:
        while looks < _STOPPED_LOOKS:
            try:
                gone = gone or asyncio.ensure_future(ended(identify(pid)))
                if (await asyncio.wait({gone}, timeout=_LOOK_AGAIN))[0]:
                    return
                looks = looks + 1 if process_state(pid)[0] == _STOPPED else 0
            except ProcessLookupError:
                return
            except OSError:  # no descriptor left to look with
                await asyncio.sleep(_LOOK_AGAIN)
    finally:
        if gone is not None:
            gone.cancel()


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():  # a pidfd stays readable: the loop may call twice
        done.set_result(None)
