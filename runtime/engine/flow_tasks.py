"""Which tasks an instance's code consists of, and whether any of them still works.

An instance may give its process back when every one of its tasks only waits: for something durable, or for tasks of its own that do.
An await of the user's own (a request, an `asyncio.sleep`) is work, however long it takes: cut off, it would begin again at the next
execution, and might never end.

Tasks are known by a context variable, which `asyncio` hands from a task to those that it begins: so a user's `TaskGroup`, `gather` or
`create_task` needs no help of ours. What a step's handler begins (a client's background task, say) is not part of the flow. What a task
waits for is read from the future that it awaits and from the callbacks of the other tasks. Where neither tells, the task is taken to
work: that keeps a process too long, and never cuts anything off.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["FlowTasks"]

_MEMBER: contextvars.ContextVar[FlowTasks | None] = contextvars.ContextVar("paddock_flow_tasks", default=None)
_WAIT = getattr(getattr(asyncio.tasks, "_wait", None), "__code__", None)
_DEPTH = 5
_MOST = 256


class FlowTasks:
    """The tasks of one execution.

    Attributes:
        threads: how many of the instance's own threads (flows that are plain functions) compute, and wait for nothing of ours.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.threads = 0
        self._first: asyncio.Task[Any] | None = None
        self._waiting: set[asyncio.Task[Any] | None] = set()
        self._settling: dict[asyncio.Task[Any] | None, int] = {}

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Take the running task, and those that it begins, for the instance's code."""
        token = _MEMBER.set(self)
        self._first = asyncio.current_task()
        try:
            yield
        finally:
            _MEMBER.reset(token)

    @staticmethod
    def leave() -> contextvars.Token[FlowTasks | None]:
        """Begin no tasks of the instance until `come_back`: a handler runs, and what it begins is its own."""
        return _MEMBER.set(None)

    @staticmethod
    def come_back(token: contextvars.Token[FlowTasks | None]) -> None:
        """Count what is begun from now on again."""
        _MEMBER.reset(token)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Note that the running task only waits: for something durable, or for tasks that it has begun."""
        task = asyncio.current_task()
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)

    @contextlib.contextmanager
    def settling(self, depth: int) -> Iterator[None]:
        """Note that the running task lets the others replay, and does nothing meanwhile; `depth` is that of `replays`."""
        task = asyncio.current_task()
        self._settling[task] = depth
        try:
            yield
        finally:
            del self._settling[task]

    @contextlib.contextmanager
    def thread(self) -> Iterator[None]:
        """Run a flow in a thread, which counts as work whenever it does not wait for a call of ours."""
        self.threads += 1
        try:
            with self.waiting():
                yield
        finally:
            self.threads -= 1

    @contextlib.contextmanager
    def thread_waits(self) -> Iterator[None]:
        """Note that the thread waits for a durable call: what that one does is what counts."""
        self.threads -= 1
        try:
            yield
        finally:
            self.threads += 1

    def _members(self) -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() if (context := _context_of(task)) and context.get(_MEMBER) is self}

    def beside(self) -> bool:
        """Tell whether the running task is one that the code has begun beside its first one."""
        return asyncio.current_task() is not self._first

    def side_by_side(self) -> bool:
        """Tell whether the code is in more than one task."""
        return len(self._members()) > 1

    def busy(self, idle: Iterable[asyncio.Task[Any] | None] = ()) -> bool:
        """Tell whether any task but the `idle` ones works: it neither waits for something durable nor for tasks that do.

        One that lets the others replay works, even inside a wait: it goes on by itself.
        """
        return self.threads > 0 or self._any_works((self._waiting - self._settling.keys()).union(idle))

    def replays(self, depth: int) -> bool:
        """Tell whether any task may still come to what the journal holds, before one goes on that settles at a depth.

        A task does that works, and one that settles deeper: it goes on with its replay once the others have come to an end of theirs.
        """
        ended = {task for task, inner in self._settling.items() if inner <= depth}
        return self.threads > 0 or self._any_works((self._waiting - self._settling.keys()) | ended)

    def standing(self) -> object:
        """Return where every task stands: what equals it later says that none has gone on meanwhile, or ended."""
        return {(task, getattr(task, "_fut_waiter", None)) for task in self._members()}

    def excuse(self) -> None:
        """Let every task end by what ends the execution: asyncio says nothing of one whose outcome nobody looks at then."""
        for task in self._members():
            task.add_done_callback(_look_at)

    def _any_works(self, idle: set[asyncio.Task[Any] | None]) -> bool:
        members = self._members()
        return any(task not in idle and not _waits_for(task, members) for task in members)


def _look_at(task: asyncio.Task[Any]) -> None:
    error = getattr(task, "_exception", None)  # a look by its own method would be one at an error of the user's, too
    users = error.subgroup(Exception) if isinstance(error, BaseExceptionGroup) else error
    if error is not None and not isinstance(users, Exception):
        task.exception()


def _context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
    if (get := getattr(task, "get_context", None)) is not None:
        return get()  # type: ignore[no-any-return]
    # before Python 3.12 a task shows its context to nobody but the garbage collector
    return next((found for found in gc.get_referents(task) if isinstance(found, contextvars.Context)), None)


def _waits_for(task: asyncio.Task[Any], members: set[asyncio.Task[Any]]) -> bool:
    """Tell whether a task awaits nothing but other tasks of the instance."""
    awaited = getattr(task, "_fut_waiter", None)
    if awaited is None:
        return False  # it is about to run
    if awaited in members:
        return True
    together = getattr(awaited, "_children", None)  # asyncio.gather's
    if together is None:
        together = _waited(task)
    if together is None:
        calls = (call for other in members - {task} for call in _callbacks(other) if _leads_to(call, awaited))
        if (first := next(calls, None)) is None:
            return False
        together = _watched(first)
    return all(one.done() or one in members for one in together)


def _waited(task: asyncio.Task[Any]) -> Iterable[asyncio.Future[Any]] | None:
    """Return what a task waits for in `asyncio.wait`, None where it waits elsewhere."""
    inner: Any = task.get_coro()
    while (awaited := getattr(inner, "cr_await", None)) is not None:
        inner = awaited
        if getattr(inner, "cr_code", None) is _WAIT:
            found: Iterable[asyncio.Future[Any]] | None = inner.cr_frame.f_locals.get("fs")
            return found
    return None


def _watched(call: Any) -> list[asyncio.Future[Any]]:
    """Return the futures beside which one is watched that makes a call at its end: of a task group, of `asyncio.as_completed`."""
    held = _parts(call)
    held += [part for one in held for part in _parts(one)]
    return [one for part in held if isinstance(part, set) for one in part if isinstance(one, asyncio.Future)]


def _callbacks(future: asyncio.Future[Any]) -> list[Callable[..., Any]]:
    return [call for call, _ in getattr(future, "_callbacks", None) or ()]


def _leads_to(call: Any, awaited: asyncio.Future[Any]) -> bool:
    """Tell whether what is called at a task's end can reach a future: then that end is what the future waits for."""
    held: list[Any] = [call]
    seen: dict[int, Any] = {}  # kept alive: an id is only good as long as its object lives
    for _ in range(_DEPTH):
        found = [part for one in held for part in _parts(one) if id(part) not in seen]
        if any(part is awaited for part in found):
            return True
        seen |= {id(part): part for part in found}
        held = found[:_MOST]
    return False


def _parts(held: Any) -> list[Any]:
    """Return what a callback or an object of asyncio's holds: its owner, its closure, its attributes, its items, its callbacks."""
    if isinstance(held, asyncio.Task | type):
        return []
    if isinstance(held, asyncio.Future):
        return list(_callbacks(held))
    if isinstance(held, functools.partial | list | tuple | set | frozenset | collections.deque):
        return list(held.args if isinstance(held, functools.partial) else held)[:_MOST]
    if (owner := getattr(held, "__self__", None)) is not None:
        return [owner]
    if (closure := getattr(held, "__closure__", None)) is not None:
        return [cell.cell_contents for cell in closure if _is_filled(cell)]
    return list(getattr(held, "__dict__", {}).values())[:_MOST]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  an empty cell raises
    except ValueError:
        return False
    return True
