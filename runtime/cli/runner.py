"""One instance from start to end, with a server made for it: followed, timed, and cancelled when somebody presses Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from rich.console import Console

from ..base.config import WorkflowsConfig
from ..base.records import Event, Instance
from ..engine.definition import Definition
from ..server.app import AppServer
from .output import print_json
from .progress import Progress

__all__ = ["Order", "Outcome", "run_one"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, and how. `timeout` is in seconds."""

    definition: Definition
    module: str
    input: Any
    database: str
    id: str | None
    timeout: float | None
    launcher: Literal["fork", "spawn", "inline"]
    plugins: tuple[str, ...]
    stream: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: by itself, by a signal to us, or because its time was over."""

    instance: Instance
    interrupted: bool = False
    late: bool = False


async def run_one(order: Order, screen: Console) -> Outcome:
    """Start a server, run the instance to its end, stop the server.

    Raises:
        PaddockError: the server or the instance could not be started.
    """
    _log_to_stderr()
    # What else is unfinished in the database is left alone, unless the id is that of an instance that was begun before.
    server = AppServer(
        order.database,
        plugins=order.plugins,
        workflows=WorkflowsConfig(
            launcher=order.launcher,
            resume="skip",
            kill_grace=_GRACE,
            cleanup_days=0,
        ),
    )
    server.workflows.register(order.definition, module=order.module)
    with ExitStack() as stack:
        if order.launcher == "inline":
            stack.enter_context(redirect_stdout(sys.stderr))  # what handlers print is not the result
        stopped = _on_signals(stack)
        async with server:
            return await _follow(server, order, screen, stopped)


async def _follow(server: AppServer, order: Order, screen: Console, stopped: asyncio.Event) -> Outcome:
    with Progress(screen, order.definition.name) as progress:
        early: list[Event] = []
        wanted: list[str] = []

        def take(event: Event) -> None:
            if not wanted:
                early.append(event)  # it may be ours: `start` has not told its id yet
            elif event.instance_id == wanted[0]:
                progress.take(event)
                if order.stream:
                    _print_event(event)

        unsubscribe = server.events.on("*", take)
        try:
            begun = order.id is not None and await server.workflows.get_instance(order.id) is not None
            wanted.append(await server.workflows.start(order.definition.name, order.input, id=order.id))
            for event in early:
                take(event)
            if begun:
                await server.workflows.resume()
            return await _wait(server, wanted[0], order.timeout, stopped)
        finally:
            unsubscribe()


async def _wait(server: AppServer, ident: str, timeout: float | None, stopped: asyncio.Event) -> Outcome:
    ended = asyncio.create_task(server.workflows.wait(ident))
    signalled = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({ended, signalled}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return Outcome(await ended)
        await server.workflows.cancel(ident)
        interrupted = signalled.done()
        return Outcome(await server.workflows.wait(ident), interrupted=interrupted, late=not interrupted)
    finally:
        for task in (ended, signalled):
            task.cancel()
        await asyncio.gather(ended, signalled, return_exceptions=True)


def _print_event(event: Event) -> None:
    if event.name == "workflow.stream":
        print_json(event.data.get("chunk"))
    elif event.name == "workflow.event":
        print_json({"event": event.data["event"], "data": event.data["data"]})


def _on_signals(stack: ExitStack) -> asyncio.Event:
    """Let the first signal end the run in order; return what it sets."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopped.set)
        stack.callback(loop.remove_signal_handler, number)
    return stopped


def _log_to_stderr() -> None:
    """Keep stdout for the result: structlog would print there."""
    factory: Callable[..., Any] = structlog.PrintLoggerFactory(sys.stderr)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=factory,
    )
