"""Server-sent events: frames, and a response that sends them for as long as somebody reads.

A reader costs a place in the bus and what is on its way to it. One that reads slowly is sent nothing while its socket is full; the bus
then lets it fall behind and serves it from the store. What all of them are sent is encoded once.
"""

from __future__ import annotations

import asyncio
import signal
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any

import pydantic_core
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .access import is_loopback
from .problems import Problem, answer, problem_of
from .requests import LARGEST
from .served import Served

__all__ = ["Frames", "Readers", "frame", "frames_of", "last_event_id", "readers_of"]

KEEP_ALIVE = 15.0
_LOOK = 0.25
_MOST = 1000
_MOST_OF_ONE = 250
_RETRY = b"retry: 1000\n\n"
_IDLE = b": keep-alive\n\n"
_LATEST, _LATEST_BYTES = 512, 8 * 2**20


def frame(data: Any, *, event: str | None = None, id: int | None = None) -> bytes:
    """Return one event; its JSON holds no line break."""
    text = data if isinstance(data, bytes) else pydantic_core.to_json(data, inf_nan_mode="null")
    head = (f"id: {id}\n" if id is not None else "") + (f"event: {event}\n" if event is not None else "")
    return head.encode() + b"data: " + text + b"\n\n"


def last_event_id(request: Request) -> int | None:
    """Return where a reader that comes back was.

    Raises:
        Problem: it is no number of ours.
    """
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= LARGEST:  # noqa: PLR2004
        return int(text)
    raise Problem(422, "InvalidRequest", "Last-Event-ID is the id of an event, a whole number")


class Frames:
    """Frames of the latest events, encoded once for all readers."""

    def __init__(self) -> None:
        """Begin empty."""
        self._held: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._size = 0

    def of(self, id: int, kind: str, make: Callable[[], Any]) -> bytes:
        """Return the frame of an event; `make` gives its data where it is not held."""
        key = (id, kind)
        found = self._held.get(key)
        if found is None:
            found = frame(make(), id=id)
            self._held[key] = found
            self._size += len(found)
            while len(self._held) > _LATEST or self._size > _LATEST_BYTES:
                self._size -= len(self._held.popitem(last=False)[1])
        return found


class Readers:
    """Everybody who reads a stream. They are let go when the server closes, or the program that serves it is told to end."""

    def __init__(self, served: Served) -> None:
        """Begin with none."""
        self._served = served
        self._open: dict[asyncio.Task[Any], str] = {}
        self._watch: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """Return how many read."""
        return len(self._open)

    def respond(self, request: Request, frames: AsyncIterator[bytes]) -> Response:
        """Answer with frames as they come, and a comment now and then where none do."""
        if len(self._open) >= _MOST:
            return answer(Problem(503, "TooManyStreams", f"{_MOST} streams are open already"))
        peer = request.client.host if request.client is not None else ""
        # behind a proxy on this machine all are one peer
        if not is_loopback(peer) and sum(one == peer for one in self._open.values()) >= _MOST_OF_ONE:
            return answer(Problem(503, "TooManyStreams", f"you have {_MOST_OF_ONE} streams open already"))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        body = self._body(frames, peer) if request.method != "HEAD" else _nothing()
        return StreamingResponse(body, headers=headers, media_type="text/event-stream")

    async def _body(self, frames: AsyncIterator[bytes], peer: str) -> AsyncIterator[bytes]:
        """Hand frames on, and keep-alives between them."""
        closing = asyncio.ensure_future(self._served.closing.wait())
        self._open[closing] = peer
        self._look()
        try:
            yield _RETRY
            async for one in _paced(frames, closing):
                yield one
        except Exception as error:  # noqa: BLE001  the head is sent: the stream is the one place left to say it
            yield frame(problem_of(error).body, event="error")
        finally:
            del self._open[closing]
            closing.cancel()

    def _look(self) -> None:
        """Watch for the end of the program while anybody reads.

        A server such as uvicorn waits for its connections before it tells the application to stop, and a stream never ends by itself.
        """
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._until_told(), name="paddock-http-readers")

    async def _until_told(self) -> None:
        while self._open and not self._served.closing.is_set():
            handler = signal.getsignal(signal.SIGTERM)
            if getattr(getattr(handler, "__self__", None), "should_exit", False) is True:
                self._served.closing.set()
            await asyncio.sleep(_LOOK)


async def _paced(frames: AsyncIterator[bytes], closing: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    """Go through frames until they end or `closing` is done, with a comment where none came for a while.

    What comes next is waited for in a task of its own, which a keep-alive does not cancel.
    """
    coming: asyncio.Task[bytes | None] = asyncio.ensure_future(_next(frames))
    try:
        while not closing.done():
            await asyncio.wait({coming, closing}, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                if not closing.done():
                    yield _IDLE
                continue
            if (found := coming.result()) is None:
                return
            yield found
            coming = asyncio.ensure_future(_next(frames))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        if (close := getattr(frames, "aclose", None)) is not None:
            await close()


async def _next(frames: AsyncIterator[bytes]) -> bytes | None:
    return await anext(frames, None)


async def _nothing() -> AsyncIterator[bytes]:
    none: tuple[bytes, ...] = ()
    for one in none:
        yield one


def readers_of(request: Request) -> Readers:
    """Return the readers of the application that a request was sent to."""
    found: Readers = request.app.state.readers
    return found


def frames_of(request: Request) -> Frames:
    """Return the frames that the application holds."""
    found: Frames = request.app.state.frames
    return found
