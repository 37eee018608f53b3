"""The listener and both clients over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from paddock.ipc.address import Address, TcpAddress, UnixAddress
from paddock.ipc.channel import Channel, connect_sync
from paddock.ipc.client import connect
from paddock.ipc.connection import Connection, adopt_socket
from paddock.ipc.errors import (
    AddressInUse,
    FrameTooLarge,
    HandshakeRefused,
    IpcError,
    PeerGone,
    ProtocolError,
    SocketPathTooLong,
)
from paddock.ipc.frames import encode
from paddock.ipc.handshake import PROTOCOL_VERSION
from paddock.ipc.listener import Listener, peer_uid
from paddock.ipc.messages import Committed, Hello, Message, Nudge, Ready, Refused, encode_message

DEADLINE = 30.0
HELLO = Hello(version=PROTOCOL_VERSION, role="client", token="t", pid=os.getpid(), start_time=1)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: its name may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="pd") as path:
        yield Path(path)


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


async def echo(connection: Connection, hello: Hello) -> None:
    assert connection.peer == hello
    while (message := await connection.receive()) is not None:
        connection.send(message)


@contextlib.asynccontextmanager
async def listening(
    address: Address, on_peer: Callable[[Connection, Hello], Awaitable[None]] = echo, timeout: float = 5.0
) -> AsyncIterator[Address]:
    listener = Listener(address, token="t", on_peer=on_peer, handshake_timeout=timeout)
    try:
        yield await listener.start()
    finally:
        await listener.stop()
        await listener.stop()


async def ask(address: Address, message: Message) -> Message | None:
    connection = await connect(address, HELLO)
    connection.send(message)
    answer = await connection.receive()
    connection.close()
    await connection.wait_closed()
    return answer


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, folder: Path) -> Address:
    return UnixAddress(str(folder / "hub")) if request.param == "unix" else TcpAddress("127.0.0.1", 0)


async def test_echo_over_both_clients(address: Address):
    def in_a_thread(real: Address) -> list[Message]:
        channel = connect_sync(real, HELLO)
        try:
            assert channel.receive() == []
            channel.send(Ready())
            return channel.wait(DEADLINE)
        finally:
            channel.close()

    async with listening(address) as real:
        big = Refused(reason="ü" * 2_000_000)
        assert await ask(real, big) == big
        assert await asyncio.to_thread(in_a_thread, real) == [Ready()]


async def test_wrong_token_and_silence(address: Address):
    wrong = HELLO.model_copy(update={"token": "x"})
    async with listening(address) as real:
        with pytest.raises(HandshakeRefused, match="token"):
            await connect(real, wrong)
        with pytest.raises(HandshakeRefused, match="token"):
            await asyncio.to_thread(connect_sync, real, wrong)
        assert await ask(real, Nudge()) == Nudge()
    async with listening(address, timeout=0.1) as real:
        quiet = await adopt_socket(await asyncio.to_thread(raw, real))
        assert await asyncio.wait_for(quiet.receive(), DEADLINE) is None
        quiet.close()
        await quiet.wait_closed()


def raw(address: Address) -> socket.socket:
    if isinstance(address, TcpAddress):
        return socket.create_connection((address.host, address.port))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address.path)
    return sock


HOSTILE = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
    "no json": encode(b"\xff\xff\xff"),
    "not a hello": encode_message(Nudge()),
    "endless": struct.pack(">I", 2**32 - 1) + b"x" * 1000,
    "a large hello": struct.pack(">I", 100_000),
    "half a frame": encode_message(HELLO)[:-5],
    "nothing": b"",
    "garbage after the hello": encode_message(HELLO) + encode(b"{}"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_peer_harms_only_itself(address: Address, data: bytes):
    async with listening(address, timeout=0.5) as real:
        good = await connect(real, HELLO)
        before = open_descriptors()
        for _ in range(2):
            sock = await asyncio.to_thread(raw, real)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(sock, data)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(DEADLINE):
                    while await asyncio.get_running_loop().sock_recv(sock, 4096):
                        pass
            sock.close()
        await until(lambda: open_descriptors() <= before)
        good.send(Nudge())
        assert await good.receive() == Nudge()
        good.close()
        await good.wait_closed()


async def test_a_failing_handler_is_reported_and_loses_only_its_peer(folder: Path):
    async def fail(connection: Connection, hello: Hello) -> None:
        raise RuntimeError("boom")

    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with listening(UnixAddress(str(folder / "hub")), fail) as real:
        for _ in range(2):
            connection = await connect(real, HELLO)
            assert await connection.receive() is None
            connection.close()
            await connection.wait_closed()
    assert [str(report["exception"]) for report in reports] == ["boom", "boom"]


async def test_a_thousand_that_never_say_hello_leave_nothing(address: Address):
    """They come in fifties and go again, some by a close, some half-open; at the end every descriptor is back."""
    async with listening(address, timeout=1.0) as bound:
        assert await ask(bound, Nudge()) == Nudge()
        before = open_descriptors()
        for n in range(20):
            silent = [plain(bound) for _ in range(50)]
            for number, sock in enumerate(silent):
                if number % 3 == 1:
                    sock.shutdown(socket.SHUT_WR)
                elif number % 3 == 2:
                    sock.send(b"\x00")
            if n == 10:
                assert await ask(bound, Nudge()) == Nudge()
            for sock in silent:
                sock.close()
            await asyncio.sleep(0)
        await until(lambda: open_descriptors() <= before)


async def test_strangers_give_way_to_new_ones(address: Address):
    """So they take up no more than their share of the descriptors, and who says hello gets in."""
    listener = Listener(address, token="t", on_peer=echo, handshake_timeout=60.0, max_strangers=4)
    bound = await listener.start()
    silent = [plain(bound) for _ in range(12)]
    try:
        await until(lambda: sum(closed(sock) for sock in silent) == 8)
        assert await ask(bound, Nudge()) == Nudge()
        await until(lambda: sum(closed(sock) for sock in silent) == 9)
        assert [closed(sock) for sock in silent] == [True] * 9 + [False] * 3
        talkers = [await connect(bound, HELLO) for _ in range(6)]  # they are no strangers, and stay
        for talker in talkers:
            talker.send(Nudge())
            assert await talker.receive() == Nudge()
            talker.close()
            await talker.wait_closed()
    finally:
        for sock in silent:
            sock.close()
        await listener.stop()


def plain(address: Address) -> socket.socket:
    """Connect, and say nothing."""
    sock = socket.socket(socket.AF_UNIX if isinstance(address, UnixAddress) else socket.AF_INET)
    sock.connect(address.path if isinstance(address, UnixAddress) else (address.host, address.port))
    sock.setblocking(False)
    return sock


def closed(sock: socket.socket) -> bool:
    """Tell whether the other side has hung up."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_three_hundred_at_once(folder: Path):
    before = open_descriptors()
    async with listening(UnixAddress(str(folder / "hub"))) as real:
        answers = await asyncio.gather(*(ask(real, Committed(event_id=number)) for number in range(300)))
        assert answers == [Committed(event_id=number) for number in range(300)]
    await until(lambda: open_descriptors() <= before)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that others can be let into: above that of the tests there is one that is closed to them."""
    with tempfile.TemporaryDirectory(prefix="pd", dir="/tmp") as path:
        yield Path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_refused_even_with_the_token(open_folder: Path):
    """The directory keeps others out; where somebody has opened it, the kernel's word for who they are still does."""
    program = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\n"
        "except OSError as error: print(type(error).__name__)\n"
        "else: s.sendall(bytes.fromhex(sys.argv[2])); print(s.recv(1000)[4:].decode())"
    )

    async def as_somebody_else(address: UnixAddress) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-c",
            program,
            address.path,
            encode_message(HELLO).hex(),
            stdout=asyncio.subprocess.PIPE,
        )
        return (await process.communicate())[0].decode().strip()

    async with listening(UnixAddress(str(open_folder / "hub"))) as bound:
        assert isinstance(bound, UnixAddress)
        assert await as_somebody_else(bound) == "PermissionError"
        open_folder.chmod(0o755)
        assert await as_somebody_else(bound) == "PermissionError"
        os.chmod(bound.path, 0o666)
        assert f"this server serves user {os.geteuid()} only" in await as_somebody_else(bound)


