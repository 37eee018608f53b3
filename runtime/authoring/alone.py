"""A flow by itself: run here and now, without a server, with a journal in memory and every wait in real time."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from ..base.clock import SystemClock
from ..base.errors import WorkflowBlocked, WorkflowFailed
from ..base.ids import new_id
from ..base.log import get_logger
from ..base.records import ErrorInfo, Status
from ..base.values import ANY
from ..engine.context import Frame
from ..engine.execution import Execution
from ..engine.executor import execute, input_text
from ..engine.logs import StepLogger
from ..engine.plugins import Plugins
from ..engine.writer import JournalWriter
from ..store.admission import Wanted
from ..store.instances import NewInstance
from ..store.ops import Began
from ..store.sqlite import MemoryStore

if TYPE_CHECKING:
    from ..engine.definition import Definition

__all__ = ["run_alone"]

_MAX_PAYLOAD = 4 * 2**20


async def run_alone(definition: Definition, value: Any) -> Any:
    """Run a definition once and return its output, typed.

    Raises:
        InvalidInput: the input does not fit.
        WorkflowFailed: it failed.
        WorkflowBlocked: it asked for something that only a server has.
    """
    store, clock = MemoryStore(), SystemClock()
    try:
        text = input_text(definition, value, _MAX_PAYLOAD)
        await store.create(NewInstance(new_id(), definition.name, text), clock.now())
        (claim,) = await store.claim(Wanted({definition.name: 0}, frozenset(), 1), clock.now())
        journal = await store.load(claim.lease)
        writer = JournalWriter(store, claim.lease, clock, lambda _id: None)
        execution = Execution(
            journal, writer, clock, max_payload=_MAX_PAYLOAD, total_steps=definition.total_steps, suspend_after=math.inf
        )
        writer.direct = lambda: execution.quiet  # in memory a commit waits for nothing
        logger: StepLogger = get_logger(definition.name)
        frame = Frame(execution, _NoCore(logger), Plugins(), logger, None, {})  # type: ignore[arg-type]
        await execute(definition, frame, Began(os.getpid(), 0, "", None, None))
        instance = await store.get(claim.id)
    finally:
        store.close()
    return _result(definition, instance)


def _result(definition: Definition, instance: Any) -> Any:
    if instance.status is Status.COMPLETED:
        schema = getattr(definition, "output_schema", ANY)
        return schema.decode(ANY.encode(instance.output, "the output"), f"the output of {definition.name!r}")
    if instance.status is Status.FAILED:
        raise WorkflowFailed(instance.id, definition.name, instance.error)
    error = instance.error or ErrorInfo(
        type="NeedsServer", message="it waits for a signal or another workflow, which only comes on a server"
    )
    raise WorkflowBlocked(instance.id, definition.name, error)


class _NoCore:
    """`core` where there is no server."""

    role = "alone"
    db = None
    events = None

    def __init__(self, logger: StepLogger) -> None:
        self.config: dict[str, Any] = {}
        self.logger = logger
