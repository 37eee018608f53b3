"""Which watchdog is in charge."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from paddock.ipc.address import UnixAddress
from paddock.watchdog.beats import BeatTable
from paddock.watchdog.identity import identify
from paddock.watchdog.policy import Thresholds
from paddock.watchdog.process import Watchdog
from paddock.watchdog.settings import Settings


def _off(_text: str) -> None:
    pass


def test_a_successor_that_is_just_writing_its_name_is_not_taken_for_dead(tmp_path: Path):
    me = identify(os.getpid())
    with (
        closing(BeatTable.create(str(tmp_path / "beats"), slots=1)) as table,
        subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process,
    ):
        settings = Settings(
            address=UnixAddress(str(tmp_path / "hub")),
            token="",
            beats_path=table.path,
            trace_dir=str(tmp_path),
            thresholds=Thresholds(1.0, 30.0, None, 5.0),
            orphan_grace=60.0,
            server=(me.pid, me.start_time),
        )
        watchdog = Watchdog(settings, table, report=_off, reach=_off)
        for end in (watchdog._hub._wake, watchdog._hub._waker):
            end.close()  # it is not run, which would close them
        table.set_watchdog(me.pid, me.start_time)
        assert not watchdog._superseded()
        successor = identify(process.pid)
        half = (me.pid, successor.start_time + 1)  # its start time is written, its pid is not
        table.set_watchdog(*half)
        assert not watchdog._superseded()
        assert table.watchdog()[:2] == half
        table.set_watchdog(successor.pid, successor.start_time)
        assert watchdog._superseded()
        process.kill()
        process.wait()
        assert not watchdog._superseded()
        assert not watchdog._superseded()
        assert table.watchdog()[:2] == (me.pid, me.start_time)
