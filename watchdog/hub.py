"""The watchdog's line to the server, on a thread of its own.

So a server that is busy, stopped or gone delays no look at the children.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from ..ipc.address import Address
from ..ipc.channel import Channel, connect_sync
from ..ipc.errors import IpcError, PeerGone
from ..ipc.messages import Hello, Message, Policy, StaleAck

__all__ = ["HubLine"]

_RECONNECT_INTERVAL = 0.2
_CONNECT_TIMEOUT = 2.0
_OUTBOX = 1000  # messages kept for the next server; each is of one death, so more would be an outage of another kind
_STOP_TIMEOUT = 2.0


class HubLine:
    """Keep connected, send what is given, and pass on what comes.

    `start` and `stop` once each; the rest from any thread.
    """

    def __init__(self, address: Address, hello: Hello, on_policy: Callable[[Policy], None]) -> None:
        """Prepare to connect with this hello; `on_policy` is called on the line's thread."""
        self._address = address
        self._hello = hello
        self._on_policy = on_policy
        self._lock = threading.Lock()
        self._outbox: deque[Message] = deque(maxlen=_OUTBOX)
        self._acks: dict[int, threading.Event] = {}
        self._lost_since: float | None = time.monotonic()
        self._stopping = threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="hub-line", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Send what can still be sent, close and wait for the thread, two seconds at most."""
        self._stopping.set()
        self._ring()
        self._thread.join(_STOP_TIMEOUT)
        if not self._thread.is_alive():
            self._wake.close()
            self._waker.close()

    @property
    def connected(self) -> bool:
        """Tell whether the server is there now."""
        return self._lost_since is None

    def without_server(self) -> float:
        """Return the seconds for which there has been no server, 0 while there is one."""
        lost = self._lost_since
        return 0.0 if lost is None else time.monotonic() - lost

    def forgive(self) -> None:
        """Count the time without a server from now: it was this process that slept."""
        if self._lost_since is not None:
            self._lost_since = time.monotonic()

    def send(self, message: Message) -> None:
        """Send now, or to the next server; the oldest of a thousand unsent messages gives way."""
        with self._lock:
            self._outbox.append(message)
        self._ring()

    def expect_ack(self, slot: int) -> threading.Event:
        """Return an event that the next `StaleAck` for this slot sets. Ask before sending."""
        event = threading.Event()
        with self._lock:
            self._acks[slot] = event
        return event

    def forget_ack(self, slot: int) -> None:
        """Stop to expect one."""
        with self._lock:
            self._acks.pop(slot, None)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # a full pipe has rung already, a closed one needs no more
            self._waker.send(b".")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                channel = connect_sync(self._address, self._hello, _CONNECT_TIMEOUT)
            except (IpcError, OSError):
                self._stopping.wait(_RECONNECT_INTERVAL)
                continue
            self._lost_since = None
            try:
                self._talk(channel)
            except (IpcError, OSError):
                pass
            finally:
                self._lost_since = time.monotonic()
                channel.close()

    def _talk(self, channel: Channel) -> None:
        poller = select.poll()
        poller.register(channel, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while True:
            for message in channel.receive():
                self._handle(message)
            self._flush(channel)
            if self._stopping.is_set():
                return
            poller.poll()
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)

    def _flush(self, channel: Channel) -> None:
        while True:
            with self._lock:
                if not self._outbox:
                    return
                message = self._outbox.popleft()
            try:
                channel.send(message)
            except PeerGone:
                with self._lock:
                    if len(self._outbox) < _OUTBOX:  # else the newer ones stay
                        self._outbox.appendleft(message)
                raise

    def _handle(self, message: Message) -> None:
        if isinstance(message, StaleAck):
            with self._lock:
                event = self._acks.pop(message.slot, None)
            if event is not None:
                event.set()
        elif isinstance(message, Policy):
            self._on_policy(message)
