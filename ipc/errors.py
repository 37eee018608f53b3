"""Every error that talking to another process of ours can raise.

```
IpcError
├── FrameTooLarge        a frame announces more bytes than the limit; nothing of it was read
├── ProtocolError        bytes that are no message of ours, or a message out of turn
├── HandshakeRefused     the other side said no, and why
├── AddressInUse         something that is not ours to remove stands at the socket's path
├── SocketPathTooLong    the kernel cannot bind a path of this length
└── PeerGone             nobody answers there, the peer closed, or it reads too slowly
```
"""

from __future__ import annotations

__all__ = [
    "AddressInUse",
    "FrameTooLarge",
    "HandshakeRefused",
    "IpcError",
    "PeerGone",
    "ProtocolError",
    "SocketPathTooLong",
]


class IpcError(Exception):
    """The root of this package's errors."""


class FrameTooLarge(IpcError):
    """A frame is longer than the limit.

    Attributes:
        size: announced length in bytes.
        limit: the maximum in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        """Record both sizes, in bytes."""
        super().__init__(f"a frame of {size:,} bytes; the limit is {limit:,}")
        self.size = size
        self.limit = limit


class ProtocolError(IpcError):
    """Bytes that are no message of ours, or a message that has no place here. Close the connection."""


class HandshakeRefused(IpcError):
    """The peer refused our hello.

    Attributes:
        reason: the peer's own words.
    """

    def __init__(self, reason: str) -> None:
        """Record the peer's reason."""
        super().__init__(f"the peer refused the connection: {reason}")
        self.reason = reason


class AddressInUse(IpcError):
    """The address cannot be taken: a living listener, or something that is no socket, stands there.

    Attributes:
        address: what was to be bound.
        reason: what is in the way.
    """

    def __init__(self, address: str, reason: str) -> None:
        """Record the address and what is in the way."""
        super().__init__(f"cannot listen at {address}: {reason}")
        self.address = address
        self.reason = reason


class SocketPathTooLong(IpcError):
    """A Unix socket's path does not fit into the kernel's address.

    Attributes:
        path: the path as it was given.
        limit: the longest path in bytes that this system binds.
    """

    def __init__(self, path: str, limit: int) -> None:
        """Record the path and the limit in bytes."""
        super().__init__(
            f"the socket path {path!r} is longer than {limit} bytes, which this system cannot bind. "
            "Choose a shorter run directory, or use TCP."
        )
        self.path = path
        self.limit = limit


class PeerGone(IpcError):
    """The peer is not there, has closed, or does not read; this connection is over."""
