"""A child that was forked ahead of its order: what every child does first is done before anybody waits for it.

A fork copies page tables, not pages: a child pays for each page at its first write to it, and it writes to most pages of the
interpreter as soon as it calls what lies there, for the counts of references. That is half of what a short instance costs. The standby
pays it while nobody waits: it becomes a child, rehearses, makes what it will work with (`outfit.py`), says that it is ready and blocks
until its order comes. It serves one order, as every child does; nothing of one instance ever reaches another.

Until the order is there the standby belongs to its fork server: it dies with it (PR_SET_PDEATHSIG, prctl(2); the end of file on its
socket where there is no such thing). It has the database open, and holds no lock of it, no slot and no lease. With the order it becomes a child
like any other, and outlives both.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass, field

from ...ipc.channel import Channel
from ...ipc.errors import IpcError
from ...ipc.messages import Fork
from ...watchdog.identity import identify
from ..base.probes import silence
from .birth import die_with_parent, name_process
from .outfit import Outfit
from .rehearsal import Stage
from .spec import ChildSpec

__all__ = ["Standby", "await_order", "practise"]

_LENGTH = struct.Struct("!I")
_READY = b"r"
_HANDING_OVER = 1.0


@dataclass(slots=True)
class Standby:
    """The standby as the fork server holds it."""

    pid: int
    line: socket.socket = field(repr=False)
    ready: bool = False

    def hear(self) -> None:
        """Take its word that it is ready; one that is gone is told of by its death."""
        try:
            self.ready = self.line.recv(1) == _READY
        except OSError:
            self.ready = False

    def hand(self, spec: str) -> bool:
        """Tell it what it is for, as JSON; where that fails, it will not act on a part of it."""
        text = spec.encode()
        try:
            self.line.settimeout(_HANDING_OVER)
            self.line.sendall(_LENGTH.pack(len(text)) + text)
        except OSError:
            return False
        finally:
            self.line.close()
        return True

    def dismiss(self) -> None:
        """Let it go: it ends at the end of its line."""
        self.line.close()


def practise(order: Fork) -> None:
    """Take an order and pass it on, to nobody. For the fork server, after it has forked a standby.

    After a fork each page is copied at its next write, and an order writes to sixty.
    """
    with contextlib.suppress(IpcError, OSError):
        ours, theirs = socket.socketpair()
        with contextlib.closing(ours), contextlib.closing(Channel(theirs)) as channel:
            Channel(ours).send(order)
            for message in channel.receive():
                if isinstance(message, Fork):
                    Standby(0, ours).hand(message.spec)
            identify(os.getpid())


def await_order(line: socket.socket, parent: int, stage: Stage | None, outfit: Outfit) -> ChildSpec | None:
    """Rehearse, say so, and return what there is to do; None when this process is not needed any more. For the standby itself.

    Args:
        line: to the fork server.
        parent: the fork server's pid.
        stage: where to rehearse, where there is one.
        outfit: this process's, made ahead where it is known what it needs.
    """
    if not die_with_parent(parent):
        return None
    name_process("paddock-standby")
    with silence():
        if stage is not None:
            stage.play()
        outfit.make_ahead(stage.statements if stage is not None else ())
    with contextlib.suppress(OSError):
        line.sendall(_READY)
        header = _read(line, _LENGTH.size)
        text = _read(line, _LENGTH.unpack(header)[0]) if header else None
        if text:
            die_with_parent(None)
            return ChildSpec.model_validate_json(text)
    return None


def _read(line: socket.socket, size: int) -> bytes | None:
    """Return exactly `size` bytes; None where the line ends before."""
    held = bytearray()
    while len(held) < size:
        piece = line.recv(min(size - len(held), 2**20))
        if not piece:
            return None
        held += piece
    return bytes(held)
