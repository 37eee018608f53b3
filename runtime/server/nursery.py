"""The server's side of the fork server: keeps one alive, asks it for children, hears of their deaths."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ...ipc.connection import Connection, adopt_socket
from ...ipc.errors import IpcError
from ...ipc.messages import Boot, Exited, Fork, Forked, ForkFailed, Message, Shutdown, Warm, Warmed
from ...watchdog.identity import identify
from ...watchdog.tree import end_tree
from ..base.errors import MachineError
from ..base.log import get_logger
from ..base.probes import reach
from ..child.main_module import describe_main
from ..child.spec import Needs
from .exits import ended_or_stopped
from .heirs import leave

__all__ = ["ForkOrder", "LauncherGone", "Nursery"]

_RESTART_FIRST, _RESTART_LAST = 0.05, 5.0
_WARM_TIMEOUT = 60.0
_SLOW_WARM_UP = 15.0
_log = get_logger("paddock.nursery")


class LauncherGone(MachineError):
    """The fork server died, or is not to be asked any more; whether a child exists that it was asked for is unknown."""


@dataclass(frozen=True, slots=True)
class ForkOrder:
    """One child to be made."""

    slot: int
    instance_id: str
    epoch: int
    spec: str = field(repr=False)
    python: str | None = None
    environ: dict[str, str | None] | None = field(default=None, repr=False)


class Nursery:
    """Keep a fork server.

    Args:
        mode: "fork" copies the warm process, "spawn" starts a fresh interpreter for each child.
        beats_path: the beat table.
        modules: asked for the modules to import, at each start of a fork server.
        exited: called with each death that it reports.
        needs: what a child may be given before its order.
    """

    def __init__(
        self,
        mode: Literal["fork", "spawn"],
        beats_path: str,
        modules: Callable[[], list[str]],
        exited: Callable[[Exited], None],
        needs: Needs | None,
    ) -> None:
        """Hold the parts; `start` starts."""
        self._mode = mode
        self._beats_path = beats_path
        self._modules = modules
        self._exited = exited
        self._needs = needs
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._requests: dict[int, asyncio.Future[Forked]] = {}
        self._next = 0
        self._warmed: asyncio.Future[None] | None = None
        self._known: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._refusing = False
        self._warned = False
        self._failure: str | None = None
        self._born = 0.0
        self.failures: dict[str, str] = {}
        self.unfit: list[str] = []

    @property
    def pid(self) -> int | None:
        """Return the fork server's pid."""
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        """Tell whether a fork server is there to report deaths."""
        return self._connection is not None and not self._connection.closed

    @property
    def trouble(self) -> str | None:
        """Say why no child can be forked just now, where that is so."""
        if self._process is None or self._process.poll() is not None:
            return f"it is not there, and is being replaced{f' ({self._failure})' if self._failure else ''}"
        if self._warmed is not None and not self._warmed.done():
            waited = time.monotonic() - self._born
            return (
                f"it has been importing modules for {waited:.0f}s; no child can start"
                if waited > _SLOW_WARM_UP
                else None
            )
        if self.unfit and self._mode == "fork":
            return f"imported modules left threads behind ({', '.join(self.unfit)}); children are spawned"
        return None

    async def start(self) -> None:
        """Start the first fork server; it warms up in the background."""
        self._warmed = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(), name="paddock-nursery")

    async def _keep(self) -> None:
        """Keep a fork server alive, with growing pauses when it dies young."""
        pause = _RESTART_FIRST
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            born = loop.time()
            try:
                await self._serve()
            except (OSError, IpcError) as error:
                self._failure = str(error)
                _log.error("the fork server cannot be started", error=str(error))
            await self._gone()
            pause = _RESTART_FIRST if loop.time() - born > _RESTART_LAST else min(pause * 2, _RESTART_LAST)
            if not self._stopping.is_set():
                _log.warning("the fork server died and is replaced", pause=pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()

    async def _serve(self) -> None:
        self._born = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220  our own interpreter and module; starting it takes a millisecond
                [sys.executable, "-P", "-m", "paddock.runtime.child.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # it outlives a server whose pipe somebody reads to its end
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            connection = self._connection = await adopt_socket(ours)
        except BaseException:
            ours.close()
            raise
        path, module = describe_main()
        modules = [] if self._mode == "spawn" else self._modules()
        self._known = set(modules)
        connection.send(
            Boot(
                sys_path=list(sys.path),
                main_path=path,
                main_module=module,
                modules=modules,
                beats_path=self._beats_path,
                cwd=os.getcwd(),
                argv=list(sys.argv),
                needs=self._needs.model_dump_json() if self._needs is not None else None,
            )
        )
        if self._stopping.is_set():
            connection.send(Shutdown())  # `stop` came before there was a line to say it on
        watch = asyncio.create_task(self._end_if_stopped(self._process), name="paddock-nursery-watch")
        try:
            while (message := await connection.receive()) is not None:
                self._take(message)
        finally:
            watch.cancel()

    async def _end_if_stopped(self, process: subprocess.Popen[bytes]) -> None:
        """End a fork server that is stopped: it holds up every start, and nobody beats for it."""
        await ended_or_stopped(process.pid)
        process.kill()

    def _take(self, message: Message) -> None:
        if isinstance(message, Forked):
            request = self._requests.pop(message.request_id, None)
            if request is not None and not request.done():
                request.set_result(message)
        elif isinstance(message, ForkFailed):
            request = self._requests.pop(message.request_id, None)
            if request is not None and not request.done():
                request.set_exception(MachineError(f"no child could be made: {message.reason}"))
        elif isinstance(message, Exited):
            self._exited(message)
        elif isinstance(message, Warmed):
            self._take_warmed(message)

    def _take_warmed(self, message: Warmed) -> None:
        self.failures.update(message.failures)
        self.unfit = list(message.threads)
        for name, reason in message.failures.items():
            _log.warning("the fork server could not import a module; each child will try", module=name, reason=reason)
        if message.threads and self._mode == "fork" and not self._warned:
            self._warned = True
            _log.warning(
                "imported modules left threads behind, which a fork would break; children get a fresh interpreter instead",
                threads=message.threads,
            )
        if self._warmed is not None and not self._warmed.done():
            self._warmed.set_result(None)

    async def _gone(self) -> None:
        """Let go of a fork server that is gone: whoever waits for a child learns that nobody knows."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.poll()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 1.0)  # its channel is closed: it is dead, or about to be
        self._process = None
        if self._warmed is not None and self._warmed.done() and not self._refusing:
            self._warmed = asyncio.get_running_loop().create_future()
        self.give_up("the fork server died during a request")

    def refuse(self) -> None:
        """Ask for no more children; who waits for a fork server to come up is told at once."""
        self._refusing = True
        if self._warmed is not None and not self._warmed.done():
            self._warmed.set_result(None)

    def give_up(self, reason: str) -> None:
        """Wait for no answer any more: nobody knows whether the children exist that were asked for."""
        requests, self._requests = self._requests, {}
        for request in requests.values():
            if not request.done():
                request.set_exception(LauncherGone(reason))

    async def fork(self, order: ForkOrder) -> Forked:
        """Have a child made; return its pid and start time.

        Raises:
            LauncherGone: the fork server died meanwhile, or the server stops.
            MachineError: it could not make one.
        """
        if self._warmed is not None:
            try:
                async with asyncio.timeout(_WARM_TIMEOUT):
                    await asyncio.shield(self._warmed)
            except TimeoutError:
                raise MachineError(f"the fork server has not come up within {_WARM_TIMEOUT:g}s") from None
        connection = self._connection
        if self._refusing or connection is None or connection.closed:
            raise LauncherGone("there is no fork server just now")
        if self._mode == "fork":
            fresh = [name for name in self._modules() if name not in self._known]
            if fresh:
                self._known.update(fresh)
                connection.send(Warm(modules=fresh))
        self._next += 1
        request: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._requests[self._next] = request
        try:
            connection.send(
                Fork(
                    request_id=self._next,
                    mode="spawn" if order.python is not None else self._mode,
                    slot=order.slot,
                    instance_id=order.instance_id,
                    epoch=order.epoch,
                    spec=order.spec,
                    python=order.python,
                    environ=order.environ,
                )
            )
        except IpcError as error:
            self._requests.pop(self._next, None)
            raise LauncherGone(str(error)) from None
        reach("server.fork.sent")
        return await request

    async def stop(self, *, handover: bool = False) -> None:
        """End the fork server. At a handover it stays for its children, whose deaths it notes for the next server, and ends after them."""
        self.refuse()
        self._stopping.set()
        if handover:
            await self._let_go()
            return
        if self._connection is not None and not self._connection.closed:
            with contextlib.suppress(IpcError):
                self._connection.send(Shutdown())
        process = self._process
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=2.0)
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait({self._task})
        if process is not None and process.poll() is None:
            await asyncio.to_thread(end_tree, identify(process.pid))  # with a child that it may just have made
            await asyncio.to_thread(process.wait)
        await self._gone()

    async def _let_go(self) -> None:
        process, self._process = self._process, None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if process is not None:
            leave(process)
        await self._gone()
