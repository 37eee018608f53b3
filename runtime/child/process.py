"""A child from its first instruction to its last: boot, run, exit. Everything before the lease is checked is free of effects."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from ...watchdog.beats import BeatTable
from ...watchdog.identity import ProcessIdentity, identify
from ..base.clock import SystemClock
from ..base.errors import (
    InvalidWorkflow,
    LeaseLost,
    LimitNotEnforceable,
    MachineError,
    PluginSetupError,
    WorkflowNotImportable,
)
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..engine.context import Frame
from ..engine.definition import BUILT, Definition, definition_of
from ..engine.execution import Execution
from ..engine.executor import Outcome, OutcomeKind, execute
from ..engine.failure import describe_error
from ..engine.logs import LogSink, step_logger
from ..engine.plugin_spec import PluginSpec, rebuild_plugin
from ..engine.plugins import Plugin, Plugins, set_up, tear_down
from ..engine.writer import JournalWriter
from ..store.database import Database
from ..store.journal import Journal
from ..store.ops import Began, Ended, Lease, Suspended
from ..store.own_lock import code_holds_write_lock, roll_back
from ..store.sql_store import SqlStore
from .confine import bound_memory, confine
from .core import ChildCore
from .lifeline import Lifeline, Lookout
from .main_module import loaded_main
from .outfit import Outfit
from .output import OutputReader
from .pulse import Pulse
from .spec import EXIT_GIVEN_BACK, EXIT_LOST_GROUND, ChildSpec, DefinitionPath

__all__ = ["find_definition", "rehearse_child", "run_child"]

_OUTPUT_INTERVAL = 0.2
_CLEAN_UP = 0.5


def find_definition(path: DefinitionPath, plugins: dict[str, Definition]) -> Definition:
    """Return the definition that a path names, importing its module.

    Raises:
        WorkflowNotImportable: the module or the definition is not there any more.
    """
    if path.module is None:
        if path.name in plugins:
            return plugins[path.name]
        raise WorkflowNotImportable(
            f"workflow {path.name!r} was registered by a plugin, which does not register it in this process"
        )
    try:
        module = loaded_main() if path.module == "__main__" else importlib.import_module(path.module)
    except Exception as error:
        raise WorkflowNotImportable(
            f"module {path.module!r} of workflow {path.name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found: Any = module
    for part in (path.attribute or "").split("."):
        found = getattr(found, part, None)
    found = definition_of(found)
    if not isinstance(found, Definition) or found.name != path.name:
        found = BUILT.get((path.module, path.name))
    if found is None:
        raise WorkflowNotImportable(f"module {path.module!r} has no workflow {path.name!r} any more")
    return found  # type: ignore[no-any-return]


def run_child(spec: ChildSpec, outfit: Outfit) -> int:
    """Run one execution of one instance and return the exit code. The process has become a child already (`birth.py`)."""
    me = identify(os.getpid())
    reach("child.born")
    try:
        database, store = outfit.database(spec)
        journal = _take(store, spec, me)
    except LeaseLost:
        return 0
    except MachineError:
        traceback.print_exc()
        return EXIT_LOST_GROUND
    reach("child.leased")
    # only now: a process that was overtaken while it was born must not write into a slot that is another's
    table = _take_slot(outfit.table(spec), spec, me)
    refusal: LimitNotEnforceable | None = None
    try:
        confine(spec)
    except LimitNotEnforceable as error:
        refusal = error
    pulse = Pulse(table, spec.slot, spec.beat_interval, spec.trace_dir)
    pulse.start()
    if spec.limits.memory_limit is not None and refusal is None:
        pulse.bound = functools.partial(bound_memory, spec.limits.memory_limit)
    try:
        code = outfit.runner().run(_Child(spec, database, store, journal, pulse, me, refusal).run())
    except MachineError:
        traceback.print_exc()
        code = EXIT_LOST_GROUND
    if code:
        pulse.leaving(code)
    return code


def rehearse_child(spec: ChildSpec, database: Database, store: SqlStore) -> None:
    """Run an execution as `run_child` does, in a process that goes on to be something else.

    No limits, no thread, no handlers of signals; and whatever was opened is closed, `store` too.

    Raises:
        LeaseLost, MachineError, OSError: the stage is not as it should be.
    """
    me = identify(os.getpid())
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        journal = _take(store, spec, me)
        table = stack.enter_context(contextlib.closing(_take_slot(BeatTable.open(spec.beats_path), spec, me)))
        pulse = stack.enter_context(contextlib.closing(Pulse(table, spec.slot, spec.beat_interval, spec.trace_dir)))
        child = stack.enter_context(contextlib.closing(_Child(spec, database, store, journal, pulse, me, None)))
        asyncio.run(child.run())


def _take(store: SqlStore, spec: ChildSpec, me: ProcessIdentity) -> Journal:
    """Put this process's name on the lease; raises LeaseLost, MachineError."""
    return store.load_now(Lease(spec.instance, spec.epoch), (me.pid, me.start_time, me.boot_id))