async def test_stop_ends_the_peers_and_leaves_nothing(folder: Path):
    before = open_descriptors()
    path = folder / "hub"
    listener = Listener(UnixAddress(str(path)), token="t", on_peer=echo)
    for _ in range(3):
        real = await listener.start()
        assert await listener.start() == real
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connections = [await connect(real, HELLO) for _ in range(3)]
        half_open = await asyncio.to_thread(raw, real)
        await asyncio.gather(listener.stop(), listener.stop())
        assert os.listdir(folder) == []
        for connection in connections:
            assert await asyncio.wait_for(connection.receive(), DEADLINE) is None
            connection.close()
            await connection.wait_closed()
        half_open.close()
    await until(lambda: open_descriptors() <= before)


async def test_a_stale_socket_is_replaced_and_a_successors_is_left(folder: Path):
    path = folder / "hub"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    first = Listener(UnixAddress(str(path)), token="t", on_peer=echo)
    await first.start()
    path.unlink()
    async with listening(UnixAddress(str(path))) as real:
        await first.stop()
        assert await ask(real, Nudge()) == Nudge()


async def test_what_is_not_ours_at_the_path_is_refused(folder: Path):
    (folder / "directory").mkdir()
    (folder / "file").write_text("precious")
    async with listening(UnixAddress(str(folder / "live"))):
        (folder / "link").symlink_to(folder / "live")
        (folder / "dangling").symlink_to(folder / "nothing")
        for name in ("directory", "file", "link", "dangling", "live"):
            with pytest.raises(AddressInUse):
                await Listener(UnixAddress(str(folder / name)), token="t", on_peer=echo).start()
        assert (folder / "file").read_text() == "precious"
        assert sorted(os.listdir(folder)) == ["dangling", "directory", "file", "link", "live"]
    with pytest.raises(SocketPathTooLong):
        await Listener(UnixAddress(str(folder / ("x" * 110))), token="t", on_peer=echo).start()
    with pytest.raises(FileNotFoundError):
        await Listener(UnixAddress(str(folder / "no" / "hub")), token="t", on_peer=echo).start()


