"""The engine without a server: instances on a memory store, by a clock that jumps, with a crash at any commit."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from paddock import Instance, Status
from paddock.runtime.base.records import TERMINAL, Event, LogRecord
from paddock.runtime.base.values import ANY
from paddock.runtime.engine.context import Frame
from paddock.runtime.engine.definition import Definition
from paddock.runtime.engine.execution import Execution
from paddock.runtime.engine.executor import Outcome, execute
from paddock.runtime.engine.logs import LogSink, step_logger
from paddock.runtime.engine.plugins import Plugins
from paddock.runtime.engine.writer import JournalWriter
from paddock.runtime.store.admission import Claim, Death, Wanted
from paddock.runtime.store.instances import NewInstance
from paddock.runtime.store.ops import Began, Lease, Op
from paddock.runtime.store.sqlite import MemoryStore
from paddock.stores import Window

EPOCH = 1_700_000_000.0
_ID = re.compile(
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
)  # of an instance that was started: another one each time


class JumpingClock:
    """A clock that is moved: by whoever sleeps on it, and by `advance`."""

    def __init__(self) -> None:
        self.time = EPOCH
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.time += seconds
        await asyncio.sleep(0)


class Crashed(Exception):
    """The process is gone at a commit, before or after it came true."""


class RecordingStore:
    """The store as an executor sees it: counts its commits, and crashes at one of them."""

    def __init__(self, store: MemoryStore, crash_at: int | None = None, *, after: bool = False) -> None:
        self._store = store
        self.batches: list[list[Op]] = []
        self._crash_at = crash_at
        self._after = after
        self.dead = False

    async def commit(self, lease: Lease, ops: Sequence[Op], now: float) -> int:
        if self.dead:
            raise Crashed
        if len(self.batches) == self._crash_at:
            self.dead = True
            if self._after:
                await self._store.commit(lease, ops, now)
            raise Crashed
        self.batches.append(list(ops))
        return await self._store.commit(lease, ops, now)

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise Crashed
        return getattr(self._store, name)


class Run:
    """What became of one instance: its record, its events, its logs, and every commit of every execution."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome | None] = []
        self.batches: list[list[Op]] = []
        self.waits: list[float] = []
        self.instance: Instance
        self.events: list[Event] = []
        self.logs: list[LogRecord] = []

    @property
    def output(self) -> Any:
        assert self.instance.status is Status.COMPLETED, self.instance.error
        return self.instance.output

    @property
    def error(self) -> Any:
        assert self.instance.status is Status.FAILED, self.instance
        return self.instance.error

    def names(self, *, of: str | None = None) -> list[str]:
        return [event.name for event in self.events if of is None or event.data.get("step") == of]

    def ops(self, kind: str) -> list[Op]:
        return [op for batch in self.batches for op in batch if type(op).__name__ == kind]


