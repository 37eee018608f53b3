"""One step as a front end asks for it, who watches it, and what ends the process that it runs in."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..base.values import Schema
from .retry import Retry

__all__ = ["CURRENT_STEP", "GiveBack", "Monitor", "StepCall", "Unwatched"]

#: The step that the running code belongs to: (name, attempt). Log records take it from here.
CURRENT_STEP: contextvars.ContextVar[tuple[str, int] | None] = contextvars.ContextVar("paddock_step", default=None)


class GiveBack(BaseException):
    """End this process; the instance goes on in another.

    Attributes:
        reason: for the log.
    """

    def __init__(self, reason: str) -> None:
        """Say why."""
        super().__init__(reason)
        self.reason = reason


class Monitor(Protocol):
    """Who watches this execution from outside (the heartbeat slot of a child; nobody when inline)."""

    def step_begun(self, key: str, name: str, attempt: int, timeout: float | None) -> None:
        """Note the step that runs and how many seconds it may take."""
        ...

    def step_ended(self, key: str) -> None:
        """Note that a step has ended."""
        ...

    def caught_up(self) -> None:
        """Note that the code is about to leave behind what the journal holds; up to here it has done nothing new."""
        ...

    def over(self) -> None:
        """Note that the code is over, or suspends: what it has printed of a line is all of it."""
        ...

    def stacks(self) -> str | None:
        """Return the stacks of all threads as they are now."""
        ...


class Unwatched:
    """A monitor that nobody reads."""

    def step_begun(self, key: str, name: str, attempt: int, timeout: float | None) -> None:
        """Ignore it."""

    def step_ended(self, key: str) -> None:
        """Ignore it."""

    def caught_up(self) -> None:
        """Ignore it."""

    def over(self) -> None:
        """Ignore it."""

    def stacks(self) -> str | None:
        """Return nothing: the process is not the instance's own."""
        return None


@dataclass(slots=True)
class StepCall:
    """One step as a front end asks for it. `run` gets the attempt's number; `input` is what the journal shows, as JSON text."""

    key: str
    name: str
    kind: str
    run: Callable[[int], Awaitable[Any]]
    output: Schema
    input: str | None = None
    retry: Retry = field(default_factory=lambda: Retry(max_attempts=1))
    timeout: float | None = None
    at_most_once: bool = False
    stoppable: bool = True
