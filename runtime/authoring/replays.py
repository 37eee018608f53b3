"""Would the instances in a database go on with this code? Their journals are replayed, and nothing is run or written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..base.duration import DurationLike, parse_duration
from ..base.records import Status
from ..engine.definition import BUILT, Definition, definition_of
from ..engine.dry_run import Fit, Replayed, dry_run
from ..store.journal import Journal
from ..store.schemes import open_reader
from .action import ACTIONS

__all__ = ["ReplayCheck", "check_replays"]


@dataclass(frozen=True, slots=True)
class ReplayCheck:
    """What became of one instance's replay.

    Attributes:
        instance_id: the instance.
        workflow_name: its workflow.
        status: its status in the database.
        fit: "fits" (it goes on), "blocks" (it would be blocked), "fails" (the code raises on its way), "unsure" (the code wants what only
            a running instance has).
        step: the key of the step where it does not fit, if it is one.
        reason: why it does not fit.
        changed: the definition's fingerprint is another one than when the instance began.
    """

    instance_id: str
    workflow_name: str
    status: Status
    fit: Literal["fits", "blocks", "fails", "unsure"]
    step: str | None = None
    reason: str | None = None
    changed: bool = False

    @property
    def ok(self) -> bool:
        """Tell whether the instance would go on, as far as can be seen."""
        return self.fit in ("fits", "unsure")


async def check_replays(
    db: str | os.PathLike[str],
    definitions: Iterable[Any] = (),
    *,
    id: str | None = None,
    timeout: DurationLike = "10s",
) -> list[ReplayCheck]:
    """Replay the journal of every unfinished instance against the code at hand, without running any step or plugin.

    The database is only read, also while a server runs on it. The code of flows and states between their steps does run, as at every
    replay, up to where the journal ends.

    Args:
        db: the database.
        definitions: the workflows; those of other modules that are imported are known too.
        id: only this instance.
        timeout: how long the code of one instance may take.

    Returns:
        One finding for each unfinished instance, the oldest first.

    Raises:
        DatabaseUnavailable, DatabaseDamaged, DatabaseTooNew: the database cannot be read.
    """
    known = _known(definitions)
    seconds = parse_duration(timeout)
    found: list[ReplayCheck] = []
    with open_reader(os.fspath(db)) as reader:
        for seq, status in reader.unfinished(id):
            journal = reader.journal(seq)
            if journal is not None:
                found.append(await _check(known.get(journal.workflow_name), journal, status, seconds))
    return found


def _known(definitions: Iterable[Any]) -> dict[str, Definition]:
    """Return definitions by name: those that are named, then those that were built in this process."""
    return {one.name: one for one in [*_built(), *(definition_of(one) for one in definitions)]}


def _built() -> Iterator[Definition]:
    for definition in BUILT.values():
        yield definition_of(definition)
    for action in ACTIONS.values():
        yield action.__paddock_definition__


async def _check(definition: Definition | None, journal: Journal, status: Status, timeout: float) -> ReplayCheck:
    name, version = journal.workflow_name, journal.version
    if definition is None:
        replayed = Replayed(
            Fit.BLOCKS, None, f"no workflow {name!r} is in the modules that were given, nor in what they import"
        )
        changed = True
    else:
        replayed = await dry_run(definition, journal, timeout=timeout)
        changed = version is not None and version != definition.fingerprint()
    return ReplayCheck(journal.id, name, status, replayed.fit.value, replayed.step, replayed.reason, changed)