class Engine:
    """Run instances one after the other, and those of `also` that they start.

    `answer` gives the payload for a wait that nothing but a signal can end, by the signal's name.
    """

    def __init__(
        self,
        *,
        max_payload: int = 4 * 2**20,
        suspend_after: float = 1.0,
        cancel_grace: float = 0.2,
        also: Sequence[Definition] = (),
        answer: Callable[[str], Any] | None = None,
        **frame: Any,
    ) -> None:
        self.store = MemoryStore()
        self.clock = JumpingClock()
        self.max_payload = max_payload
        self.suspend_after = suspend_after
        self.cancel_grace = cancel_grace
        self.killable = False
        self._also = {one.name: one for one in also}
        self._answer = answer
        self._claims: list[Claim] = []
        self._core = SimpleNamespace(config=frame.pop("config", {}), logger=None, actions={}, **frame)
        self._count = 0

    async def start(self, definition: Definition, value: Any = None, **more: Any) -> str:
        self._count += 1
        ident = f"{definition.name}-{self._count}"
        await self.store.create(
            NewInstance(ident, definition.name, ANY.encode(value, "input"), **more), self.clock.now()
        )
        return ident

    async def claim(self, name: str) -> Lease | None:
        """Claim the queued instance, however long the clock must jump for it; None when nothing will ever queue it."""
        claim = await self._claim(name)
        return claim and claim.lease

    async def _claim(self, name: str) -> Claim | None:
        while True:
            if not self._claims:
                wanted = Wanted(dict.fromkeys((name, *self._also), 0), frozenset(), 100)
                self._claims = await self.store.claim(wanted, self.clock.now())
            if self._claims:
                return self._claims.pop(0)
            released, due = await self.store.release_due(self.clock.now())
            if released:
                continue
            if due is None:
                return None
            self.clock.time = max(self.clock.time, due)

    async def execute(self, definition: Definition, lease: Lease, store: Any = None) -> Outcome:
        journal = await self.store.load(lease)
        store = store or self.store
        writer = JournalWriter(store, lease, self.clock, lambda _id: None)
        held: list[Execution] = []
        sink = LogSink(writer, self.clock, asyncio.get_running_loop(), 10**6, lambda: bool(held) and held[0].replaying)
        execution = Execution(
            journal,
            writer,
            self.clock,
            max_payload=self.max_payload,
            total_steps=definition.total_steps,
            suspend_after=self.suspend_after,
            cancel_grace=self.cancel_grace,
            killable=self.killable,
        )
        held.append(execution)
        self.execution = execution
        frame = Frame(execution, self._core, Plugins(()), step_logger(sink), None, {})
        began = Began(1, 1, "boot", definition.fingerprint(), definition.timeout)
        return await execute(definition, frame, began)

    async def go_on(
        self, definition: Definition, ident: str, crash_at: Sequence[int | None] = (), *, after: bool = False
    ) -> Run:
        """Run an instance to its end, or to where it waits for somebody; execution n crashes at its commit `crash_at[n]`."""
        run = Run()
        while (claim := await self._claim(definition.name)) is not None or await self._answered(ident):
            if claim is None:
                continue
            lease, number = claim.lease, len(run.outcomes)
            store = RecordingStore(self.store, crash_at[number] if number < len(crash_at) else None, after=after)
            outcome: Outcome | None = None
            with contextlib.suppress(Crashed):
                outcome = await self.execute(self._also.get(claim.workflow_name, definition), lease, store)
            run.outcomes.append(outcome)
            run.batches += store.batches
            planned = outcome is not None
            await self.store.settle(lease, Death(planned=planned), 1000, self.clock.now())
            assert len(run.outcomes) < 200, "it goes round in circles"
        run.waits = self.clock.slept
        found = await self.store.get(ident)
        assert found is not None
        run.instance = found
        run.events = await self.store.events(Window(0, 100_000), instance_id=ident)
        run.logs = await self.store.logs(Window(0, 100_000), instance_id=ident)
        return run

    async def _answered(self, ident: str) -> bool:
        """Answer the waits that hold an instance up; tell whether there were any."""
        found = await self.store.get(ident)
        if self._answer is None or found is None or found.status is not Status.WAITING:
            return False
        open_ = [one for one in found.step_results.values() if one.kind == "wait_event" and one.status == "waiting"]
        for step in open_:
            await self._send(ident, step.step_name)
        return bool(open_)

    async def _send(self, ident: str, name: str) -> None:
        assert self._answer is not None
        await self.store.put_signal(ident, name, ANY.encode(self._answer(name), "signal"), self.clock.now())

    async def run(
        self,
        definition: Definition,
        value: Any = None,
        crash_at: Sequence[int | None] = (),
        *,
        after: bool = False,
        signals: Sequence[str] = (),
    ) -> Run:
        """Run an instance; `signals` are sent before it begins."""
        ident = await self.start(definition, value)
        for name in signals:
            await self._send(ident, name)
        return await self.go_on(definition, ident, crash_at, after=after)


@contextlib.asynccontextmanager
async def an_engine(**options: Any) -> AsyncIterator[Engine]:
    engine = Engine(**options)
    try:
        yield engine
    finally:
        engine.store.close()


async def crash_everywhere(make: Any, value: Any = None, *, limit: int = 500) -> list[str]:
    """Run what `make()` gives with a crash at each of its commits, before and after it; return how the ends differ.

    `make` returns a definition and a `Counter` that its handlers fill with the names of the steps that they finished.
    """
    definition, done = make()
    async with an_engine() as engine:
        good = await engine.run(definition, value)
    assert good.instance.status in TERMINAL
    expected = result_of(good)
    differences = []
    for at in range(min(limit, len(good.batches))):
        for after in (False, True):
            definition, done = make()
            async with an_engine() as engine:
                bad = await engine.run(definition, value, [at], after=after)
            where = f"crash {'after' if after else 'before'} commit {at}"
            if (found := result_of(bad)) != expected:
                differences.append(f"{where}:\n  {found}\n  {expected}")
            differences += twice(bad, done, where)
    return differences


def twice(run: Run, done: Counter[str], where: str, crashes: int = 1) -> list[str]:
    """Return what ran again although its end was acknowledged."""
    return [f"{where}: {event} more than once" for event, count in _ends(run).items() if count > 1] + [
        f"{where}: {key} finished {count} times" for key, count in done.items() if count > 1 + crashes
    ]


def _ends(run: Run) -> Counter[str]:
    ends = ("workflow.completed", "workflow.failed", "workflow.step.completed", "workflow.step.failed")
    return Counter(f"{event.name} {event.data.get('step', '')}" for event in run.events if event.name in ends)


def result_of(run: Run) -> dict[str, Any]:
    """Return what must be the same whatever crashed: result and journal, without attempts and times."""
    found = run.instance
    steps = {
        step.key: (
            step.step_name,
            step.kind,
            step.status,
            step.output,
            step.error and _ID.sub("<id>", step.error.message),
            step.poll_count,
            step.loop_count,
        )
        for step in found.step_results.values()
    }
    error = found.error and (found.error.type, _ID.sub("<id>", found.error.message), found.error.step)
    return {"status": found.status, "output": found.output, "error": error, "steps": steps, "metadata": found.metadata}
