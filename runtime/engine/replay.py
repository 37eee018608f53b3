"""Replay: the journal's keys, what it answers, and what no longer fits the code.

Keys are handed out when the code asks, not when it awaits, so the order in which side-by-side work finishes cannot change them. What the
journal holds and the code has not come to yet is "ahead". Nothing new begins while something is ahead: the code would have gone another
way than the first time.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NoReturn

from ..base.errors import InvalidInput, NonDeterminismError
from ..base.values import Schema
from ..store.journal import Journal, StepRow
from .failure import was_stopped
from .flow_tasks import FlowTasks

__all__ = ["STRAND", "VALUE_KINDS", "Replay"]

_QUIET_TURNS = 10
_CATCH_UP_TURNS = 40
_PAUSE = 0.005
_LONGEST = 30.0
_PATIENCE = 5.0
_APART = 12  # turns of the loop: enough for whoever waits for the first of several tasks to see it alone
_ADVICE = "guard the change with ctx.patched(), or finish these instances with the code that began them"

#: Kinds of rows that hold a value which the code asked for by a plain call: no steps in a person's eyes.
VALUE_KINDS = frozenset({"now", "random", "uuid4", "rng", "patched", "update", "emit", "metadata"})

#: The keys that each strand around the running code has asked for, the outermost first.
STRAND: contextvars.ContextVar[tuple[set[str], ...]] = contextvars.ContextVar("paddock_strand", default=())


class Replay:
    """Where the code stands in its instance's journal.

    Attributes:
        mismatch: what does not fit, once something has not; it ends the execution, whatever the user's code catches.
    """

    def __init__(
        self,
        journal: Journal,
        tasks: FlowTasks,
        caught_up: Callable[[], None],
        frontier: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Begin at the top.

        Args:
            journal: what is recorded.
            tasks: the tasks that the code runs in.
            caught_up: called right before the code leaves behind what the journal holds.
            frontier: awaited before anything that the journal does not hold begins; one that never returns makes this a replay only.
        """
        self._journal = journal
        self._tasks = tasks
        self._note_caught_up = caught_up
        self._frontier = frontier
        self._occurrences: dict[str, int] = {}
        self._ahead = dict(journal.steps)
        self._inside = _by_what_holds_them(journal.steps)
        self._caught_up = not journal.steps
        self._turns: list[tuple[float, int, asyncio.Future[None]]] = []
        self._asked = itertools.count()
        self._patience = _PATIENCE
        self.mismatch: NonDeterminismError | None = None

    def key(self, scope: str, name: str) -> str:
        """Hand out the journal key of the next use of `name` within `scope` (a path that ends with a slash, or empty)."""
        base = scope + name
        count = self._occurrences[base] = self._occurrences.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"

    def __bool__(self) -> bool:
        """Tell whether the journal holds something that is still ahead of the code."""
        return bool(self._ahead)

    def reach(self, key: str) -> None:
        """Note that the code has come to a key."""
        self._leave_behind([key])

    def recall(self, key: str, kind: str) -> StepRow | None:
        """Return what the journal holds under a key; the code has reached it now.

        Raises:
            NonDeterminismError: it is of another kind.
        """
        self.reach(key)
        for keys in STRAND.get():
            keys.add(key)
        row = self._journal.steps.get(key)
        if row is not None and row.kind != kind:
            if _is_renewed(row):
                return None
            self.block(
                key,
                f"the code asks for a {kind} under the key {key!r}, but the journal holds a {row.kind} there; {_ADVICE}",
            )
        if row is not None and row.status in ("completed", "failed"):
            # what is over is not entered again
            self._leave_behind(self._inside.get(key, ()))
        return row

    async def in_order(self, row: StepRow) -> None:
        """Hold back a recorded result that a task beside the code's first one asks for, until its turn comes.

        What ended side by side comes back in the order in which it ended, one at a time: so a race that the code has made of tasks
        has the same winner again. Strands need no order: nothing tells which of them was first.
        """
        if row.completed_at is None or STRAND.get() or not self._tasks.beside():
            return
        loop = asyncio.get_running_loop()
        if not self._turns:
            loop.call_soon(self._call_up, loop, _APART)
        turn = loop.create_future()
        heapq.heappush(self._turns, (row.completed_at, next(self._asked), turn))
        with self._tasks.settling(0):
            await turn

    def _call_up(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        """Let the one that ended first go on, `left` turns from now, and then the others.

        Whoever works (an await of its own is work) may still ask for what ended before, and is waited for: `_PATIENCE` seconds in all.
        """
        if left:
            loop.call_soon(self._call_up, loop, left - 1)
            return
        if self._patience > 0:
            began = loop.time()
            replays = self._tasks.replays(0)
            self._patience -= loop.time() - began + _PAUSE * replays
            if replays:
                loop.call_later(_PAUSE, self._call_up, loop, _APART)
                return
        _, _, turn = heapq.heappop(self._turns)
        if not turn.done():
            turn.set_result(None)
        if self._turns:
            loop.call_soon(self._call_up, loop, _APART)

    async def arrive(self, key: str) -> None:
        """Let a step begin that the journal does not hold: all that it does hold must have been reached before.

        What runs side by side replays first, its own awaits included.

        Raises:
            NonDeterminismError: a recorded step was not reached.
        """
        await self._check_reached(key, "")
        await self.resume()

    async def arrive_around(self, key: str) -> None:
        """Let a step begin that holds others, which the journal may hold already (a `parallel` that is retried).

        Raises:
            NonDeterminismError: a recorded step that is none of them was not reached.
        """
        await self._check_reached(key, f"{key}/")
        if not any(inner.startswith(f"{key}/") for inner in self._ahead):
            await self.resume()

    async def _check_reached(self, key: str, inside: str) -> None:
        if outside := self._outside(inside):
            await self.settle()
            outside = self._outside(inside)
            for row in outside.values():
                if _is_missed(row):
                    self.block(
                        row.key,
                        f"the code asks for the new step {key!r}, but the journal holds {row.kind} {row.key!r}, which the code has not "
                        f"reached; {_ADVICE}",
                    )
            # values that nobody asks for any more, and steps that were stopped, hold nothing up
            self._leave_behind(list(outside))

    def _outside(self, path: str) -> dict[str, StepRow]:
        """Return what is ahead and does not stand under a path."""
        return {key: row for key, row in self._ahead.items() if not path or not key.startswith(path)}

    def missed(self) -> StepRow | None:
        """Return a recorded step that the code has not reached, if there is one; the next new step would be refused for it."""
        return next((row for row in self._ahead.values() if _is_missed(row)), None)

    async def resume(self) -> None:
        """Let something go on that the journal holds as open, or begin that it does not hold.

        Beside other strands the replay comes to an end first: a recorded failure may stop the one that asks.
        """
        if not self._caught_up:
            if self._tasks.side_by_side():
                await self.settle()
                for _ in range(_CATCH_UP_TURNS):
                    await asyncio.sleep(0)
            self._caught_up = True
        if self._frontier is not None:
            await self._frontier()

    async def settle(self, depth: int = -1) -> None:
        """Give everything that runs side by side the time to replay what the journal holds.

        `depth` is how many groups of strands stand around one that a recorded failure ends: it goes on with its replay afterwards, the
        inner ones first, and all of them before anything that has come to the end of its own.
        """
        quiet, left = 0, len(self._ahead)
        end = asyncio.get_running_loop().time() + _LONGEST
        with self._tasks.settling(depth):
            while (self._ahead or self._turns) and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0)
                quiet = quiet + 1 if len(self._ahead) == left else 0
                left = len(self._ahead)
                if quiet >= _QUIET_TURNS:
                    if not self._tasks.replays(depth):
                        return
                    quiet = 0  # what replays may do so in turns in which it looks idle
                    await asyncio.sleep(_PAUSE)

    def decode(self, schema: Schema, text: str, what: str, key: str | None = None, *, input: bool = False) -> Any:
        """Return a recorded value as the code sees it.

        Raises:
            NonDeterminismError: it does not fit the type any more that the code names.
        """
        try:
            return schema.receive(text, what) if input else schema.decode(text, what)
        except InvalidInput as error:
            self.block(
                key, f"{error}; the type has changed since it was recorded: give new fields defaults, or {_ADVICE}"
            )

    def decode_input(self, schema: Schema, what: str) -> Any:
        """Return the instance's input as the code sees it.

        Raises:
            NonDeterminismError: it fitted once, and does not any more.
            InvalidInput: it does not fit, and nothing was done with it yet.
        """
        if not self._journal.steps:
            return schema.receive(self._journal.input, what)
        return self.decode(schema, self._journal.input, what, input=True)

    def block(self, key: str | None, message: str) -> NoReturn:
        """Raise what blocks the instance; the user's code cannot catch it for good.

        Raises:
            NonDeterminismError: always.
        """
        self.mismatch = NonDeterminismError(message)
        self.mismatch.paddock_step = key
        raise self.mismatch

    def _leave_behind(self, keys: Sequence[str]) -> None:
        if self._ahead and self._ahead.keys() <= set(keys):
            self._note_caught_up()
        for key in keys:
            self._ahead.pop(key, None)


def _by_what_holds_them(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each path that steps stand in, their keys: a look at all that is ahead, at each step, would take its square."""
    inside: dict[str, list[str]] = {}
    for key in keys:
        end = key.find("/")
        while end >= 0:
            inside.setdefault(key[:end], []).append(key)
            end = key.find("/", end + 1)
    return inside


def _is_missed(row: StepRow) -> bool:
    """Tell whether the code must come to a row before it asks for anything new."""
    return row.kind not in VALUE_KINDS and not was_stopped(row) and not _is_renewed(row)


def _is_renewed(row: StepRow) -> bool:
    """Tell whether a step had failed and somebody has retried the instance: its row holds the number of its tries, and no way."""
    return row.status == "retrying" and row.failures == 0
