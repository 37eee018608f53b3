"""Serve until a signal says otherwise, as a service does that runs under systemd, in a container or in a terminal.

| signal | while it serves | while it stops |
|---|---|---|
| SIGTERM, SIGINT | drain: claim nothing more, give steps in flight `kill_grace`, end | the grace is over now; a third one ends the process on the spot |
| SIGHUP | [try out](trial.py) what would be executed; then hand the children over to the next server, which is this program executed anew | nothing |

A [service manager](service_manager.py) that wants to know is told of each. An embedding application's signals and its garbage collector are
its own: nothing here is touched unless it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from enum import StrEnum
from typing import Any, NoReturn, Protocol

from ..base.errors import MachineError
from ..base.log import get_logger
from .heirs import bequeath
from .service_manager import ServiceManager
from .trial import Trial, try_program

__all__ = ["Farewell", "Servable", "serve_program", "serve_until_signalled"]

_ENDING = {signal.SIGTERM, signal.SIGINT}
_HANDLED = (*_ENDING, signal.SIGHUP)

Beside = Callable[[], AbstractAsyncContextManager[Any]]
_log = get_logger("paddock.server")


class Farewell(StrEnum):
    """How a server that served until a signal has ended."""

    STOPPED = "stopped"  # its processes are gone, its instances resumable; the program ends
    HANDED_OVER = "handed over"  # its children run on; the program executes itself anew (`_reexecute`)


class Servable(Protocol):
    """What is served: an `AppServer`."""

    async def start(self) -> None:
        """Start."""

    async def stop(self, *, handover: bool = False) -> None:
        """Stop."""

    def hurry(self) -> None:
        """Cut the stop short."""


async def serve_until_signalled(server: Servable, beside: Beside | None = None, trial: Trial = try_program) -> Farewell:
    """Start a server, serve until SIGTERM, SIGINT or SIGHUP, and stop it as that signal wants.

    Args:
        server: not started yet, or started already.
        beside: makes a context that is entered once the server has started and left before it stops (an HTTP front end). It must leave
            the three signals alone.
        trial: tries out what would be executed after a SIGHUP; where it finds a fault, that is logged, and this server serves on.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[signal.Signals] = asyncio.Queue()
    async with ServiceManager() as manager:
        with _listening(loop, asked):
            return await _serve(server, beside, trial, asked, manager)


def serve_program(server: Servable, beside: Beside | None = None, trial: Trial = try_program) -> None:
    """Run a loop that serves until a signal, and execute the program anew where that signal wants it; raises MachineError."""
    if asyncio.run(serve_until_signalled(server, beside, trial)) is Farewell.HANDED_OVER:
        _reexecute()


async def _serve(
    server: Servable, beside: Beside | None, trial: Trial, asked: asyncio.Queue[signal.Signals], manager: ServiceManager
) -> Farewell:
    stack = AsyncExitStack()
    starting = asyncio.create_task(_start(server, beside, stack, manager), name="paddock-serve-start")
    try:
        first = await _first(_wish(asked, trial, manager), starting)
    except BaseException:  # what stands beside did not come up, or we are cancelled: nothing may stay
        await stack.aclose()
        await server.stop()
        raise
    return await _end(server, stack, first, asked, manager)


async def _start(server: Servable, beside: Beside | None, stack: AsyncExitStack, manager: ServiceManager) -> None:
    await server.start()
    if beside is not None:
        await stack.enter_async_context(beside())
    gc.freeze()  # what is there now stays, and a collection that went through all of it would hold up the loop for tens of milliseconds
    stack.callback(gc.unfreeze)
    manager.ready()


