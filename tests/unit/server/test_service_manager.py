"""What a service manager is told, over a real datagram socket."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from servant import HUP, TERM, Servant, serve

from paddock.runtime.server.service_manager import ServiceManager

READY = "READY=1\nSTATUS="


class Listener:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    async def next(self) -> str:
        async with asyncio.timeout(20):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path, monkeypatch) -> Iterator[Listener]:
    address = (
        str(tmp_path / "notify") if request.param == "path" else f"@paddock-test-{os.getpid()}-{time.monotonic_ns()}"
    )
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    made = Listener(address)
    yield made
    made.close()


async def test_up_and_down(listener: Listener):
    assert await serve(Servant(), ("open", TERM)) == "stopped"
    assert [await listener.next() for _ in range(2)] == [READY, "STOPPING=1"]


async def test_a_restart_in_place(listener: Listener):
    before = time.monotonic_ns() // 1000
    assert await serve(Servant(), ("open", HUP)) == "handed over"
    assert await listener.next() == READY
    word, _, stamp = (await listener.next()).partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert before <= int(stamp) <= time.monotonic_ns() // 1000
    assert "NOTIFY_SOCKET" in os.environ  # for the program that is executed now


async def test_a_restart_that_is_refused(listener: Listener):
    faults = ["a.py, line 3:\n  no", None]

    async def trial() -> str | None:
        servant.say(f"trial {len(faults)}")
        return faults.pop(0)

    servant = Servant()
    steps = ("open", HUP), ("trial 2", HUP)
    assert await serve(servant, *steps, trial=trial) == "handed over"
    found = [await listener.next() for _ in range(4)]
    assert found[0] == READY
    assert found[1].startswith("RELOADING=1")
    assert found[2] == "READY=1\nSTATUS=not restarted: a.py, line 3: no"
    assert found[3].startswith("RELOADING=1")


async def test_a_restart_that_is_to_be_an_end_after_all(listener: Listener):
    assert await serve(Servant(patient=True), ("open", HUP), ("hand over", TERM)) == "stopped"
    found = [await listener.next() for _ in range(3)]
    assert (found[0], found[1][:11], found[2]) == (READY, "RELOADING=1", "STOPPING=1")


async def test_beats_from_the_loop_and_for_this_process_alone(listener: Listener, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    async with ServiceManager():
        assert [await listener.next() for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert len(asyncio.all_tasks()) == 1
    monkeypatch.setenv("WATCHDOG_PID", "1")
    async with ServiceManager() as manager:
        assert len(asyncio.all_tasks()) == 1
        manager.ready()
    while await listener.next() != READY:  # behind the last beats
        pass


async def test_children_are_not_told_where_it_listens(listener: Listener, monkeypatch: pytest.MonkeyPatch):
    class Looking(Servant):
        async def start(self) -> None:
            await super().start()
            self.seen = [name for name in os.environ if name == "NOTIFY_SOCKET" or name.startswith("WATCHDOG_")]

    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    servant = Looking()
    await serve(servant, ("open", signal.SIGTERM))
    assert servant.seen == []
    assert os.environ["WATCHDOG_USEC"] == "30000000"


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1234", "/nowhere/notify", "@nobody-listens", "/" + "x" * 200]
)
async def test_a_service_manager_that_cannot_be_told_does_no_harm(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    assert await serve(Servant(), ("open", TERM)) == "stopped"
