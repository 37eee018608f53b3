"""A bell: one datagram that says "look", and up to where there is something to see.

A child rings after each commit. To say so over its connection it would need turns of its event loop, for the handshake and for each
message, and a short workflow never gives it one: its events would be seen only when its process had ended. A datagram is one system call,
needs no answer and no connection, and finds whichever server has the path now.

It carries a number, the id of the newest event that is on the disk; of several rings the highest counts. Nothing is authenticated: who may
ring may write the database too. A full queue loses a ring: the rings before it have not been heard yet, and what it would have told
the server finds out itself a moment later. The path lies in the run directory (0700), and the socket is 0600 (unix(7): connecting to a socket
needs write permission).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

__all__ = ["Bell", "Ringer"]

_AT_ONCE = 256
_LONGEST = 20  # digits of 64 bits


class Bell:
    """Hear rings at a path.

    Args:
        path: where; what lies there is replaced (whoever calls holds the lock of the directory).
        rung: called on the loop with the highest number, once for all the rings that have come together.
    """

    def __init__(self, path: str, rung: Callable[[int], None]) -> None:
        """Hold the parts; `start` listens."""
        self._path = path
        self._rung = rung
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the path cannot be had.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
        self._socket.setblocking(False)
        try:
            self._socket.bind(self._path)
        except OSError:
            self._socket.close()
            self._socket = None
            raise
        os.chmod(self._path, 0o600)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._hear)

    def _hear(self) -> None:
        if self._socket is None:
            return
        highest = 0
        with contextlib.suppress(OSError):  # none left
            for _ in range(_AT_ONCE):
                highest = max(highest, _number(self._socket.recv(_LONGEST)))
        self._rung(highest)

    def stop(self) -> None:
        """Listen no more; idempotent."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class Ringer:
    """Ring whoever hears at a path; never blocks and never fails."""

    def __init__(self, path: str) -> None:
        """Ring there."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
        self._socket.setblocking(False)

    def ring(self, number: int) -> bool:
        """Ring once; return whether somebody hears, or still has rings to hear."""
        try:
            self._socket.sendto(b"%d" % number, self._path)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


def _number(datagram: bytes) -> int:
    return int(datagram) if datagram.isdigit() else 0  # another version's: it says "look"
