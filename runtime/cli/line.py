"""The line to a running server: its hub's socket, as the lock file of the database names it."""

from __future__ import annotations

import json
import os
from types import TracebackType
from typing import Any, Self

from ...ipc.address import parse_address
from ...ipc.channel import Channel, connect_sync
from ...ipc.errors import FrameTooLarge, HandshakeRefused, IpcError, PeerGone
from ...ipc.handshake import PROTOCOL_VERSION
from ...ipc.messages import Answer, Ask, Hello
from ...watchdog.identity import identify
from ..base import errors
from ..base.errors import MachineError, PaddockError, PayloadTooLarge
from ..store.turn import ServerNote

__all__ = ["Line", "NoLine"]

_CONNECT = 5.0


class NoLine(MachineError):
    """The server cannot be reached just now: it starts, stops, or hangs."""


class Line:
    """A connection over which a server is asked, one thing after the other."""

    def __init__(self, channel: Channel, pid: int) -> None:
        """Hold a channel that is welcome; use `Line.to`."""
        self._channel = channel
        self._pid = pid
        self._asked = 0

    @classmethod
    def to(cls, note: ServerNote, timeout: float = _CONNECT) -> Self:
        """Connect to the server that a lock file names.

        Raises:
            NoLine: it does not answer.
            MachineError: it refuses us.
        """
        if note.host is not None:
            raise MachineError(
                f"the server (pid {note.pid}) runs on the machine {note.host}; ask it there, or over HTTP"
            )
        if note.address is None or note.run_dir is None:
            raise NoLine(f"the server with pid {note.pid} does not listen yet")
        try:
            with open(os.path.join(note.run_dir, "token"), encoding="ascii") as file:
                token = file.read().strip()
            me = identify(os.getpid())
            hello = Hello(version=PROTOCOL_VERSION, role="control", token=token, pid=me.pid, start_time=me.start_time)
            return cls(connect_sync(parse_address(note.address), hello, timeout), note.pid)
        except HandshakeRefused as error:
            raise MachineError(f"the server with pid {note.pid} refuses the command line: {error}") from None
        except (IpcError, OSError, ValueError) as error:
            raise NoLine(f"the server with pid {note.pid} does not answer: {error}") from None

    def ask(self, operation: str, arguments: dict[str, Any], timeout: float) -> Any:
        """Have something done and return its result; `timeout` in seconds.

        Raises:
            PaddockError: what the operation raised there, of the same type.
            MachineError: the answer did not come; what was asked may have been done.
        """
        self._asked += 1
        try:
            self._channel.send(Ask(id=self._asked, operation=operation, arguments=json.dumps(arguments)))
            answer = self._receive(timeout)
        except FrameTooLarge as error:
            raise PayloadTooLarge(f"what {operation} is to send", error.size, error.limit) from None
        except (IpcError, PeerGone) as error:
            raise MachineError(
                f"the server with pid {self._pid} went away while it was asked to {operation}; see what became of it: {error}"
            ) from None
        if answer is None:
            raise MachineError(
                f"the server with pid {self._pid} has not answered within {timeout:g} s; it may still do what it was asked"
            )
        if answer.error is not None:
            raise _same_error(answer.error_type, answer.error)
        return json.loads(answer.result or "null")

    def _receive(self, timeout: float) -> Answer | None:
        for message in self._channel.wait(timeout):
            if isinstance(message, Answer) and message.id == self._asked:
                return message
        return None

    def close(self) -> None:
        """Hang up; idempotent."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Return the line."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()


def _same_error(name: str | None, message: str) -> PaddockError:
    """Return an error of the type that the server named; the message says everything, so no other attribute is set."""
    found = getattr(errors, name or "", PaddockError)
    kind = found if isinstance(found, type) and issubclass(found, PaddockError) else PaddockError
    error = kind.__new__(kind, message)
    error.args = (message,)
    return error
