"""The wire: uvicorn's HTTP/1.1 over h11, with answers of ours where what comes is no HTTP, and a bound on how long a head may take.

h11 and not httptools, which uvicorn takes where it is installed: that one does not bound a head.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .gate import HEADERS
from .problems import Problem, answer

__all__ = ["HEAD_BYTES", "Wire"]

HEAD_BYTES = 64 * 1024
_HEAD_SECONDS = 30.0
_TOO_LARGE = 431
_ANSWERABLE = (h11.IDLE, h11.SEND_RESPONSE)


class Wire(H11Protocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._time_head()

    def data_received(self, data: bytes) -> None:
        """Take what comes. A head has to be whole in time, however often a byte of it comes."""
        super().data_received(data)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._time_head()

    def _time_head(self) -> None:
        waits = not self.transport.is_closing() and self.conn.their_state is h11.IDLE
        if waits and self._deadline is None:
            self._deadline = self.loop.call_later(_HEAD_SECONDS, self.transport.close)
        elif not waits and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or hang up where an answer has begun. Called where h11's error is handled; it says if it is a head too large."""
        if self.conn.our_state in _ANSWERABLE:
            found = Problem(400, "BadRequest", "this is no HTTP/1.1 request")
            if getattr(sys.exception(), "error_status_hint", 400) == _TOO_LARGE:
                found = Problem(_TOO_LARGE, "HeadTooLarge", f"the request's head is larger than {HEAD_BYTES:,} bytes")
            response = answer(found)
            headers = [*response.raw_headers, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            headers.append((b"connection", b"close"))
            head = h11.Response(
                status_code=found.status, headers=headers, reason=HTTPStatus(found.status).phrase.encode()
            )
            for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing of upgrades: they are not taken up, and the advice to install a library for them would be wrong."""
