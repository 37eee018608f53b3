"""The child that is forked ahead of its order: it is used, replaced, and left behind by nobody."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from crashflows import result_of
from crashkit import Stage, finished, kill, line, pid_of, proven, until
from ledger import starts

from paddock import AppServer

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
pytestmark = linux_only


def children_of(pid: int) -> set[int]:
    """Return the living children of a process."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return set()
    return {int(child) for child in found if starts(int(child)) is not None}


def files_of(pid: int) -> list[str]:
    """Return the names of a process's open files; what it closes meanwhile is not among them."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(path))
    return found


async def standby_of(server: AppServer) -> int:
    """Return the pid of the only child of a fork server that makes none for an instance."""
    forkserver = await pid_of(server, "fork-server")
    [pid] = await until(lambda: children_of(forkserver), "a standby")
    return pid


async def waiting(pid: int) -> None:
    """Wait until a process sleeps: most often for its order, now and then in the middle of its rehearsal."""
    await until(
        lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S", "a standby that waits"
    )


async def test_the_instance_runs_in_the_process_that_was_there_before(stage: Stage):
    async with stage.server() as server:
        ran: list[int] = []
        for n in range(1, 20):
            pid = await standby_of(server)
            await waiting(pid)
            await proven(server, await server.workflows.start("everything", {"n": n}, id=f"i{n}"), result_of(n))
            ran.append((await line("begin", instance=f"i{n}"))["pid"])
            assert len({*ran}) == len(ran)
            if pid == ran[-1]:  # else it was not ready, and was passed over
                return
            await until(lambda: not stage.sql("SELECT * FROM paddock_leases"), "the slot")
    raise AssertionError(f"none of {ran} was there before")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_one_that_dies_costs_nothing(stage: Stage, number: int):
    async with stage.server() as server:
        pid = await standby_of(server)
        os.kill(pid, number)
        await until(lambda: starts(pid) is None, "its end")
        await proven(server, await server.workflows.start("everything", {"n": 2}), result_of(2))


async def test_one_that_is_stopped_is_found_by_the_watchdog(stage: Stage):
    async with stage.server(watchdog={"interval": 0.1, "heartbeat_timeout": 0.6, "kill_grace": 0.3}) as server:
        pid = await standby_of(server)
        await waiting(pid)
        os.kill(pid, signal.SIGSTOP)
        await proven(server, await server.workflows.start("everything", {"n": 2}), result_of(2))
        kill(pid)  # where it had not been ready, nobody has touched it


async def test_it_dies_with_its_fork_server(stage: Stage):
    async with stage.server() as server:
        pid = await standby_of(server)
        await waiting(pid)
        os.kill(pid, signal.SIGSTOP)  # the end of a file would not reach it
        kill(await pid_of(server, "fork-server"))
        await until(lambda: starts(pid) is None, "its end")
        await proven(server, await server.workflows.start("everything", {"n": 2}), result_of(2))


def written_to(pid: int) -> list[str]:
    """Return the locks of a process that keep others from something."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [" ".join(words) for words in lines if str(pid) in words and "WRITE" in words]


async def test_it_has_the_database_open_and_holds_nothing_of_it(stage: Stage):
    async with stage.server() as server:
        pid = await standby_of(server)
        await until(lambda: str(stage.db) in files_of(pid), "the database, opened ahead")
        await waiting(pid)
        assert not written_to(pid)
        assert not stage.sql("SELECT * FROM paddock_leases")
        assert os.getsid(pid) == pid
        await finished(server, await server.workflows.start("everything", {"n": 1}))
