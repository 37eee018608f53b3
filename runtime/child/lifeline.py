"""The child's connection to its server: tells of commits, hears of cancels, and outlives a server for a while.

A server that dies leaves its children working: what they would have told stands in the store. The line looks for the next server at the
same address for `orphan_grace` seconds; then the process ends itself.

A short instance is over before it has anything to hear, and one that commits hears from its commits: they are refused where it was
cancelled, and held back where it is to pause. So the line is taken up once nothing was committed for a moment, or something is to be told
that the bell cannot tell; what came for the instance meanwhile is looked for then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import NoReturn

from ...ipc.address import UnixAddress, parse_address
from ...ipc.bell import Ringer
from ...ipc.client import connect
from ...ipc.connection import Connection
from ...ipc.errors import HandshakeRefused, IpcError
from ...ipc.handshake import PROTOCOL_VERSION
from ...ipc.messages import Cancel, Committed, Drain, Finished, Hello, Message, Nudge, Ready
from ..base.probes import reach
from .spec import EXIT_ORPHANED, ChildSpec

__all__ = ["Lifeline", "Lookout"]

_RETRY = 0.1
_MOMENT, _AT_MOST = 0.05, 0.5
_KNOCK_TIMEOUT = 1.0
_UNSEEN = 5.0  # what was not looked at for so long is not known to have been away all the time


class Lifeline:
    """Hold the line to whichever server there is.

    Args:
        spec: address, token and identity.
        start_time: this process's start time.
        on_cancel: called with the reason and the grace in seconds when the server asks the process to stop.
        on_drain: called when the server asks it to stop at the next step's boundary.
        on_nudge: called when something has come for the instance.
        is_looked_for: tells whether the server will look by itself for what was committed; asked with True where nothing follows.
        leave: ends the process with a code.
    """

    def __init__(
        self,
        spec: ChildSpec,
        start_time: int,
        *,
        on_cancel: Callable[[str, float], None],
        on_drain: Callable[[], None],
        on_nudge: Callable[[], None],
        is_looked_for: Callable[[bool], bool],
        leave: Callable[[int], NoReturn],
    ) -> None:
        """Hold the parts; `start` connects."""
        self._spec = spec
        self._hello = Hello(
            version=PROTOCOL_VERSION,
            role="child",
            token=spec.token,
            pid=os.getpid(),
            start_time=start_time,
            instance_id=spec.instance_id,
            epoch=spec.epoch,
        )
        self._on_cancel = on_cancel
        self._on_drain = on_drain
        self._on_nudge = on_nudge
        self._is_looked_for = is_looked_for
        self._leave = leave
        self._ringer = Ringer(spec.bell_path) if spec.transport == "unix" else None
        self._connection: Connection | None = None
        self._latest = 0
        self._committed_at = 0.0
        self._untold = False
        self._ready = False
        self._queued = False
        self._wanted = asyncio.Event()
        if self._ringer is None:
            self._wanted.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect in the background: the instance need not wait for it."""
        self._task = asyncio.create_task(self._hold(), name="paddock-lifeline")

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Return the task that holds the line."""
        return {self._task} if self._task is not None else set()

    async def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        alone_since: float | None = None
        await self._until_wanted()
        while True:
            reach("child.connect")
            try:
                connection = await connect(parse_address(self._spec.address), self._hello)
            except HandshakeRefused:
                self._leave(EXIT_ORPHANED)  # this server knows that the instance is not ours any more
            except (IpcError, OSError):
                now = loop.time()
                alone_since = now if alone_since is None else alone_since
                if now - alone_since > self._spec.orphan_grace:
                    self._leave(EXIT_ORPHANED)
                await asyncio.sleep(_RETRY)
                continue
            try:
                await self._listen(connection)
            finally:
                self._connection = None
                connection.close()
            alone_since = None

    async def _until_wanted(self) -> None:
        """Return when nothing was committed for a moment, or there is something to tell; after half a second in any case."""
        began = self._committed_at = time.monotonic()
        while not self._wanted.is_set():
            left = min(self._committed_at + _MOMENT, began + _AT_MOST) - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wanted.wait()

    async def _listen(self, connection: Connection) -> None:
        self._connection = connection
        if self._ready:
            connection.send(Ready())
        if self._latest:
            connection.send(Committed(event_id=self._latest))
        if self._queued:
            self.queued()
        self._on_nudge()
        while True:
            try:
                message = await connection.receive()
            except IpcError:
                return
            if message is None:
                return
            if isinstance(message, Cancel):
                self._on_cancel(message.reason, message.grace)
            elif isinstance(message, Drain):
                self._on_drain()
            elif isinstance(message, Nudge):
                self._on_nudge()

    def committed(self, event_id: int) -> None:
        """Tell that events up to this id are in the store: by the bell, which no busy loop holds up, else over the line.

        A server that looks by itself is told at the `last` of them only.
        """
        self._latest, self._committed_at = event_id, time.monotonic()
        self._untold = self._ringer is not None and self._is_looked_for(False)
        if not self._untold:
            self._say()

    def last(self) -> None:
        """Tell what was not told yet: nothing follows, and somebody waits for the outcome."""
        if self._untold and not self._is_looked_for(True):
            self._untold = False
            self._say()

    def _say(self) -> None:
        if self._ringer is None or not self._ringer.ring(self._latest):
            self._tell(Committed(event_id=self._latest))

    def queued(self) -> None:
        """Tell that this instance has started another."""
        self._queued = self._connection is None
        self._wanted.set()
        self._tell(Nudge())

    def ready(self) -> None:
        """Tell that the plugins are set up."""
        self._ready = True
        self._tell(Ready())

    def _tell(self, message: Message) -> None:
        if self._connection is not None:
            with contextlib.suppress(IpcError):  # the store has it; the next server reads it there
                self._connection.send(message)

    async def finish(self, status: str) -> None:
        """Say goodbye, and wait a moment for it to go out."""
        self.last()
        self._tell(Finished(status=status))
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed(1.0)

    def close(self) -> None:
        """Let go of the bell's socket, after `finish`."""
        if self._ringer is not None:
            self._ringer.close()


class Lookout:
    """Look for the server from another thread, for a process whose loop is blocked: it would outlive its server's absence unseen.

    It knocks and goes away again; to be heard it would need the loop.
    """

    def __init__(self, address: str, grace: float) -> None:
        """Look at this address; `grace` in seconds."""
        self._address = parse_address(address)
        self._grace = grace
        self._alone_since: float | None = None
        self._asked_at = 0.0

    def alone(self) -> bool:
        """Knock once; tell whether nobody has been there for longer than the grace. Ask at least every few seconds."""
        now = time.monotonic()
        if now - self._asked_at > _UNSEEN:
            self._alone_since = None
        self._asked_at = now
        if self._knock():
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        return self._alone_since is not None and now - self._alone_since > self._grace

    def _knock(self) -> bool:
        address = self._address
        family = socket.AF_UNIX if isinstance(address, UnixAddress) else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(_KNOCK_TIMEOUT)
                sock.connect(address.path if isinstance(address, UnixAddress) else (address.host, address.port))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # a full backlog, no descriptors left: not a sign that nobody is there
        return True
