"""Reach the hub from a process without an event loop: `connect_sync` and `Channel`.

Everything has one deadline. A connect may "succeed" against a listener that is stopped or whose backlog is full, so
only a `Welcome` counts. Whatever stands in the way of reaching a peer is a `PeerGone`; the system's own error is its
cause.
"""

from __future__ import annotations

import select
import socket
import time

from .address import Address, TcpAddress, UnixAddress, check_socket_path, format_address
from .errors import HandshakeRefused, PeerGone, ProtocolError
from .frames import MAX_FRAME, FrameDecoder
from .messages import Hello, Message, Refused, Welcome, decode_message, encode_message

__all__ = ["BACKLOG_RETRY", "Channel", "check_answer", "connect_sync", "try_unix"]

#: Seconds between two tries at a backlog that is full.
BACKLOG_RETRY = 0.005
_READ_SIZE = 256 * 1024
# A closed peer is an error to handle, not a signal to die by; a child may have SIGPIPE at its default.
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


def connect_sync(address: Address, hello: Hello, timeout: float = 5.0) -> Channel:
    """Connect, say hello and return the channel once it is welcomed, within `timeout` seconds. Blocks.

    Raises:
        HandshakeRefused: the hub said no.
        PeerGone: nobody is there, it closed, or it did not answer in time.
        ProtocolError: something else answers there.
    """
    deadline = time.monotonic() + timeout
    try:
        channel = Channel(_open_sync(address, deadline))
    except OSError as error:
        raise PeerGone(f"cannot reach {format_address(address)}: {error}") from error
    try:
        channel.send(hello, timeout=max(0.0, deadline - time.monotonic()))
        messages = channel.wait(max(0.0, deadline - time.monotonic()))
        if not messages:
            raise PeerGone(f"no answer from {format_address(address)} within {timeout} s")
        check_answer(messages[0], address)
        channel.push_back(messages[1:])
    except BaseException:
        channel.close()
        raise
    return channel


def check_answer(answer: Message | None, address: Address) -> None:
    """Return if a hub has welcomed us.

    Raises:
        HandshakeRefused, PeerGone, ProtocolError: it has not.
    """
    if answer is None:
        raise PeerGone(f"{format_address(address)} closed the connection during the handshake")
    if isinstance(answer, Refused):
        raise HandshakeRefused(answer.reason)
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"expected a welcome, got {answer.type!r}")


def _open_sync(address: Address, deadline: float) -> socket.socket:
    if isinstance(address, TcpAddress):
        sock = socket.create_connection((address.host, address.port), timeout=max(0.001, deadline - time.monotonic()))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does the same on its side
        return sock
    check_socket_path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while not try_unix(sock, address):
            if time.monotonic() > deadline:
                raise TimeoutError("the listener's backlog is full")
            time.sleep(BACKLOG_RETRY)
    except BaseException:
        sock.close()
        raise
    return sock


def try_unix(sock: socket.socket, address: UnixAddress) -> bool:
    """Connect a non-blocking socket; False where the listener's backlog is full, which no event tells the end of."""
    # connect(2): a Unix socket never connects "in progress"; EAGAIN means that the backlog is full and nothing has
    # begun.
    try:
        sock.connect(address.path)
    except BlockingIOError:
        return False
    return True


class Channel:
    """Messages over a connected socket, for a process without an event loop. For one thread."""

    def __init__(self, sock: socket.socket, max_frame: int = MAX_FRAME) -> None:
        """Take over the socket and make it non-blocking; `max_frame` in bytes."""
        sock.setblocking(False)
        self._sock = sock
        self._decoder = FrameDecoder(max_frame)
        self._ready: list[Message] = []

    def fileno(self) -> int:
        """Return the descriptor, to poll for reading; -1 once closed."""
        return self._sock.fileno()

    def push_back(self, messages: list[Message]) -> None:
        """Put messages in front of those that the next `receive` returns."""
        self._ready[:0] = messages

    def send(self, msg: Message, timeout: float = 5.0) -> None:
        """Send a whole message, blocking for at most `timeout` seconds.

        Raises:
            PeerGone: the peer closed, or did not take it in time; the stream is cut inside a frame then, so it is
                closed.
        """
        view = memoryview(encode_message(msg))
        deadline = time.monotonic() + timeout
        try:
            while view:
                try:
                    view = view[self._sock.send(view, _NO_SIGNAL) :]
                except BlockingIOError:
                    if not self._poll(select.POLLOUT, deadline):
                        raise TimeoutError(f"not taken within {timeout} s") from None
        except OSError as error:
            self.close()
            raise PeerGone(f"the message was not sent: {error}") from error

    def receive(self) -> list[Message]:
        """Read what is there, once, and return the messages that it completed; never blocks.

        Raises:
            PeerGone: the peer has closed and everything that it sent was returned.
            ProtocolError: a frame is no message of ours.
            FrameTooLarge: a frame is too long. After any of them, close the channel.
        """
        ready, self._ready = self._ready, []
        if ready:
            return ready
        try:
            data = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise PeerGone(f"the connection was lost: {error}") from error
        if not data:
            raise PeerGone("the peer closed the connection")
        return [decode_message(payload) for payload in self._decoder.feed(data)]

    def wait(self, timeout: float) -> list[Message]:
        """Wait up to `timeout` seconds for at least one message; an empty list means that none came.

        Raises what `receive` raises.
        """
        deadline = time.monotonic() + timeout
        while True:
            messages = self.receive()
            if messages or not self._poll(select.POLLIN, deadline):
                return messages

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._sock.close()

    def _poll(self, events: int, deadline: float) -> bool:
        # poll, not select: a descriptor over 1023 must not fail. An error or a hang-up counts as ready, the call will
        # tell.
        poller = select.poll()
        poller.register(self._sock, events)
        return bool(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))
