"""One thread that owns one connection; a whole transaction is one hop to it. What SQLite's worker and PostgreSQL's have in common.

Calls that wait at the same time are handed over together, as a batch: what becomes of it is the business of the worker of each database.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from ..base.errors import DatabaseUnavailable, MachineError

__all__ = ["Call", "ConnectionThread", "Failed"]

_JOIN_AT_MOST = 64
_DOUBT = 5.0


class Call(NamedTuple):
    """What is to be run, and who waits for it: nobody where the calling thread runs it itself.

    `early` is answered when it is committed, though the disk may not have it yet.
    """

    function: Callable[[Any], Any]
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None
    early: bool = False


class Failed:
    """An outcome that is to be raised where it was asked for."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        """Hold the error."""
        self.error = error


class ConnectionThread(ABC):
    """Run functions on a connection, one batch after the other, in a thread that starts with the first call.

    Args:
        name: of the database, for messages.
        joins: run calls that wait at the same time as one batch (a writer).

    Attributes:
        trouble: what the last call failed of, when it was the disk's or the database's doing; it is forgotten with a call that proves
            the contrary, or after a while without another failure.
        damage: the first damage that was found; it stays.
        committed: called with the seconds that each commit took, in the thread.
        writes: whether a transaction is open that holds SQLite's write lock, for as long as the disk takes.
    """

    #: What is the machine's doing, whatever was asked: the errors of the database's library among them.
    errors: ClassVar[tuple[type[Exception], ...]] = (OSError, MachineError)

    def __init__(self, name: str, *, joins: bool) -> None:
        """Hold no connection yet."""
        self._name = name
        self._joins = joins
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._in_use = threading.Lock()
        self._brief = self._hasty = False
        self._closed = False
        self.trouble: str | None = None
        self._failed_at = 0.0
        self.committed: Callable[[float], None] | None = None
        self.damage: str | None = None
        self.writes = False

    async def call(self, function: Callable[[Any], Any], *, early: bool = False) -> Any:
        """Run `function(connection)` in the thread, in a transaction where this is a writer, and return its result.

        A cancelled caller does not cancel the transaction: it commits or not as if nobody had looked. `early` does not wait until the disk has
        the commit: for what leads to nothing but other commits, which cannot come there without it.

        Raises:
            DatabaseUnavailable: nothing was committed, or the commit's fate is unknown; read again before doing it again.
        """
        if self._closed:
            raise DatabaseUnavailable(f"{self._name} is closed here")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._calls.put(Call(function, loop, future, early))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="paddock-store", daemon=True)
            self._thread.start()
        return await asyncio.shield(future)

    async def call_here(self, function: Callable[[Any], Any]) -> Any:
        """Do what `call` does for something short: in the calling thread, where this is `near` and nobody uses the connection just now.

        Two switches of threads take longer than a look at what was written a moment ago. The disk is not waited for here: who calls must
        know how far it is.
        """
        if self._closed or not self.near or not self._in_use.acquire(blocking=False):
            return await self.call(function)
        try:
            self._hasty = True
            return self._run_alone([Call(function)])[0]
        finally:
            self._hasty = False
            self._in_use.release()

    def call_now(self, function: Callable[[Any], Any], *, brief: bool = False) -> Any:
        """Run `function` in the calling thread, which waits for the connection and for the write lock.

        For a child, whose loop has nothing else to do then: it saves two switches of threads.

        Raises:
            WouldWait: with `brief`, somebody who takes no turns holds the write lock. Nothing was done.
        """
        if self._closed:
            raise DatabaseUnavailable(f"{self._name} is closed here")
        with self._in_use:
            self._brief = brief
            try:
                return self._run_alone([Call(function)])[0]
            finally:
                self._brief = False

    def close(self) -> None:
        """End the thread once what was asked of it is done, and close the connection."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
        self._disconnect()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            batch, last = [call], False
            while self._joins and len(batch) < _JOIN_AT_MOST:
                try:
                    more = self._calls.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                batch.append(more)
            self._answer(batch, self._run(batch))
            if last:
                return

    @staticmethod
    def _answer(batch: list[Call], results: list[Any]) -> None:
        """Wake each caller's loop once."""
        loops: dict[Any, list[tuple[Any, Any]]] = {}
        for call, result in zip(batch, results, strict=True):
            loops.setdefault(call.loop, []).append((call.future, result))
        for loop, answers in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, answers)
            except RuntimeError:  # its loop is closed: nobody waits any more
                continue

    def _run(self, batch: list[Call]) -> list[Any]:
        """Run a batch; a result is a value or a `Failed`. With `call_now` an error is raised."""
        with self._in_use:
            return self._run_alone(batch)

    def _run_alone(self, batch: list[Call]) -> list[Any]:
        try:
            results = self._perform(batch)
            if self.trouble is not None and (self._proves() or time.monotonic() - self._failed_at > _DOUBT):
                self.trouble = None
        except self.errors as error:
            failure = self._explain(error)
            self.trouble, self._failed_at = str(failure), time.monotonic()
            results = [Failed(failure)] * len(batch)
        except Exception as error:  # noqa: BLE001  whatever it is, this thread must live: every caller waits for it
            results = [Failed(error)] * len(batch)
        if batch[0].loop is None and isinstance(results[0], Failed):
            raise results[0].error
        return results

    @abstractmethod
    def _perform(self, batch: list[Call]) -> list[Any]:
        """Run a batch and return a result for each call: a value or a `Failed`. What is raised is every call's."""

    def note_statements(self, noted: dict[str, None]) -> None:  # noqa: B027  for those who can `prepare`
        """Note every statement that is executed from now on."""

    def prepare(self, statements: Iterable[str]) -> None:  # noqa: B027  a first use does as well
        """Compile statements before their first use, where that can be done without executing them."""

    @property
    def near(self) -> bool:
        """Tell whether a call waits for nothing but the connection: no network and nobody's lock."""
        return False

    def _proves(self) -> bool:
        """Tell whether the batch that has just succeeded shows that the trouble is over."""
        return True

    @abstractmethod
    def _explain(self, error: Exception) -> Exception:
        """Return our error for one of the database's."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection."""


def _resolve(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, Failed):
            future.set_exception(result.error)
        else:
            future.set_result(result)
