"""What the service manager that started this program is told, by sd_notify(3): systemd, or whoever names a socket in `NOTIFY_SOCKET`.

| message | when |
|---|---|
| `READY=1` | all is up: the server, and what serves beside it; after a restart in place again |
| `RELOADING=1` | SIGHUP has come: the program is tried out, then hands over and is executed anew, in the same process, so `MAINPID` stays |
| `READY=1` with a `STATUS=` | what would have been executed cannot be loaded; the old one serves on |
| `STOPPING=1` | SIGTERM or SIGINT has come |
| `WATCHDOG=1` | twice in each `WATCHDOG_USEC`, from the event loop: one that hangs falls silent |

The protocol is one datagram a message. The library there is for it has had no release since 2017 and knows no watchdog.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from types import TracebackType
from typing import Self

from ..base.log import get_logger
from ..child.spec import SERVICE_MANAGER

__all__ = ["ServiceManager"]

_PATIENCE = 2.0
_log = get_logger("paddock.server")


class ServiceManager:
    """The service manager that wants to be told; where there is none, nobody is. Beats while the context lasts.

    Its variables are taken out of the environment meanwhile: they are for this process, not for its children. They are back at the end,
    for a program that is executed in place of this one.
    """

    def __init__(self) -> None:
        """Take the variables."""
        self._taken = {name: os.environ.pop(name) for name in SERVICE_MANAGER if name in os.environ}
        self._address = _address(self._taken.get("NOTIFY_SOCKET", ""))
        self._up = False
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to beat, if that is wanted."""
        if (interval := self._interval()) is not None:
            self._beating = asyncio.create_task(self._beat(interval), name="paddock-serve-beat")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Fall silent, and put the variables back."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
        os.environ.update(self._taken)

    def ready(self) -> None:
        """Tell that all is up."""
        self._up = True
        self._tell("READY=1\nSTATUS=", _PATIENCE)

    def refused(self, reason: str) -> None:
        """Tell that the program is not executed anew, and serves on; the reason is what `systemctl status` shows."""
        status = f"STATUS=not restarted: {' '.join(reason.split())}"
        self._tell(f"READY=1\n{status}" if self._up else status, _PATIENCE)

    def reloading(self) -> None:
        """Tell that the program is about to be executed anew, if that can be."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", _PATIENCE)

    def stopping(self) -> None:
        """Tell that it is about to end."""
        self._tell("STOPPING=1", _PATIENCE)

    def _interval(self) -> float | None:
        """Return the seconds between two beats, None where nobody waits for them."""
        text = self._taken.get("WATCHDOG_USEC", "")
        mine = self._taken.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        wanted = self._address and mine and text.isascii() and text.isdigit() and int(text) > 0
        return int(text) / 2e6 if wanted else None

    async def _beat(self, interval: float) -> None:
        while True:
            self._tell(
                "WATCHDOG=1", 0.0
            )  # one that finds no room in the queue is lost; the next one comes before the time is over
            await asyncio.sleep(interval)

    def _tell(self, message: str, patience: float) -> None:
        if not self._address:
            return
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender:
                sender.settimeout(patience)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning(
                "the service manager was not reached",
                message=message.partition("\n")[0],
                error=error.strerror or "it takes nothing",
            )


def _address(text: str) -> str:
    """Return the address of a Unix socket: a path, or a name of the abstract space; empty for none, and for another family."""
    return "\0" + text[1:] if text.startswith("@") else text if text.startswith("/") else ""
