"""The chunks of an instance's stream: numbered, and none sent twice."""

from __future__ import annotations

import asyncio
from typing import Any

from ..store.ops import Emitted
from .writer import JournalWriter

__all__ = ["Chunks"]


class Chunks:
    """What one execution sends. A place that sends again what an earlier execution has sent is counted, not heard."""

    def __init__(self, writer: JournalWriter, *, first: bool) -> None:
        """Begin with the first place; `first` says that no execution was before."""
        self._writer = writer
        self._first = first
        self._sent: dict[str, int] | None = None
        self._passed: dict[str, int] = {}
        self._lock = asyncio.Lock()

    def again(self, key: str) -> None:
        """Note that a step is tried again: it sends its chunks from the beginning."""
        self._passed.pop(key, None)

    def look_again(self) -> None:
        """Note that others may have sent into this stream: an action that ran elsewhere."""
        self._first, self._sent = False, None

    async def send(self, key: str, value: Any) -> None:
        """Send one chunk of a step (or of the flow, with an empty key), unless this place has sent it in an earlier execution."""
        async with self._lock:
            if self._sent is None:
                self._sent = {} if self._first else await self._writer.store.streamed(self._writer.lease)
            passed = self._passed.get(key, 0)
            self._passed[key] = passed + 1
            if passed < self._sent.get(key, 0):
                return
            data = {"chunk": value, **({"step": key} if key else {})}
            self._sent[key] = passed + 1
            self._writer.add(Emitted("workflow.stream", data))
            await self._writer.flush()
