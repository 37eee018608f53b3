"""A power cut: what was acknowledged is there, and nothing was told or begun that stands on what is not."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import powerserver
import psutil
import pytest
from crashkit import Faults, Stage, until
from ledger import read
from machinery import CutDisk

from paddock import Status

pytestmark = pytest.mark.slow

_COMPLETED = "SELECT i.id, s.key FROM paddock_steps s JOIN paddock_instances i ON i.seq = s.instance WHERE s.status = 'completed'"


def stopped(pid: int) -> list[psutil.Process]:
    """Stop a process and all that descend from it, those too that are born meanwhile; return them."""
    first = psutil.Process(pid)
    while True:
        family = [first, *first.children(recursive=True)]
        if not (running := [process for process in family if is_running(process)]):
            return family
        for process in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        time.sleep(0.001)  # who is in a sync stops when it returns


def is_running(process: psutil.Process) -> bool:
    """Tell whether a process may still do something."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


async def cut_off(
    stage: Stage, disk: CutDisk, synchronous: str, told: int, environ: dict[str, str] | None = None
) -> None:
    """Serve on a disk until so many events were told, cut its power, and bring it back."""
    stage.db = disk.path / "app.db"
    settings = {"program": Path(powerserver.__file__), "database": str(stage.db), "synchronous": synchronous}
    server = await stage.process(**settings, environ=environ or {})
    await until(lambda: len(read("told")) > told, "events")
    family = await asyncio.to_thread(
        stopped, server.pid
    )  # as by the cut: whoever went on after it would tell of what happens to nobody
    await asyncio.to_thread(disk.cut)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    await server.died()
    await asyncio.to_thread(disk.come_back)


@pytest.mark.parametrize("told", [100, 300, 1000])
async def test_what_was_told_and_what_was_begun_stands_on_what_the_disk_has(stage: Stage, tmp_path: Path, told: int):
    with CutDisk(tmp_path / "disk") as disk:
        await cut_off(stage, disk, "FULL", told)
        assert stage.sql("PRAGMA integrity_check") == [("ok",)]
        there = dict(stage.sql("SELECT id, name FROM paddock_events"))
        assert [line for line in read("told") if there.get(line["id"]) != line["name"]] == []
        done = set(stage.sql(_COMPLETED))
        begun = [(line["instance"], line["number"]) for line in read("begun")]
        assert [one for one in begun if one[1] and (one[0], f"s{one[1] - 1}") not in done] == []
        async with powerserver.serving(stage.folder, str(stage.db), "FULL") as server:
            for (instance,) in stage.sql("SELECT id FROM paddock_instances"):
                assert (await server.workflows.wait(instance, timeout=60)).status is Status.COMPLETED


async def test_the_cut_itself(stage: Stage, tmp_path: Path):
    """Who asks the disk for nothing loses what was told: so the other test can fail.

    With NORMAL only a checkpoint asks, so there is none: it might come right before the cut.
    """
    without_checkpoints = Faults(stage, None, {"server.checkpoint": "eio"}, every=1)
    with CutDisk(tmp_path / "disk") as disk:
        await cut_off(stage, disk, "NORMAL", 300, without_checkpoints.environ)
        found = stage.sql("SELECT name FROM sqlite_master WHERE name = 'paddock_events'")
        there = dict(stage.sql("SELECT id, name FROM paddock_events")) if found else {}
        assert [line for line in read("told") if there.get(line["id"]) != line["name"]]
