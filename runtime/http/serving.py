"""Serve an application at an address: the listening socket, and uvicorn beside a server that lives in the same loop.

The socket is bound before anything is started, so that an address in use costs nothing. Over a handover (SIGHUP) it stays open: the
program that is executed anew in this process finds it by its number, and callers meanwhile wait in its queue instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import uvicorn

from ..base.errors import AddressUnavailable, ConfigError
from .access import is_loopback
from .certificate import Certificate
from .gate import Gate
from .wire import HEAD_BYTES, Wire

__all__ = ["Listening", "beside", "bind", "check_address"]

_BACKLOG = 1024
_INHERITED = "PADDOCK_LISTEN_FD"
_GRACE = 5


@dataclass(frozen=True, slots=True)
class Listening:
    """A bound socket, and the address that people are told."""

    socket: socket.socket
    host: str
    port: int
    certificate: Certificate | None = None

    @property
    def url(self) -> str:
        """Return where a browser on this machine finds it."""
        host = self.host
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host)
            host = ("[::1]" if address.version == 6 else "127.0.0.1") if address.is_unspecified else host  # noqa: PLR2004
            if address.version == 6 and not host.startswith("["):  # noqa: PLR2004
                host = f"[{host}]"
        return f"{'https' if self.certificate is not None else 'http'}://{host}:{self.port}"


def check_address(host: str, token: str | None) -> None:
    """Refuse to listen where others could call without showing a token.

    Raises:
        ConfigError: `host` is beyond loopback, or cannot be resolved.
    """
    if token:
        return
    addresses = [host] if is_loopback(host) else _resolve(host)
    if not all(is_loopback(address) for address in addresses):
        raise ConfigError(
            f"to listen on {host} is to let other machines start and cancel work here: give a token (PADDOCK_TOKEN, or "
            "--token-file), or listen on 127.0.0.1"
        )


def _resolve(host: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise ConfigError(f"{host!r:.100} is no address of this machine, and no name of one") from None


def bind(host: str, port: int, certificate: Certificate | None = None) -> Listening:
    """Bind and listen; take over the socket that the program before a handover has left. With a certificate TLS is spoken there.

    Raises:
        AddressUnavailable: the address is in use, or not ours.
        ConfigError: it cannot be resolved.
    """
    kept = _inherited(host, port)
    if kept is not None:
        return Listening(kept, host, kept.getsockname()[1], certificate)
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"{host!r:.100} is no address of this machine, and no name of one") from None
    made = socket.socket(family, kind, proto)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise AddressUnavailable(
            f"cannot listen on {host} port {port}: {error.strerror}; end what listens there, or choose another --port"
        ) from None
    return Listening(made, host, made.getsockname()[1], certificate)


def _inherited(host: str, port: int) -> socket.socket | None:
    """Return the socket that was left for this very process and address; the variable goes in any case."""
    pid, _, rest = os.environ.pop(_INHERITED, "").partition(":")
    number, _, address = rest.partition(":")
    if pid != str(os.getpid()) or not number.isdigit():
        return None
    try:
        found = socket.socket(fileno=int(number))
        found.set_inheritable(False)
        listens = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return None
    if listens and address == f"{host}:{port}":
        return found
    found.close()
    return None


class _Uvicorn(uvicorn.Server):
    """A uvicorn that leaves signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def beside(gate: Gate, listening: Listening, *, port: int) -> AsyncIterator[None]:
    """Answer at an address for as long as the context lasts; then let readers go, and finish what is being answered.

    Args:
        gate: the application; its server is started and stopped by others.
        listening: where; the socket stays open for a program that is executed in place of this one.
        port: as it was asked for, which 0 leaves to the system.
    """
    config = uvicorn.Config(
        gate,
        lifespan="off",
        http=Wire,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips="127.0.0.1",
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=_GRACE,
        backlog=_BACKLOG,
        ssl_certfile=listening.certificate.certfile if listening.certificate is not None else None,
        ssl_keyfile=listening.certificate.keyfile if listening.certificate is not None else None,
    )
    server = _Uvicorn(config)
    own = listening.socket.dup()  # uvicorn closes what it was given
    task = asyncio.create_task(server.serve(sockets=[own]), name="paddock-http")
    try:
        with gate.served.answering():
            yield
    finally:
        server.should_exit = True
        await asyncio.wait({task})
        own.close()
        listening.socket.set_inheritable(True)  # children are made without it: they close what they do not know
        os.environ[_INHERITED] = f"{os.getpid()}:{listening.socket.fileno()}:{listening.host}:{port}"
