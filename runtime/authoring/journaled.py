"""What a flow asks for without waiting: told outside once, or computed once, and journaled with the next commit."""

from __future__ import annotations

import contextvars
import functools
import json
import random as random_module
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..base.ids import check_key, check_step_name
from ..base.values import plain_json
from ..engine.context import Context, Frame
from ..engine.execution import Execution
from ..store.journal import StepRow

__all__ = ["STRAND_PATH", "JournaledContext"]

#: The scope of the flow whose `gather` began the strand that runs, and the strand's path within it.
STRAND_PATH: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("paddock_strand_path", default=("", ""))


class JournaledContext(Context):
    """The part of a flow's context that does not wait."""

    @property
    def frame(self) -> Frame:
        """Where the code stands."""
        return self._frame

    @property
    def execution(self) -> Execution:
        """The durable core under it."""
        return self._frame.execution

    @property
    def scope(self) -> str:
        """The path that keys begin with: of the nested flow, and of the strand of a `gather` that the running code belongs to.

        Strands take turns as they please, so each counts the names that it uses by itself.
        """
        base, path = STRAND_PATH.get()
        return self._frame.scope + path if base == self._frame.scope else self._frame.scope

    # --- told outside, once ---

    async def emit(self, event: str, data: Any = None) -> None:
        """Publish an event of the user's own; durable once this returns. A replay publishes it no second time."""
        if self._first_time(f"emit:{check_key(event, 'an event name')}", "emit"):
            await super().emit(event, data)

    async def set_metadata(self, key: str, value: Any) -> None:
        """Set one key of the instance's metadata; durable once this returns. A replay does not set it again."""
        if self._first_time(f"metadata:{check_key(key, 'a metadata key')}", "metadata"):
            await super().set_metadata(key, value)

    async def stream(self, chunk: Any) -> None:
        """Send a chunk to whoever reads the instance's stream; durable once this returns. A replay sends it no second time."""
        value = self._plain_chunk(chunk)
        await self.execution.chunks.send(self.scope, value)

    def _first_time(self, name: str, kind: str) -> bool:
        """Tell whether the code is here for the first time, and note that it was, with the next commit."""
        execution = self.execution
        key = execution.key(self.scope, name)
        if execution.recall(key, kind) is not None:
            return False
        execution.complete(StepRow(key, name, kind, "new", attempts=1), "null", begin=True, quiet=True)
        return True

    # --- journaled values ---

    def _recorded(self, name: str, compute: Callable[[], Any], scope: str | None = None) -> Any:
        """Return a value that is computed once and journaled with the next commit."""
        execution = self.execution
        key = execution.key(self.scope if scope is None else scope, name)
        row = execution.recall(key, name)
        if row is None:
            row = StepRow(key, name, name, "new", attempts=1)
            execution.complete(row, json.dumps(compute()), begin=True, quiet=True)
        return plain_json(row.output or "null")

    def now(self) -> datetime:
        """Return the time, timezone-aware UTC; the same on every replay."""
        return datetime.fromtimestamp(self._recorded("now", self.execution.clock.now), UTC)

    def random(self) -> float:
        """Return a random number in [0, 1); the same on every replay."""
        return float(self._recorded("random", random_module.random))

    def uuid4(self) -> uuid.UUID:
        """Return a random UUID; the same on every replay."""
        return uuid.UUID(self._recorded("uuid4", lambda: str(uuid.uuid4())))

    @functools.cached_property
    def rng(self) -> random_module.Random:
        """A generator seeded once for this instance; a replay draws the same numbers."""
        return random_module.Random(self._recorded("rng", _seed, self._frame.scope))  # noqa: S311

    def patched(self, change: str) -> bool:
        """Tell whether this instance shall take a changed piece of code.

        True for instances that come here for the first time; False for those that had passed this place before the change was made.
        The answer is journaled.
        """
        execution = self.execution
        key = f"{self._frame.scope}patched:{check_step_name(change)}"
        row = execution.recall(key, "patched")
        if row is None:
            if execution.replaying:
                return False
            row = StepRow(key, change, "patched", "new", attempts=1)
            execution.complete(row, "true", begin=True, quiet=True)
        return bool(plain_json(row.output or "false"))


def _seed() -> int:
    return random_module.getrandbits(62)