def _take_slot(table: BeatTable, spec: ChildSpec, me: ProcessIdentity) -> BeatTable:
    table.assign(spec.slot, pid=me.pid, start_time=me.start_time, epoch=spec.epoch, instance_id=spec.instance_id)
    return table


class _Child:
    def __init__(
        self,
        spec: ChildSpec,
        database: Database,
        store: SqlStore,
        journal: Journal,
        pulse: Pulse,
        me: ProcessIdentity,
        refusal: LimitNotEnforceable | None,
    ) -> None:
        self._refusal = refusal
        self._spec = spec
        self._database = database
        self._store = store
        self._journal = journal
        self._pulse = pulse
        self._began = Began(me.pid, me.start_time, me.boot_id, None, None)
        self._clock = SystemClock()
        self._lifeline = Lifeline(
            spec,
            me.start_time,
            on_cancel=self._cancelled,
            on_drain=self._drain,
            on_nudge=self._nudge,
            is_looked_for=lambda last: pulse.is_looked_for(last=last),
            leave=pulse.leave,
        )
        pulse.orphaned = Lookout(spec.address, spec.orphan_grace).alone
        self._execution: Execution | None = None
        self._task: asyncio.Task[Outcome] | None = None
        self._draining: str | None = None
        self._output: OutputReader | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._pulse.follow(loop)
        self._lifeline.start()
        writer = JournalWriter(self._store, self._journal.lease, self._clock, self._committed, self._read_output)
        sink = LogSink(writer, self._clock, loop, self._spec.max_output, self._replays)
        out_path, err_path = self._spec.outputs
        self._output = OutputReader(out_path, err_path, sink, self._replays)
        self._pulse.drain = self._output.drain
        self._pulse.finish = self._output.finish
        self._watch_output(loop)
        logger = step_logger(sink)
        core = ChildCore(
            store=self._store,
            db=self._database.core_db(self._spec.pragmas),
            config=self._spec.config,
            logger=logger,
        )
        self._task = asyncio.create_task(self._live(core, writer), name="paddock-instance")
        try:
            outcome = await self._task
        except asyncio.CancelledError:
            outcome = Outcome(OutcomeKind.CANCELLED)
        await self._cancel_others()
        await core.db.close()
        await self._lifeline.finish(outcome.status.value if outcome.status else outcome.kind.value)
        return _exit_code(outcome)

    def close(self) -> None:
        """Let go of what the end of a process lets go of."""
        self._lifeline.close()
        if self._output is not None:
            self._output.close()

    async def _cancel_others(self) -> None:
        """Give tasks that handlers left behind a moment to clean up; whoever does not end goes with the process."""
        others = [
            task
            for task in asyncio.all_tasks()
            if task is not asyncio.current_task() and task not in self._lifeline.tasks
        ]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_CLEAN_UP)

    async def _live(self, core: ChildCore, writer: JournalWriter) -> Outcome:
        """Set plugins up, run the instance, tear them down again."""
        plugins: Sequence[Plugin[Any]] = ()
        if self._refusal is not None:
            return await self._refuse(writer, Suspended(Status.BLOCKED, error=_without_step(self._refusal)))
        try:
            reach("child.import")
            plugins = [rebuild_plugin(PluginSpec.model_validate(text.model_dump())) for text in self._spec.plugins]
            reach("child.plugins")
            await set_up(plugins, core, self._spec.ready_timeout, lambda name: self._pulse.phase(f"plugin:{name}"))
            definition = find_definition(self._spec.definition, core.definitions)
        except PluginSetupError as error:
            return await self._refuse(writer, Ended(Status.FAILED, error=_without_step(error)))
        except (WorkflowNotImportable, InvalidWorkflow) as error:
            await tear_down(plugins)
            return await self._refuse(writer, Suspended(Status.BLOCKED, error=_without_step(error)))
        self._pulse.phase("")
        self._lifeline.ready()
        reach("child.ready")
        code = EXIT_LOST_GROUND
        try:
            outcome = await self._execute(definition, core, Plugins(plugins), writer)
            code = _exit_code(outcome)
            return outcome
        finally:
            reach("child.teardown")
            await self._tear_down(plugins, core, code)

    async def _tear_down(self, plugins: Sequence[Plugin[Any]], core: ChildCore, code: int) -> None:
        """Tear the plugins down, each within `kill_grace`; where one blocks the loop, end the process with `code` in its stead."""
        if not plugins:
            return
        grace = self._spec.kill_grace
        last = threading.Timer(grace * len(plugins) + _CLEAN_UP, self._pulse.leave, (code,))
        last.daemon = True
        last.start()
        try:
            await tear_down(
                plugins,
                lambda name, error: core.logger.error("plugin teardown failed", plugin=name, error=repr(error)),
                grace,
            )
        finally:
            last.cancel()

    async def _execute(
        self, definition: Definition, core: ChildCore, plugins: Plugins, writer: JournalWriter
    ) -> Outcome:
        execution = self._execution = Execution(
            self._journal,
            writer,
            self._clock,
            max_payload=self._spec.max_payload,
            total_steps=definition.total_steps,
            suspend_after=self._spec.suspend_after,
            cancel_grace=self._spec.kill_grace,
            killable=True,
            monitor=self._pulse,
            queued=self._lifeline.queued,
        )
        # a plugin's open transaction ends on this loop: who waits for its lock here would hold it up
        writer.direct = lambda: execution.quiet and not core.db.opened
        writer.stuck = lambda: execution.waits_for_commit() and code_holds_write_lock(self._store, self._database.url)
        self._pulse.commits = lambda: writer.on_loop
        writer.let_go = lambda: roll_back(self._database.url)
        writer.patience = self._spec.pragmas.busy_timeout
        execution.draining = self._draining
        frame = Frame(execution, core, plugins, core.logger, None, {})
        began = Began(
            self._began.pid, self._began.pid_start, self._began.boot_id, definition.fingerprint(), definition.timeout
        )
        outcome = await execute(definition, frame, began)
        self._lifeline.last()
        return outcome

    async def _refuse(self, writer: JournalWriter, op: Ended | Suspended) -> Outcome:
        writer.add(op)
        try:
            await writer.flush()
        except LeaseLost as error:
            return Outcome(OutcomeKind.LOST, reason=str(error))
        return Outcome(OutcomeKind.ENDED if isinstance(op, Ended) else OutcomeKind.SUSPENDED, op.status)

    def _replays(self) -> bool:
        """Tell whether the code goes through what it has logged and printed before."""
        return self._execution is not None and self._execution.replaying

    def _committed(self, event_id: int) -> None:
        self._pulse.committed(event_id)
        self._lifeline.committed(event_id)

    def _read_output(self) -> None:
        if self._output is not None:
            self._output.drain(self._pulse.sole_step)

    def _watch_output(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the output now and then, for handlers that print and commit nothing for long."""
        self._read_output()
        loop.call_later(_OUTPUT_INTERVAL, self._watch_output, loop)

    def _nudge(self) -> None:
        if self._execution is not None:
            self._execution.suspension.nudge()

    def _drain(self) -> None:
        self._draining = "the server stops"
        if self._execution is not None:
            self._execution.draining = self._draining

    def _cancelled(self, _reason: str, grace: float) -> None:
        if self._task is not None:
            self._task.cancel()
        asyncio.get_running_loop().call_later(grace, self._pulse.leave, EXIT_GIVEN_BACK)


def _exit_code(outcome: Outcome) -> int:
    return EXIT_GIVEN_BACK if outcome.kind in (OutcomeKind.GIVEN_BACK, OutcomeKind.CANCELLED) else 0


def _without_step(error: BaseException) -> ErrorInfo:
    cause = error.__cause__ if isinstance(error, PluginSetupError) and error.__cause__ is not None else error
    info = describe_error(cause)
    return info.model_copy(update={"type": type(error).__name__, "message": str(error)})
