"""A crash at every commit: run a workflow once for each, and see that result and journal come out the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base.config import WorkflowsConfig
from ..base.duration import DurationLike
from ..base.errors import DatabaseUnavailable
from ..base.records import Instance
from ..engine.definition import WorkflowLike, definition_of
from ..engine.plugins import Plugin
from ..engine.replay import VALUE_KINDS
from ..store.ops import Lease, Op
from ..store.sqlite import MemoryStore
from .server import MemoryServer

__all__ = ["CrashReport", "Difference", "crash_everywhere"]

#: The id of an instance that the workflow has started, in a message: another one in each run.
_ID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(frozen=True, slots=True)
class Difference:
    """What came out otherwise after a crash at `point`; `when` is "before" or "after" the commit."""

    point: int
    when: str
    what: str
    expected: Any
    found: Any


@dataclass(frozen=True, slots=True)
class CrashReport:
    """How many points were tried, how the undisturbed run came out, and every difference. True when there is none."""

    points: int
    outcome: Any
    differences: list[Difference] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Tell whether every run came out the same."""
        return not self.differences


class _CrashingStore(MemoryStore):
    """A store that fails one commit: before it, so that it never was, or after it, so that nobody knows that it was."""

    def __init__(self, point: int = 0, when: str = "before") -> None:
        super().__init__()
        self.commits = 0
        self._point = point
        self._when = when

    async def commit(self, lease: Lease, ops: Sequence[Op], now: float) -> int:
        self.commits += 1
        hit = self.commits == self._point
        if hit and self._when == "before":
            raise DatabaseUnavailable("a crash, as asked for")
        done = await super().commit(lease, ops, now)
        if hit:
            raise DatabaseUnavailable("a crash, as asked for")
        return done


async def crash_everywhere(
    definition: WorkflowLike,
    input: Any = None,
    *,
    plugins: Sequence[Plugin[Any] | str] = (),
    config: dict[str, Any] | None = None,
    signals: Mapping[str, Any] | None = None,
    also: Sequence[WorkflowLike] = (),
    timeout: DurationLike = "30s",
) -> CrashReport:
    """Run a workflow undisturbed, then once before and once after each of its commits with a crash there, and compare.

    Status, output, error and the journal (keys, kinds, statuses, outputs; not times and attempts) must be the same. Steps run for
    real each time, so give it handlers without lasting effects, and deterministic ones: what differs is reported.

    Args:
        definition: the workflow.
        input: its input.
        plugins: as for `AppServer`.
        config: as for `AppServer`.
        signals: payloads by name, sent at the start.
        also: other workflows that it starts.
        timeout: how long one run may take, in real time.

    Returns:
        The report; it is true when nothing differed.
    """

    async def run(store: _CrashingStore) -> Instance:
        made = MemoryServer(plugins, config or {}, WorkflowsConfig(max_resumes=100), store)
        for one in (definition, *also):
            made.workflows.register(one)
        async with made:
            ident = await made.workflows.start(definition_of(definition), input)
            for name, payload in (signals or {}).items():
                await made.workflows.signal(ident, name, payload)
            return await made.workflows.wait(ident, timeout=timeout)

    baseline = _CrashingStore()
    expected = _essence(await run(baseline))
    differences: list[Difference] = []
    for point in range(1, baseline.commits + 1):
        for when in ("before", "after"):
            found = _essence(await run(_CrashingStore(point, when)))
            differences += [
                Difference(point, when, what, expected.get(what), found.get(what))
                for what in sorted(expected.keys() | found.keys())
                if expected.get(what) != found.get(what)
            ]
    return CrashReport(baseline.commits, expected["output"], differences)


def _essence(instance: Instance) -> dict[str, Any]:
    """Return what must be the same, by name."""
    facts: dict[str, Any] = {
        "status": instance.status.value,
        "output": instance.output,
        "error": (instance.error.type, _ID.sub("<id>", instance.error.message)) if instance.error else None,
    }
    for key, step in instance.step_results.items():
        output = None if step.kind in VALUE_KINDS or step.kind in ("start", "wait_for") else step.output
        facts[f"step {key}"] = (step.kind, step.status.value, output)
    return facts
