"""Name the places where the hub listens, and write them as text."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from .errors import SocketPathTooLong

__all__ = [
    "MAX_SOCKET_PATH",
    "Address",
    "TcpAddress",
    "UnixAddress",
    "check_socket_path",
    "format_address",
    "parse_address",
]

#: Bytes of the longest path that can be bound: `sun_path` has 108 on Linux (unix(7)) and 104 on macOS, and one is the
#: final zero.
MAX_SOCKET_PATH = 107 if sys.platform.startswith("linux") else 103

_MAX_PORT = 65535


@dataclass(frozen=True)
class UnixAddress:
    """A Unix socket in the file system."""

    path: str


@dataclass(frozen=True)
class TcpAddress:
    """A TCP port; 0 asks the kernel for a free one."""

    host: str
    port: int


Address = UnixAddress | TcpAddress


def format_address(address: Address) -> str:
    """Return `unix:/path` or `tcp:host:port` (an IPv6 host in brackets)."""
    if isinstance(address, UnixAddress):
        return f"unix:{address.path}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"tcp:{host}:{address.port}"


def parse_address(text: str) -> Address:
    """Return the address that `format_address` wrote.

    Raises:
        ValueError: the text is no address.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest and "\0" not in rest:
        return UnixAddress(rest)
    host, colon, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if scheme == "tcp" and colon and host and port.isascii() and port.isdigit() and int(port) <= _MAX_PORT:
        return TcpAddress(host, int(port))
    raise ValueError(f"not an address: {text!r}; write unix:/path or tcp:host:port")


def check_socket_path(path: str) -> None:
    """Refuse a path that the kernel cannot bind.

    Raises:
        SocketPathTooLong: it has more than `MAX_SOCKET_PATH` bytes.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise SocketPathTooLong(path, MAX_SOCKET_PATH)