async def _wish(asked: asyncio.Queue[signal.Signals], trial: Trial, manager: ServiceManager) -> signal.Signals:
    """Return the signal that is to be followed: one that ends, or SIGHUP once what would be executed has stood its trial."""
    while True:
        wish = await asked.get()
        if wish is not signal.SIGHUP:
            return wish
        manager.reloading()
        trying = asyncio.create_task(_tried(trial), name="paddock-serve-trial")
        try:
            heard = await _heard(asked, trying)
        finally:
            trying.cancel()
            await asyncio.wait({trying})
        if ending := heard & _ENDING:
            return ending.pop()
        if (fault := trying.result()) is None:
            return wish
        _log.error("not restarted: what would be executed cannot be loaded; this server serves on", reason=fault)
        manager.refused(fault)
        if heard:  # the fault may have been mended meanwhile
            asked.put_nowait(wish)


async def _tried(trial: Trial) -> str | None:
    try:
        return await trial()
    except Exception as error:  # noqa: BLE001  a trial that cannot be held is no reason to end what serves
        return f"it could not be tried out: {type(error).__name__}: {error}"


async def _first(wish: Coroutine[Any, Any, signal.Signals], starting: asyncio.Task[None]) -> signal.Signals:
    """Return the first signal. One that comes before the start is over ends the start; a start that fails raises."""
    signalled = asyncio.create_task(wish, name="paddock-serve-signal")
    try:
        await asyncio.wait({signalled, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        if not starting.cancelled():
            await starting
        return await signalled
    except BaseException:
        signalled.cancel()
        starting.cancel()
        await asyncio.wait({signalled, starting})
        raise


async def _end(
    server: Servable,
    stack: AsyncExitStack,
    first: signal.Signals,
    asked: asyncio.Queue[signal.Signals],
    manager: ServiceManager,
) -> Farewell:
    handover = first is signal.SIGHUP
    if not handover:
        manager.stopping()
    leaving = asyncio.create_task(stack.aclose(), name="paddock-serve-leave")
    again = await _hurried(server, leaving, asked)
    if again:
        leaving.cancel()
        await asyncio.wait({leaving})
        handover = False
        manager.stopping()
    stopping = asyncio.create_task(server.stop(handover=handover), name="paddock-serve-stop")
    if again:
        await asyncio.sleep(0)  # it has to have begun before it can be cut short
        server.hurry()
    again = await _hurried(server, stopping, asked) or again
    await stopping
    if not leaving.cancelled():
        await leaving
    if not handover:
        return Farewell.STOPPED
    if again:  # to be ended after all: take the children back, and let them drain
        manager.stopping()
        await server.start()
        await server.stop()
        return Farewell.STOPPED
    return Farewell.HANDED_OVER


async def _hurried(server: Servable, task: asyncio.Task[None], asked: asyncio.Queue[signal.Signals]) -> bool:
    """Wait for a task; True as soon as another signal asks for the end. From then on a signal does what it does by default."""
    if not await _heard(asked, task) & _ENDING:
        return False
    for number in _ENDING:
        asyncio.get_running_loop().remove_signal_handler(number)
    server.hurry()
    return True


async def _heard(asked: asyncio.Queue[signal.Signals], task: asyncio.Task[Any]) -> set[signal.Signals]:
    """Wait for a task, but no longer than until a signal asks for the end; return the signals that came meanwhile."""
    heard: set[signal.Signals] = set()
    while not (task.done() or heard & _ENDING):
        more = asyncio.create_task(asked.get(), name="paddock-serve-signal")
        try:
            await asyncio.wait({task, more}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not more.done():
                more.cancel()
        if not more.cancelling():
            heard.add(more.result())
    return heard


@contextlib.contextmanager
def _listening(loop: asyncio.AbstractEventLoop, asked: asyncio.Queue[signal.Signals]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _HANDLED}
    for number in _HANDLED:
        loop.add_signal_handler(number, asked.put_nowait, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _reexecute() -> NoReturn:
    """Execute this program anew in this process: same command line, pid, working directory and standard streams.

    Call it after a handover, outside of the event loop. What is still open and not inheritable is closed.

    Raises:
        MachineError: the interpreter cannot be executed any more; the process goes on.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    bequeath()
    try:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  our own interpreter, and the arguments that it was started with
    except OSError as error:
        raise MachineError(
            f"{sys.executable} cannot be executed anew: {error.strerror}; start the program again"
        ) from None
