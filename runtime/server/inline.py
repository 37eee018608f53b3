"""Inline mode: the same engine inside the server's process, for quick workflows and for tests."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from traceback import format_exc

from ...watchdog.identity import identify
from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.errors import LeaseLost, MachineError
from ..base.log import get_logger
from ..base.records import ErrorInfo
from ..engine.context import Frame
from ..engine.execution import Execution
from ..engine.executor import OutcomeKind, execute
from ..engine.failure import describe_error
from ..engine.logs import LogSink, step_logger
from ..engine.plugins import Core, Plugins
from ..engine.standing import holds_transaction
from ..engine.writer import JournalWriter
from ..store.admission import Claim, Death
from ..store.ops import Began, Lease
from ..store.own_lock import code_holds_write_lock
from ..store.sql_store import SqlStore
from .registry import Registry

__all__ = ["InlineRunner"]

_log = get_logger("paddock.inline")


@dataclass(frozen=True, slots=True)
class InlineParts:
    """What inline executions work with. `database` is the file's real path, None for one in memory.

    Without `complains` a lost database is no line in the log: it is lost on purpose.
    """

    store: SqlStore
    clock: Clock
    config: WorkflowsConfig
    registry: Registry
    plugins: Callable[[], Plugins]
    core: Core
    committed: Callable[[], None]
    freed: Callable[[], None]
    quiet: float = 0.02
    database: str | None = None
    complains: bool = True


class InlineRunner:
    """Own every execution within this process."""

    def __init__(self, parts: InlineParts) -> None:
        """Hold the parts."""
        self._parts = parts
        self._tasks: dict[Lease, asyncio.Task[None]] = {}
        self._executions: dict[Lease, Execution] = {}
        self._settling: set[Lease] = set()
        self._stopping = False
        self._hurried = asyncio.Event()
        self._me = identify(os.getpid())

    @property
    def busy(self) -> bool:
        """Tell whether anything runs."""
        return bool(self._tasks)

    def launch(self, claim: Claim) -> None:
        """Run a claimed instance in a task."""
        self._tasks[claim.lease] = asyncio.create_task(self._live(claim), name=f"paddock-inline-{claim.id}")

    async def _live(self, claim: Claim) -> None:
        error: ErrorInfo | None = None
        planned = False
        try:
            planned = await self._run(claim)
        except asyncio.CancelledError:
            planned = True
        except LeaseLost:
            pass
        except MachineError as trouble:
            if self._parts.complains:
                _log.error(
                    "an inline instance lost the database and is queued again", instance_id=claim.id, error=str(trouble)
                )
            planned = True
        except Exception as trouble:  # noqa: BLE001  a defect of ours must not leave the lease behind
            error = describe_error(trouble)
            _log.error("an inline execution failed", instance_id=claim.id, exception=format_exc())
        self._settling.add(claim.lease)  # from here on no cancel: a lease that stays behind is a slot lost
        await self._settle(claim.lease, Death(planned=planned, error=error))

    async def _run(self, claim: Claim) -> bool:
        """Run one execution; return whether it gave the instance back for a later one."""
        parts = self._parts
        journal = await parts.store.load(claim.lease)
        definition = parts.registry.get(claim.workflow_name).definition
        writer = JournalWriter(parts.store, claim.lease, parts.clock, lambda _id: parts.committed())
        held: list[Execution] = []
        sink = LogSink(
            writer,
            parts.clock,
            asyncio.get_running_loop(),
            parts.config.max_output,
            lambda: bool(held) and held[0].replaying,
        )
        execution = self._executions[claim.lease] = Execution(
            journal,
            writer,
            parts.clock,
            max_payload=parts.config.max_payload,
            total_steps=definition.total_steps,
            suspend_after=parts.config.suspend_after,
            cancel_grace=parts.config.kill_grace,
            quiet=parts.quiet,
            queued=parts.freed,
            knows=parts.registry.knows,
        )
        held.append(execution)
        if parts.database is not None:
            writer.stuck = functools.partial(_holds_itself_up, execution, parts.store, parts.database)
            writer.patience = parts.config.sqlite_pragmas.busy_timeout
        frame = Frame(execution, parts.core, parts.plugins(), step_logger(sink), None, {})
        began = Began(self._me.pid, self._me.start_time, self._me.boot_id, definition.fingerprint(), definition.timeout)
        outcome = await execute(definition, frame, began)
        return outcome.kind in (OutcomeKind.GIVEN_BACK, OutcomeKind.CANCELLED)

    async def _settle(self, lease: Lease, death: Death) -> None:
        pause, over = 0.1, False
        while True:
            try:
                settlement = await self._parts.store.settle(
                    lease, death, self._parts.config.max_resumes, self._parts.clock.now()
                )
                over = settlement is not None and settlement.over
                break
            except MachineError:
                if self._stopping:  # the next server finds the lease, and nobody behind it
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
        self._tasks.pop(lease, None)
        self._executions.pop(lease, None)
        self._settling.discard(lease)
        self._parts.committed()
        if not over:
            self._parts.freed()

    def nudge(self, lease: Lease) -> None:
        """Let an execution look again: something has come for its instance."""
        execution = self._executions.get(lease)
        if execution is not None:
            execution.suspension.nudge()

    def drain(self, lease: Lease, reason: str) -> None:
        """Let an execution stop at its next step's boundary."""
        execution = self._executions.get(lease)
        if execution is not None:
            execution.draining = reason

    async def end(self, lease: Lease) -> None:
        """Cancel an execution and wait until it is gone."""
        task = self._tasks.get(lease)
        if task is not None and task is not asyncio.current_task():
            if lease not in self._settling:
                task.cancel()
            await asyncio.wait({task})

    def hurry(self) -> None:
        """Cut the grace of `stop` short."""
        self._hurried.set()

    async def stop(self, grace: float) -> None:
        """Let executions reach a step's boundary for `grace` seconds, then cancel them; all stay resumable."""
        self._stopping = True
        for execution in self._executions.values():
            execution.draining = "the server stops"
        tasks = set(self._tasks.values())
        if tasks:
            hurried = asyncio.create_task(self._hurried.wait(), name="paddock-hurry")
            ended = asyncio.create_task(asyncio.wait(tasks, timeout=grace), name="paddock-inline-drain")
            await asyncio.wait({hurried, ended}, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            ended.cancel()
            for lease, task in list(self._tasks.items()):
                if lease not in self._settling:
                    task.cancel()
            await asyncio.wait(tasks)


def _holds_itself_up(execution: Execution, store: SqlStore, database: str) -> bool:
    """Tell whether an execution waits for a lock that code of its own holds: others in this process may hold it too, and let it go."""
    if not execution.waits_for_commit() or not code_holds_write_lock(store, database):
        return False
    gc.collect()  # see `JournalWriter`
    return any(holds_transaction(task) for task in execution.writer.waiting)
