"""The context of a flow that is a plain function: the same names as `FlowContext`, and calls that return when they are done.

The function runs in a worker thread; whatever it asks for is done on the loop, so the engine stays single-threaded. What ends the
execution (a suspension, a cancel) is raised in the thread as an `InterruptError`, and again at every later call: the thread has nothing
left to do but end.
"""

from __future__ import annotations

import asyncio
import functools
import random as random_module
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from datetime import datetime
from typing import Any

from ..base.errors import InterruptError, InvalidInput
from ..engine.context import BlockingContext, Frame
from ..engine.step_call import GiveBack
from .flow_context import ChildHandle, FlowContext

__all__ = ["BlockingFlowContext"]


class BlockingFlowContext(BlockingContext):
    """The context in a flow that is a plain function: `ctx.step(...)` returns the step's result."""

    def __init__(self, frame: Frame, loop: asyncio.AbstractEventLoop) -> None:
        """Remember the loop that does the work."""
        super().__init__(frame, loop)
        self._flow = FlowContext(frame)
        self._loop_thread = threading.get_ident()
        self._calls: set[asyncio.Task[Any]] = set()
        self._over: BaseException | None = None
        self._gathered: list[Coroutine[Any, Any, Any]] | None = None

    @property
    def frame(self) -> Frame:
        """Where the code stands."""
        return self._frame

    @property
    def in_thread(self) -> bool:
        """Tell whether the code that asks runs in a worker thread, and so may block."""
        return threading.get_ident() != self._loop_thread

    def release(self) -> None:
        """Let the thread end: its execution is over, or is cancelled. Called on the loop."""
        self._over = self._over or InterruptError()
        for call in self._calls:
            call.cancel()

    def _wait(self, call: Coroutine[Any, Any, Any]) -> Any:
        if self._over is not None:
            call.close()
            raise self._over
        if not self.in_thread:
            call.close()
            raise InvalidInput(
                "the context of a plain function blocks; call it in the function's own thread, or write `async def`"
            )
        try:
            return asyncio.run_coroutine_threadsafe(self._tracked(call), self._loop).result()
        except CancelledError:
            self._over = InterruptError()
            raise self._over from None
        except (InterruptError, GiveBack) as error:
            self._over = error
            raise

    async def _tracked(self, call: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for the type checker
        if self._over is not None:
            call.close()
            raise self._over
        self._calls.add(task)
        try:
            with self._frame.execution.tasks.thread_waits():
                return await call
        finally:
            self._calls.discard(task)

    def _ask(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a call on the loop (keys are handed out there) and wait for it; within `gather` hand it over instead."""

        async def ask() -> Any:
            found = method(*args, **options)
            return await found if asyncio.iscoroutine(found) else found

        if self._gathered is not None:
            self._gathered.append(ask())
            return None
        return self._wait(ask())

    def nested(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Run another flow as a part of this one."""
        if self._gathered is not None:
            self._gathered.append(call)
            return None
        return self._wait(call)

    def step(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run a function once, durably, and return its result; see `FlowContext.step`."""
        return self._ask(self._flow.step, name, function, *args, **options)

    def run_action(self, action: Any, input: Any = None, **options: Any) -> Any:
        """Run an action as a step; see `FlowContext.run_action`."""
        return self._ask(self._flow.run_action, action, input, **options)

    def sleep(self, name: str, duration: Any) -> None:
        """Wait, durably."""
        self._ask(self._flow.sleep, name, duration)

    def wait_event(self, name: str, schema: Any = None, **options: Any) -> Any:
        """Wait for a signal and return its payload; see `FlowContext.wait_event`."""
        return self._ask(self._flow.wait_event, name, schema, **options)

    interrupt = wait_event

    def poll(self, name: str, check: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a check now and then until it finds something; see `FlowContext.poll`."""
        return self._ask(self._flow.poll, name, check, *args, **options)

    def start(self, workflow: Any, input: Any = None, **options: Any) -> ChildHandle:
        """Start an instance of another workflow and go on; see `FlowContext.start`."""
        handle: ChildHandle = self._ask(self._flow.start, workflow, input, **options)
        return handle

    def wait_for(self, started: ChildHandle | str | Sequence[ChildHandle | str]) -> Any:
        """Wait for the end of instances and return the output, or a list of them."""
        return self._ask(self._flow.wait_for, started)

    def gather(self, *calls: Callable[[], Any]) -> list[Any]:
        """Run durable calls side by side and return their results in order.

        Each is a function without arguments that makes one call: ``ctx.gather(lambda: ctx.step("a", fa), lambda: ctx.step("b", fb))``.

        Raises:
            InvalidInput: one of them makes no durable call, or more than one.
            StepFailed: of the first that failed, in the order in which they are written.
        """
        work: list[Coroutine[Any, Any, Any]] = []
        try:
            for call in calls:
                self._gathered = []
                if not callable(call):
                    raise InvalidInput("in a plain function write ctx.gather(lambda: ctx.step(…), lambda: ctx.step(…))")
                call()
                made, self._gathered = self._gathered, None
                work += made
                if len(made) != 1:
                    raise InvalidInput(
                        f"each part of a gather makes one durable call, and one of these made {len(made)}"
                    )
        except BaseException:
            for one in [*work, *(self._gathered or [])]:
                one.close()
            raise
        finally:
            self._gathered = None

        async def together() -> list[Any]:
            return await self._flow.gather(*work)

        found: list[Any] = self._wait(together())
        return found

    # --- told outside, once ---

    def emit(self, event: str, data: Any = None) -> None:  # type: ignore[override]
        """Publish an event of the user's own; a replay publishes it no second time."""
        self._ask(self._flow.emit, event, data)

    def set_metadata(self, key: str, value: Any) -> None:  # type: ignore[override]
        """Set one key of the instance's metadata; a replay does not set it again."""
        self._ask(self._flow.set_metadata, key, value)

    # --- journaled values ---

    def now(self) -> datetime:
        """Return the time, timezone-aware UTC; the same on every replay."""
        found: datetime = self._ask(self._flow.now)
        return found

    def random(self) -> float:
        """Return a random number in [0, 1); the same on every replay."""
        found: float = self._ask(self._flow.random)
        return found

    def uuid4(self) -> uuid.UUID:
        """Return a random UUID; the same on every replay."""
        found: uuid.UUID = self._ask(self._flow.uuid4)
        return found

    @functools.cached_property
    def rng(self) -> random_module.Random:
        """A generator seeded once for this instance; a replay draws the same numbers."""
        found: random_module.Random = self._ask(lambda: self._flow.rng)
        return found

    def patched(self, change: str) -> bool:
        """Tell whether this instance shall take a changed piece of code; see `FlowContext.patched`."""
        return bool(self._ask(self._flow.patched, change))
