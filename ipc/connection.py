"""Carry messages over an asyncio stream, with bounded buffers in both directions.

Sending never waits: a hub that awaited its slowest peer would be as slow. Left alone, asyncio buffers without a bound
(a reader that stopped reading cost 19.8 MB when it was tried), so a peer whose backlog passes `max_buffer` is
dropped; it comes back and reads the store. Receiving is bounded by not reading: asyncio stops at twice its stream
limit, and the kernel then stops the sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING

from .errors import PeerGone
from .frames import MAX_FRAME, FrameDecoder
from .messages import Message, decode_message, encode_message

if TYPE_CHECKING:
    from .messages import Hello

__all__ = ["MAX_BUFFER", "Connection", "adopt_socket"]

#: Bytes that may wait for a peer to read them before it is dropped.
MAX_BUFFER = 8 * 2**20

_READ_SIZE = 64 * 1024
_CLOSE_TIMEOUT = 1.0


class Connection:
    """One peer. Use it on the loop that made it, with at most one `receive` at a time.

    Attributes:
        peer: what the peer said of itself, once a listener has accepted it.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        max_frame: int = MAX_FRAME,
        max_buffer: int = MAX_BUFFER,
    ) -> None:
        """Take over the stream; sizes in bytes."""
        self.peer: Hello | None = None
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(max_frame)
        self._max_buffer = max_buffer
        self._payloads: deque[bytes] = deque()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Tell whether this side has closed, or the transport was lost."""
        return self._closed or self._writer.is_closing()

    @property
    def at_boundary(self) -> bool:
        """Tell whether all that was read ended with a whole frame."""
        return self._decoder.at_boundary

    def set_max_frame(self, max_frame: int) -> None:
        """Change the longest frame accepted from now on, in bytes (a handshake allows less than a session)."""
        self._decoder.max_frame = max_frame

    def send(self, msg: Message) -> None:
        """Queue a message; returns at once.

        Raises:
            PeerGone: the connection is closed, or its backlog was over `max_buffer` before this message; then it is
                closed now.
            FrameTooLarge: the message is too long for any peer; the connection stays.
        """
        if self.closed:
            raise PeerGone("the connection is closed")
        frame = encode_message(msg)
        backlog = self._writer.transport.get_write_buffer_size()
        # The backlog without this message is judged, so that one long message to a peer that reads is always allowed.
        if backlog > self._max_buffer:
            self._abort()
            raise PeerGone(f"the peer does not read: {backlog:,} bytes wait for it, the limit is {self._max_buffer:,}")
        self._writer.write(frame)

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was sent.

        Raises:
            PeerGone: the connection was lost.
        """
        try:
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise PeerGone(f"the connection was lost: {error}") from error

    async def receive(self) -> Message | None:
        """Return the next message, or None once the peer has closed. May be cancelled without loss.

        Raises:
            ProtocolError: the next frame is no message of ours.
            FrameTooLarge: it is too long. After either, close the connection.
        """
        while not self._payloads:
            if self._closed:
                return None
            try:
                data = await self._reader.read(_READ_SIZE)
            except OSError:  # a reset, or a peer that was never there: over, like an end of file
                return None
            if not data:
                return None
            self._payloads.extend(self._decoder.feed(data))
        return decode_message(self._payloads.popleft())

    def close(self) -> None:
        """Close after what was sent has gone out; idempotent."""
        if not self._closed:
            self._closed = True
            self._writer.close()

    async def wait_closed(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Wait until what was sent has gone out, at most `timeout` seconds; then drop the rest.

        Never raises for the peer's doing.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        finally:
            self._abort()

    def _abort(self) -> None:
        self._closed = True
        transport = self._writer.transport
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            transport.abort()


async def adopt_socket(sock: socket.socket, *, max_frame: int = MAX_FRAME, max_buffer: int = MAX_BUFFER) -> Connection:
    """Return a connection over a socket that is connected already, such as one end of a socket pair.

    It owns the socket from here on. Sizes in bytes.
    """
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(sock=sock)
    else:
        reader, writer = await asyncio.open_connection(sock=sock)
    return Connection(reader, writer, max_frame=max_frame, max_buffer=max_buffer)
