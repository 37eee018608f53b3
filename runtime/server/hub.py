"""The hub: where the server is spoken to. Children report to it, the watchdog announces what it does, the command line asks.

A child is found again by what it says (instance, epoch, pid, token), never by a pid alone. What is said is for speed and for the record;
the database is what counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal

from ...ipc.address import TcpAddress, UnixAddress, format_address
from ...ipc.bell import Bell
from ...ipc.connection import Connection
from ...ipc.errors import AddressInUse, IpcError
from ...ipc.listener import Listener
from ...ipc.messages import (
    Cancel,
    Committed,
    Drain,
    Exited,
    Finished,
    Hello,
    Killed,
    Message,
    Nudge,
    Ready,
    Stale,
    StaleAck,
)
from ..base.errors import MachineError
from ..base.log import get_logger
from .children import Child
from .roster import Parts, Roster
from .rounds import Rounds
from .rundir import RunDirectory

__all__ = ["Hub"]

_log = get_logger("paddock.supervisor")


class Hub:
    """Listen, and take what children, fork server and watchdog say."""

    def __init__(
        self,
        parts: Parts,
        roster: Roster,
        rounds: Rounds,
        run_dir: RunDirectory,
        control: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """Hold the parts; `control` serves a connection of the command line."""
        self._parts = parts
        self._roster = roster
        self._rounds = rounds
        self._run_dir = run_dir
        self._control = control
        self._bell: Bell | None = None
        self._listener: Listener | None = None

    # --- listening ---

    async def start(self, transport: Literal["unix", "tcp"]) -> str:
        """Listen; return the address as text."""
        if transport != "tcp":
            bell = Bell(self._run_dir.bell_path, self._rounds.rung)
            bell.start()
            self._bell = bell
            return format_address(await self._listen(UnixAddress(self._run_dir.socket_path)))
        try:
            address = await self._listen(TcpAddress("127.0.0.1", self._run_dir.port))
        except AddressInUse:  # somebody took it meanwhile; children that look there will end themselves, and be resumed
            address = await self._listen(TcpAddress("127.0.0.1", 0))
        if isinstance(address, TcpAddress):
            self._run_dir.keep_port(address.port)
        return format_address(address)

    async def _listen(self, address: TcpAddress | UnixAddress) -> TcpAddress | UnixAddress:
        listener = Listener(address, token=self._run_dir.token, on_peer=self._meet)
        reached = await listener.start()
        self._listener = listener
        return reached

    async def stop(self) -> None:
        """Hang up, and listen no more."""
        if self._listener is not None:
            await self._listener.stop()
        if self._bell is not None:
            self._bell.stop()
        self._rounds.stop()

    async def _meet(self, connection: Connection, hello: Hello) -> None:
        if hello.role == "child":
            await self.talk(connection, hello)
        elif hello.role == "control":
            await self._control(connection)
        elif hello.role == "watchdog":
            await self._hear_watchdog(connection)

    # --- children ---

    async def talk(self, connection: Connection, hello: Hello) -> None:
        """Listen to a child until it hangs up; one that is not ours any more is told to end itself.

        Children of the last server come back as soon as somebody listens: who is ours is known only once all was taken over.
        """
        await self._roster.complete.wait()
        child = self._roster.find(hello.instance_id, hello.epoch)
        if child is None or (
            child.identity is not None
            and (child.identity.pid, child.identity.start_time) != (hello.pid, hello.start_time)
        ):
            with contextlib.suppress(IpcError):
                connection.send(Cancel(reason="this instance has another executor", grace=0.0))
                await connection.drain()
            return
        child.connection = connection
        if child.ending is not None:
            connection.send(Cancel(reason=child.ending, grace=self._parts.config.kill_grace))
        elif self._roster.draining or child.draining:
            connection.send(Drain(grace=self._parts.config.kill_grace))
        self._parts.bus.poke()
        try:
            while (message := await connection.receive()) is not None:
                self._hear(child, message)
        except IpcError as error:
            _log.warning("a child said what cannot be understood", instance_id=child.instance_id, error=str(error))
        finally:
            if child.connection is connection:
                child.connection = None

    def _hear(self, child: Child, message: Message) -> None:
        if isinstance(message, Committed):
            self._parts.bus.heard(message.event_id)
        elif isinstance(message, Finished):
            self._parts.bus.poke()
        elif isinstance(message, Nudge):
            self._parts.freed()  # it has started another instance
        elif isinstance(message, Ready):
            child.ready = True

    # --- fork server and watchdog ---

    def exited(self, message: Exited) -> None:
        """Take the fork server's report of a death."""
        child = self._roster.find(message.instance_id, message.epoch)
        if child is not None and not child.exited.done():
            child.exited.set_result(message)

    async def _hear_watchdog(self, connection: Connection) -> None:
        with contextlib.suppress(IpcError):
            while (message := await connection.receive()) is not None:
                if isinstance(message, Stale):
                    connection.send(await self._found_stale(message))
                elif isinstance(message, Killed):
                    self._was_killed(message)

    async def _found_stale(self, message: Stale) -> StaleAck:
        """Note a finding of the watchdog before it acts on it."""
        child = self._roster.find(message.instance_id, message.epoch)
        if child is not None and child.stale is None:
            child.stale = {
                "pid": message.pid,
                "reason": message.reason,
                "silent_for": message.silent_for,
                "timeout": message.timeout,
            }
            with contextlib.suppress(MachineError):
                await self._parts.store.record(
                    child.lease, "workflow.watchdog.stale", dict(child.stale), self._parts.clock.now()
                )
                self._parts.bus.poke()
        return StaleAck(slot=message.slot)

    def _was_killed(self, message: Killed) -> None:
        """Take the stacks that the watchdog took."""
        child = self._roster.find(message.instance_id, message.epoch)
        if child is not None and not child.killed.done():
            child.killed.set_result(message)
