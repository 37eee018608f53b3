"""Listen for peers, and let in only our own.

Whoever connects gets a task of its own that reads one hello under a deadline and with a small frame limit, so a peer
that never speaks, speaks garbage or announces an endless frame costs a few kilobytes for a few seconds and nobody
else anything.

A Unix socket is guarded by its directory (0700), its mode (0600), the peer's uid as the kernel tells it, and the
token. asyncio takes over a living socket's path in silence, so the path is taken here: under a lock on the directory,
a socket that nobody answers on is removed, and anything else (a living socket, a directory, a symlink) is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import socket
import stat
import struct
import sys
import time
from collections.abc import Awaitable, Callable

from .address import Address, TcpAddress, UnixAddress, check_socket_path, format_address
from .connection import Connection
from .errors import AddressInUse, IpcError
from .frames import MAX_FRAME
from .handshake import HANDSHAKE_MAX_FRAME, HANDSHAKE_TIMEOUT, Acceptor
from .messages import Hello, Welcome

__all__ = ["Listener", "peer_uid"]

# A full backlog makes connects fail on Linux (EAGAIN); a thousand children may come back at once when a server returns.
_BACKLOG = 4096
_FEWEST_STRANGERS = 64
_LOCK_TIMEOUT = 5.0
_LOCK_RETRY = 0.01
_PROBE_TIMEOUT = 1.0


class Listener:
    """Accept connections at one address. `start` and `stop` are idempotent; a stopped listener may start again."""

    def __init__(
        self,
        address: Address,
        *,
        token: str,
        on_peer: Callable[[Connection, Hello], Awaitable[None]],
        max_frame: int = MAX_FRAME,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        max_strangers: int | None = None,
    ) -> None:
        """Prepare to listen.

        Args:
            address: where; port 0 takes a free one.
            token: what a hello must carry.
            on_peer: runs in a task per accepted peer; its connection is closed when it returns.
            max_frame: bytes of the longest frame of an accepted peer.
            handshake_timeout: seconds for the hello.
            max_strangers: how many peers may be connected that have not said hello; the one that waits longest gives way to a new one.
                None is a quarter of the descriptors that the process may have.
        """
        self._address = address
        self._token = token
        self._on_peer = on_peer
        self._max_frame = max_frame
        self._handshake_timeout = handshake_timeout
        self._max_strangers = max_strangers if max_strangers is not None else _share_of_descriptors()
        self._strangers: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self._server: asyncio.Server | None = None
        self._bound: Address | None = None
        self._inode: tuple[int, int] | None = None
        self._peers: dict[asyncio.Task[None], Connection] = {}

    async def start(self) -> Address:
        """Listen, and return the address with its real port.

        Raises:
            AddressInUse: somebody listens there, or something that is no stale socket stands at the path.
            SocketPathTooLong: the path cannot be bound.
            OSError: the system refuses, for instance because the directory is missing.
        """
        if self._server is not None and self._bound is not None:
            return self._bound
        if isinstance(self._address, UnixAddress):
            sock = await self._bind_unix(self._address)
            self._server = await asyncio.start_unix_server(self._accept, sock=sock, backlog=_BACKLOG)
            self._bound = self._address
        else:
            sock = _bind_tcp(self._address)
            self._server = await asyncio.start_server(self._accept, sock=sock, backlog=_BACKLOG)
            self._bound = TcpAddress(self._address.host, sock.getsockname()[1])
        return self._bound

    async def stop(self) -> None:
        """Stop listening, end every peer's task and remove the socket file if it is still ours."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._unlink()
        current = asyncio.current_task()  # a peer's own task may stop the listener; it ends itself
        peers = [task for task in self._peers if task is not current]
        for task in peers:
            task.cancel()
        await asyncio.gather(*peers, return_exceptions=True)

    async def _bind_unix(self, address: UnixAddress) -> socket.socket:
        check_socket_path(address.path)
        directory = os.open(os.path.dirname(address.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Two servers that find the same stale socket must not remove each other's new one. The lock dies with its
            # process.
            await _lock(directory, address)
            _clear_path(address)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                _bind_private(sock, address.path)
                found = os.lstat(address.path)
                self._inode = (found.st_dev, found.st_ino)
            except BaseException:
                sock.close()
                raise
            return sock
        finally:
            os.close(directory)

    def _unlink(self) -> None:
        inode, self._inode = self._inode, None
        if inode is None or not isinstance(self._address, UnixAddress):
            return
        with contextlib.suppress(OSError):
            found = os.lstat(self._address.path)
            if (found.st_dev, found.st_ino) == inode:  # a successor may have taken the path meanwhile
                os.unlink(self._address.path)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, max_frame=HANDSHAKE_MAX_FRAME)
        if self._server is None:  # accepted in the same turn of the loop in which it was stopped
            connection.close()
            return
        if len(self._strangers) >= self._max_strangers:
            oldest = next(iter(self._strangers))  # a peer of ours says hello with its first breath
            del self._strangers[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(connection, writer))
        self._peers[task] = connection
        self._strangers[task] = None
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._peers.pop(task).close()  # a task that is cancelled before its first step closes nothing itself
        self._strangers.pop(task, None)

    async def _serve(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        try:
            hello = await self._handshake(connection, peer_uid(writer.get_extra_info("socket")))
            current = asyncio.current_task()
            if current is not None:
                self._strangers.pop(current, None)
            if hello is not None:
                await self._on_peer(connection, hello)
        except (IpcError, OSError):
            pass  # this peer's doing or end; the connection closes, and that is all that follows from it
        except Exception as error:  # noqa: BLE001  reported, and only this peer is lost
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the handler of a peer failed", "exception": error, "peer": connection.peer}
            )
        finally:
            connection.close()
            await connection.wait_closed()

    async def _handshake(self, connection: Connection, uid: int | None) -> Hello | None:
        acceptor = Acceptor(token=self._token, peer_uid=uid, own_uid=os.geteuid(), server_pid=os.getpid())
        async with asyncio.timeout(self._handshake_timeout):  # its TimeoutError is an OSError
            first = await connection.receive()
        if first is None:
            return None
        answer = acceptor.receive(first)
        if isinstance(answer, Welcome):
            connection.set_max_frame(self._max_frame)
            connection.peer = acceptor.hello
        connection.send(answer)
        return acceptor.hello


def _share_of_descriptors() -> int:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _BACKLOG if most == resource.RLIM_INFINITY else max(_FEWEST_STRANGERS, most // 4)


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user on the other side of a Unix socket as it was when it connected.

    None for TCP and where the system does not tell. SO_PEERCRED: unix(7), `struct ucred` of pid, uid, gid.
    LOCAL_PEERCRED: macOS `sys/un.h`, `struct xucred` of version, uid, groups.
    """
    if sock.family != socket.AF_UNIX:
        return None
    if sys.platform.startswith("linux"):
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3I"))
        return int(struct.unpack("3I", credentials)[1])
    elif sys.platform == "darwin":  # noqa: RET505  an `elif`, so that no type checker takes it for unreachable on the other
        credentials = sock.getsockopt(0, 1, 76)  # SOL_LOCAL, LOCAL_PEERCRED, sizeof(struct xucred)
        return int(struct.unpack_from("2I", credentials)[1])
    else:
        return None


async def _lock(directory: int, address: UnixAddress) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AddressInUse(format_address(address), "another process holds the directory's lock") from None
            await asyncio.sleep(_LOCK_RETRY)
        else:
            return


def _clear_path(address: UnixAddress) -> None:
    try:
        mode = os.lstat(address.path).st_mode  # lstat: what a symlink points to is not ours to judge or to remove
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressInUse(
            format_address(address), "something that is no socket stands there; remove it or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:  # bound once, and nobody listens: its process is gone
            os.unlink(address.path)
            return
        except OSError as error:  # a full backlog (EAGAIN) is a living listener, and so is anything else in doubt
            raise AddressInUse(format_address(address), f"the socket there may be alive ({error})") from error
    raise AddressInUse(format_address(address), "somebody listens there")


def _bind_private(sock: socket.socket, path: str) -> None:
    # Not by umask: it belongs to the whole process, and a directory that another thread made meanwhile would lose its
    # x bits. On Linux the file takes the mode of the unbound socket; elsewhere nobody can connect before listen, so a
    # chmod in between does.
    with contextlib.suppress(OSError):
        os.fchmod(sock.fileno(), 0o600)
    sock.bind(path)
    os.chmod(path, 0o600)
    sock.listen(_BACKLOG)
    sock.setblocking(False)


def _bind_tcp(address: TcpAddress) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # the last server's connections in TIME_WAIT do not block us
        sock.bind((address.host, address.port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise AddressInUse(format_address(address), str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock
