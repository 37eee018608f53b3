"""Cut a byte stream into frames, and nothing else: bytes in, bytes out, no I/O.

A frame is a big-endian length of four bytes and as many bytes of payload. A length prefix, not a line: `readline` of
asyncio fails over 64 KiB, and a decoder that splits text at chunk borders breaks multi-byte characters. The length is
judged as soon as it is known, so an endless frame costs its reader four bytes.
"""

from __future__ import annotations

from .errors import FrameTooLarge, ProtocolError

__all__ = ["HEADER_SIZE", "MAX_FRAME", "FrameDecoder", "encode"]

#: The longest payload in bytes that is sent or accepted.
MAX_FRAME = 16 * 2**20

#: Bytes before each payload.
HEADER_SIZE = 4


def encode(payload: bytes) -> bytes:
    """Return the payload with its length in front.

    Raises:
        FrameTooLarge: the payload is longer than `MAX_FRAME`; every reader would refuse it.
    """
    if len(payload) > MAX_FRAME:
        raise FrameTooLarge(len(payload), MAX_FRAME)
    return len(payload).to_bytes(HEADER_SIZE, "big") + payload


class FrameDecoder:
    """Collect bytes and hand out the frames that are complete.

    Attributes:
        max_frame: the longest payload accepted, in bytes. May be raised between two frames (after a handshake).
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        """Start at a frame's boundary."""
        self.max_frame = max_frame
        self._buffer = bytearray()
        self._broken: FrameTooLarge | None = None

    @property
    def at_boundary(self) -> bool:
        """Tell whether no frame has been begun; an end of file anywhere else cut one off."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes from the stream and return the payloads that they completed, in order.

        Raises:
            FrameTooLarge: a header announces more than `max_frame`. The stream cannot be read any further: every
                later call raises
                too, and whole frames before it in the same bytes are dropped with the connection.
        """
        if self._broken is not None:
            raise self._broken
        self._buffer += data
        payloads: list[bytes] = []
        position = 0
        while len(self._buffer) - position >= HEADER_SIZE:
            begin = position + HEADER_SIZE
            size = int.from_bytes(self._buffer[position:begin], "big")
            if size > self.max_frame:
                self._broken = FrameTooLarge(size, self.max_frame)
                self._buffer.clear()
                raise self._broken
            if len(self._buffer) - begin < size:
                break
            position = begin + size
            payloads.append(bytes(self._buffer[begin:position]))
        del self._buffer[:position]  # once per call: a cut per frame would make many small frames quadratic
        return payloads

    def close(self) -> None:
        """Say that the stream has ended.

        Raises:
            ProtocolError: it ended inside a frame.
        """
        if not self.at_boundary:
            raise ProtocolError(f"the stream ended inside a frame, after {len(self._buffer)} bytes of it")
