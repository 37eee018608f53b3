"""Reach the hub from an event loop. A process without one uses `channel.py`, and so does what holds there of deadlines and errors."""

from __future__ import annotations

import asyncio
import socket

from .address import Address, TcpAddress, check_socket_path, format_address
from .channel import BACKLOG_RETRY, check_answer, try_unix
from .connection import Connection, adopt_socket
from .errors import PeerGone
from .messages import Hello

__all__ = ["connect"]


async def connect(address: Address, hello: Hello, *, timeout: float = 5.0) -> Connection:
    """Connect, say hello and return the connection once it is welcomed, within `timeout` seconds.

    Raises:
        HandshakeRefused: the hub said no.
        PeerGone: nobody is there, it closed, or it did not answer in time.
        ProtocolError: something else answers there.
    """
    connection: Connection | None = None
    try:
        async with asyncio.timeout(timeout):
            connection = await adopt_socket(await _open(address))
            connection.send(hello)
            answer = await connection.receive()
            check_answer(answer, address)
            result, connection = connection, None
            return result
    except TimeoutError as error:
        raise PeerGone(f"no answer from {format_address(address)} within {timeout} s") from error
    except OSError as error:
        raise PeerGone(f"cannot reach {format_address(address)}: {error}") from error
    finally:
        if connection is not None:
            connection.close()
            await connection.wait_closed(0)


async def _open(address: Address) -> socket.socket:
    if isinstance(address, TcpAddress):
        sock = _tcp_socket(address)
        return await _or_close(sock, address)
    check_socket_path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while not try_unix(sock, address):  # noqa: ASYNC110  the kernel does not tell when a backlog has room
            await asyncio.sleep(BACKLOG_RETRY)
    except BaseException:
        sock.close()
        raise
    return sock


async def _or_close(sock: socket.socket, address: TcpAddress) -> socket.socket:
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp_socket(address: TcpAddress) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock
