"""The handshake as a table, the addresses as text."""

from __future__ import annotations

import itertools

import pytest

from paddock.ipc.address import (
    MAX_SOCKET_PATH,
    TcpAddress,
    UnixAddress,
    check_socket_path,
    format_address,
    parse_address,
)
from paddock.ipc.errors import ProtocolError, SocketPathTooLong
from paddock.ipc.handshake import PROTOCOL_VERSION, Acceptor, HandshakeState, judge
from paddock.ipc.messages import Hello, Message, Nudge, Ready, Refused, Welcome


def hello(**changes: object) -> Hello:
    return Hello(version=PROTOCOL_VERSION, role="client", token="täken", pid=1, start_time=1).model_copy(update=changes)


CASES = [
    (hello(), 1000, None),
    (hello(), None, None),
    (hello(role="child", instance_id="i", epoch=3), 1000, None),
    (hello(), 0, "user"),
    (hello(token="taken"), 1000, "token"),
    (hello(token=""), None, "token"),
    (hello(version=PROTOCOL_VERSION + 1), 1000, "version"),
    (Nudge(), 1000, "hello"),
    (Ready(), None, "hello"),
    (Welcome(version=1, server_pid=1), 1000, "hello"),
]


@pytest.mark.parametrize(("message", "uid", "complaint"), CASES)
def test_judge(message: Message, uid: int | None, complaint: str | None):
    answer = judge(message, token="täken", peer_uid=uid, own_uid=1000, server_pid=7)
    if complaint is None:
        assert answer == Welcome(version=PROTOCOL_VERSION, server_pid=7)
    else:
        assert isinstance(answer, Refused)
        assert complaint in answer.reason
        assert "täken" not in answer.reason


@pytest.mark.parametrize(("first", "second"), list(itertools.product([hello(), hello(token="x"), Nudge()], repeat=2)))
def test_only_the_first_message_counts(first: Message, second: Message):
    acceptor = Acceptor(token="täken", peer_uid=1, own_uid=1, server_pid=7)
    assert acceptor.state is HandshakeState.WAITING
    acceptor.receive(first)
    state, accepted = acceptor.state, acceptor.hello
    assert (state is HandshakeState.ACCEPTED) == (first == hello()) == (accepted is not None)
    with pytest.raises(ProtocolError):
        acceptor.receive(second)
    assert (acceptor.state, acceptor.hello) == (state, accepted)


@pytest.mark.parametrize(
    "address", [UnixAddress("/run/x y/hub:1"), TcpAddress("127.0.0.1", 0), TcpAddress("::1", 65535)]
)
def test_addresses_round_trip(address: UnixAddress | TcpAddress):
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize(
    "text", ["", "unix:", "unix:a\0b", "tcp:", "tcp:1", "tcp::1", "tcp:h:-1", "tcp:h:65536", "tcp:h:²"]
)
def test_what_is_no_address(text: str):
    with pytest.raises(ValueError, match="not an address"):
        parse_address(text)


def test_a_path_is_measured_in_bytes():
    check_socket_path("/" + "x" * (MAX_SOCKET_PATH - 1))
    with pytest.raises(SocketPathTooLong) as caught:
        check_socket_path("/" + "ü" * (MAX_SOCKET_PATH // 2 + 1))
    assert caught.value.limit == MAX_SOCKET_PATH
