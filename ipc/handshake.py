"""Decide who may talk to the hub. Pure: a message in, an answer out; deadlines and sockets are the listener's.

| state | hello that is right | hello that is wrong | any other message |
|---|---|---|---|
| `WAITING` | `Welcome` → `ACCEPTED` | `Refused` → `REFUSED` | `Refused` → `REFUSED` |
| `ACCEPTED` | raises | raises | raises |
| `REFUSED` | raises | raises | raises |

A hello is right when the kernel names our own user for the peer, the protocol version is ours, and the token is the
server's. A connection over TCP has no peer user (`None`); there the token alone decides.
"""

from __future__ import annotations

import hmac
from enum import Enum

from .errors import ProtocolError
from .messages import Hello, Message, Refused, Welcome

__all__ = ["HANDSHAKE_MAX_FRAME", "HANDSHAKE_TIMEOUT", "PROTOCOL_VERSION", "Acceptor", "HandshakeState", "judge"]

#: Raised with every change of a message that an older process would misread.
PROTOCOL_VERSION = 1

#: Seconds that a new connection has for its hello.
HANDSHAKE_TIMEOUT = 5.0

#: Bytes that a hello may have: who has not shown a token gets no large buffer.
HANDSHAKE_MAX_FRAME = 64 * 1024


class HandshakeState(Enum):
    """Where a connection stands before it may talk."""

    WAITING = "waiting"  # connected, nothing said; the first message moves it on
    ACCEPTED = "accepted"  # welcomed; final
    REFUSED = "refused"  # told why; final, the listener closes it


def judge(hello: Message, *, token: str, peer_uid: int | None, own_uid: int, server_pid: int) -> Welcome | Refused:
    """Answer the first message of a connection.

    Args:
        hello: that message, whatever it is.
        token: the server's secret.
        peer_uid: the peer's user as the kernel names it, or None where it cannot (TCP).
        own_uid: the user that this process runs as.
        server_pid: goes into the welcome.
    """
    if peer_uid is not None and peer_uid != own_uid:
        return Refused(reason=f"this server serves user {own_uid} only")
    if not isinstance(hello, Hello):
        return Refused(reason=f"expected a hello first, got {hello.type!r}")
    if hello.version != PROTOCOL_VERSION:
        return Refused(
            reason=f"protocol version {hello.version} meets {PROTOCOL_VERSION}; both sides need the same release of Paddock"
        )
    if not hmac.compare_digest(hello.token.encode(), token.encode()):  # takes the same time wherever they differ
        return Refused(reason="wrong token")
    return Welcome(version=PROTOCOL_VERSION, server_pid=server_pid)


class Acceptor:
    """Hold one connection's handshake.

    Attributes:
        state: where it stands.
        hello: the peer's hello once it is accepted.
    """

    def __init__(self, *, token: str, peer_uid: int | None, own_uid: int, server_pid: int) -> None:
        """Wait for the first message; the arguments are those of `judge`."""
        self.state = HandshakeState.WAITING
        self.hello: Hello | None = None
        self._token = token
        self._peer_uid = peer_uid
        self._own_uid = own_uid
        self._server_pid = server_pid

    def receive(self, message: Message) -> Welcome | Refused:
        """Take the first message and return the answer to send.

        Raises:
            ProtocolError: the handshake is over already; nothing changes.
        """
        if self.state is not HandshakeState.WAITING:
            raise ProtocolError(f"a {message.type!r} message after the handshake was {self.state.value}")
        answer = judge(
            message, token=self._token, peer_uid=self._peer_uid, own_uid=self._own_uid, server_pid=self._server_pid
        )
        if isinstance(answer, Welcome) and isinstance(message, Hello):
            self.state = HandshakeState.ACCEPTED
            self.hello = message
        else:
            self.state = HandshakeState.REFUSED
        return answer