async def test_of_many_that_race_for_a_stale_path_one_wins(folder: Path):
    path = folder / "hub"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listeners = [Listener(UnixAddress(str(path)), token="t", on_peer=echo) for _ in range(8)]
    results = await asyncio.gather(*(listener.start() for listener in listeners), return_exceptions=True)
    assert sum(isinstance(result, UnixAddress) for result in results) == 1
    assert sum(isinstance(result, AddressInUse) for result in results) == 7
    assert await ask(UnixAddress(str(path)), Nudge()) == Nudge()
    for listener in listeners:
        await listener.stop()


async def test_the_path_is_taken_under_the_directorys_lock(folder: Path):
    listener = Listener(UnixAddress(str(folder / "hub")), token="t", on_peer=echo)
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listener.start(), 0.05)
    assert os.listdir(folder) == []
    os.close(held)
    await listener.start()
    await listener.stop()


async def test_a_taken_port_is_refused():
    async with listening(TcpAddress("127.0.0.1", 0)) as real:
        with pytest.raises(AddressInUse):
            await Listener(real, token="t", on_peer=echo).start()


async def test_nobody_there(folder: Path):
    for address in (UnixAddress(str(folder / "hub")), TcpAddress("127.0.0.1", 1)):
        with pytest.raises(PeerGone):
            await connect(address, HELLO)
        with pytest.raises(PeerGone):
            await asyncio.to_thread(connect_sync, address, HELLO)


async def test_a_listener_that_never_answers_and_a_full_backlog(folder: Path):
    path = str(folder / "hub")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(0)
        for _ in range(3):  # the first ones fill the backlog
            with pytest.raises(PeerGone):
                await connect(UnixAddress(path), HELLO, timeout=0.05)
            with pytest.raises(PeerGone):
                await asyncio.to_thread(connect_sync, UnixAddress(path), HELLO, 0.05)


async def test_a_peer_that_does_not_read_is_dropped():
    ours, theirs = socket.socketpair()
    connection = await adopt_socket(ours, max_buffer=100_000)
    message = Refused(reason="x" * 10_000)

    def flood() -> None:
        for _ in range(1000):
            connection.send(message)

    with pytest.raises(PeerGone, match="does not read"):
        flood()
    assert connection.closed
    with pytest.raises(PeerGone):
        connection.send(Nudge())
    assert await connection.receive() is None
    await connection.wait_closed()
    theirs.close()


async def test_reading_is_bounded_by_not_reading():
    ours, theirs = socket.socketpair()
    connection = await adopt_socket(ours)
    theirs.setblocking(False)
    sent = 0
    frame = encode_message(Refused(reason="x" * 10_000))
    for _ in range(50):
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += theirs.send(frame)
        await asyncio.sleep(0)
    assert sent < 2_000_000
    connection.close()
    await connection.wait_closed()
    theirs.close()


async def test_bad_frames_raise_at_the_receiver():
    for data, error in ((encode(b"?"), ProtocolError), (b"\xff" * 4, FrameTooLarge)):
        ours, theirs = socket.socketpair()
        connection = await adopt_socket(ours)
        theirs.sendall(data)
        with pytest.raises(error):
            await connection.receive()
        connection.close()
        await connection.wait_closed()
        theirs.close()


def test_a_channel_is_bounded_in_time_and_sees_the_end():
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    assert channel.wait(0.01) == []
    stream = encode_message(Nudge()) + encode_message(Ready())
    theirs.sendall(stream[:7])
    assert channel.wait(0.01) == []
    theirs.sendall(stream[7:])
    assert channel.wait(DEADLINE) == [Nudge(), Ready()]
    with pytest.raises(PeerGone):
        channel.send(Refused(reason="x" * 5_000_000), timeout=0.05)
    assert channel.fileno() == -1
    theirs.close()
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.close()
    with pytest.raises(PeerGone):
        channel.receive()
    with pytest.raises(PeerGone):
        channel.send(Nudge())
    channel.close()


def test_the_kernel_names_the_peer():
    left, right = socket.socketpair()
    with left, right:
        assert peer_uid(left) == os.geteuid()
    with socket.socket(socket.AF_INET) as tcp:
        assert peer_uid(tcp) is None


def test_every_error_is_an_ipc_error():
    for error in (AddressInUse, FrameTooLarge, HandshakeRefused, PeerGone, ProtocolError, SocketPathTooLong):
        assert issubclass(error, IpcError)
