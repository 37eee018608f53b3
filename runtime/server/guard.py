"""The server's side of the watchdog: starts it, and starts another when it dies. Its findings come over the hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import Any

from ...watchdog.beats import BeatTable
from ...watchdog.identity import ProcessHandle, ProcessIdentity, identify
from ..base.config import WatchdogConfig
from ..base.log import get_logger
from .exits import ended_or_stopped
from .heirs import leave

__all__ = ["WatchdogKeeper"]

_RESTART_FIRST, _RESTART_LAST, _STOP_TIMEOUT = 0.1, 2.0, 5.0
_PROBED = f"{__package__}.probed_watchdog"
_log = get_logger("paddock.watchdog")


class WatchdogKeeper:
    """Keep a watchdog process alive."""

    def __init__(
        self, config: WatchdogConfig, *, address: str, token: str, table: BeatTable, trace_dir: str, orphan_grace: float
    ) -> None:
        """Hold the settings, which go to the process on its standard input: argv is for all to read."""
        me = identify(os.getpid())
        self._enabled = config.enabled
        self._settings: dict[str, Any] = {
            "address": address,
            "token": token,
            "beats_path": table.path,
            "trace_dir": trace_dir,
            "thresholds": {
                "interval": config.interval,
                "heartbeat_timeout": config.heartbeat_timeout,
                "stall_timeout": config.stall_timeout,
                "kill_grace": config.kill_grace,
            },
            "orphan_grace": orphan_grace,
            "server": {"pid": me.pid, "start_time": me.start_time},
        }
        self._last = _in_charge(table)
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Return the watchdog's pid."""
        return self._process.pid if self._process is not None else None

    @property
    def trouble(self) -> str | None:
        """Say that no watchdog looks at the children just now, where that is so."""
        if self._process is not None and self._process.poll() is None:
            return None
        return f"it is not there, and is being replaced{f' ({self._failure})' if self._failure else ''}"

    async def start(self) -> None:
        """Start a watchdog, where one is wanted; the last server's goes."""
        self._dismiss(signal.SIGTERM)
        if self._enabled:
            self._launch()
            self._task = asyncio.create_task(self._keep(), name="paddock-watchdog-keeper")

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROBED if os.environ.get("PADDOCK_FAULTS") else "paddock.watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it says nothing there, and outlives a server whose pipe somebody reads to its end
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(self._settings).encode() + b"\n")
            self._process.stdin.close()

    def _dismiss(self, number: int) -> None:
        """End the last server's watchdog: found replaced by one that has gone again, it would take charge and stay for a while."""
        handle = ProcessHandle.open(self._last) if self._last is not None else None
        if handle is not None:
            with handle, contextlib.suppress(PermissionError):
                handle.send_signal(number)

    async def _keep(self) -> None:
        pause = _RESTART_FIRST
        loop = asyncio.get_running_loop()
        while True:
            process, born = self._process, loop.time()
            if process is not None:
                await ended_or_stopped(process.pid)
                process.kill()  # one that is stopped watches nobody
                process.wait()
            if self._stopping.is_set():
                return
            pause = _RESTART_FIRST if loop.time() - born > _RESTART_LAST else min(pause * 2, _RESTART_LAST)
            _log.warning("the watchdog died and is replaced", pause=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return  # never start one that nobody would stop
            try:
                self._launch()
            except OSError as error:
                self._process, self._failure = None, str(error)
                _log.error("the watchdog cannot be started", error=str(error))

    async def stop(self, *, handover: bool = False) -> None:
        """End the watchdog, or leave it to the next server: it watches on, for `orphan_grace`."""
        self._stopping.set()
        if handover:
            await self._let_go()
            return
        self._dismiss(signal.SIGKILL)
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_STOP_TIMEOUT)
            if not self._task.done() and process is not None:
                process.send_signal(signal.SIGKILL)
            self._task.cancel()
            await asyncio.wait({self._task})
        if process is not None:
            await asyncio.to_thread(process.wait)

    async def _let_go(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._process is not None:
            leave(self._process)


def _in_charge(table: BeatTable) -> ProcessIdentity | None:
    pid, start_time, _ = table.watchdog()
    return ProcessIdentity(pid, start_time, table.boot_id) if pid else None
