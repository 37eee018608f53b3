"""A rehearsal: what every child would do for the first time is done before there is anything to do.

In the fork server, before the first fork: a small workflow runs some times over, through the code that a child runs, from its order to
its last commit. So bytecode is specialised, type caches are filled and validators are built in memory that all children share. A function
is specialised after eight calls, and writes into its own code until then (PEP 659): each page written is one that a child copies.

In a standby, once: what a child writes to is the standby's own already when its order comes.

Nothing of it stays open: no loop, no thread, no connection, no file; the audit that follows in the fork server would tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator

from ...ipc.messages import Cancel, Committed, Drain, Finished, Fork, Hello, Nudge, Ready, Refused, Welcome
from ...watchdog.beats import BeatTable, BeatTableError
from ..authoring.builder import workflow
from ..authoring.graph import Graph
from ..base.clock import SystemClock
from ..base.config import SqlitePragmas
from ..base.errors import PaddockError
from ..base.ids import new_id
from ..base.private import open_private
from ..engine.definition import BUILT
from ..store.admission import Wanted
from ..store.instances import NewInstance
from ..store.sqlite import SqliteStore
from ..store.sqlite_database import SqliteDatabase
from .late_rich import import_structlog
from .process import rehearse_child
from .spec import ChildSpec, DefinitionPath

__all__ = ["Stage", "build_schemas"]

#: Nothing of a rehearsal is to outlive anything, so nothing waits for the disk. Users are not offered this level.
_CARELESS = SqlitePragmas().model_copy(update={"synchronous": "OFF"})
_SECONDS = 60.0
_STEPS = 10
_BYTES = 2**20


class Stage:
    """A place to rehearse in: a database that holds one instance, claimed and not begun. One that cannot be had is done without.

    Args:
        folder: of the run directory; each process makes one of its own in it, for as long as it plays.
    """

    def __init__(self, folder: str) -> None:
        """Build it."""
        import_structlog()  # for every child's logger
        self._folder = folder
        self._database: bytes | None = None
        #: What a child executes on its database.
        self.statements: dict[str, None] = {}
        #: The last life's, for the fork server to practise with.
        self.order: Fork | None = None
        with contextlib.suppress(OSError, PaddockError), self._own_folder() as own:
            path = os.path.join(own, "life.db")
            asyncio.run(_claim_one(path))
            with open(path, "rb") as file:
                self._database = file.read()

    def play(self, times: int = 1) -> int:
        """Live a child's life, some 4 ms long, and return how often it came to its end."""
        lived = 0
        if self._database is None:
            return lived
        with contextlib.suppress(OSError, PaddockError, BeatTableError):
            while lived < times:
                with self._own_folder() as own:
                    spec = self._furnish(own, self._database)
                    database = SqliteDatabase(spec.database)
                    store = database.open_child(spec.pragmas)
                    if not self.statements:
                        store.note_statements(self.statements)
                    rehearse_child(spec, database, store)
                lived += 1
        return lived

    def _furnish(self, own: str, database: bytes) -> ChildSpec:
        """Put everything in its place, and return what the child is told, read as it reads it."""
        path = os.path.join(own, "life.db")
        with open(path, "wb", opener=open_private) as file:
            file.write(database)
        spec = _spec(path, own)
        outputs = spec.outputs
        for folder in (os.path.dirname(outputs[0]), spec.trace_dir):
            os.mkdir(folder, 0o700)
        for output in outputs:
            os.close(open_private(output, os.O_WRONLY | os.O_CREAT))
        BeatTable.create(spec.beats_path, slots=1).close()
        self.order = Fork(
            request_id=1,
            mode="fork",
            slot=spec.slot,
            instance_id=spec.instance_id,
            epoch=spec.epoch,
            spec=spec.model_dump_json(),
        )
        return ChildSpec.model_validate_json(self.order.spec).model_copy(update={"pragmas": _CARELESS})

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[str]:
        own = os.path.join(self._folder, str(os.getpid()))
        shutil.rmtree(own, ignore_errors=True)  # of one that was killed while it played
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        os.mkdir(own, 0o700)
        try:
            yield own
        finally:
            SqliteDatabase(os.path.join(own, "life.db")).tidy()
            shutil.rmtree(own, ignore_errors=True)


async def _echo(value: dict[str, int]) -> dict[str, int]:
    return value


def _piece() -> Graph:
    piece = workflow("paddock-rehearsal")
    for number in range(_STEPS):
        piece = piece.task(f"step-{number}", _echo)
    return piece.build()


_PIECE = _piece()


async def _claim_one(path: str) -> None:
    """Make the database, as a server does."""
    store, clock = SqliteStore.open(path, _CARELESS), SystemClock()
    try:
        await store.create(NewInstance(new_id(), _PIECE.name, '{"count": 1}'), clock.now())
        await store.claim(Wanted({_PIECE.name: 0}, frozenset(), 1), clock.now())
    finally:
        store.close()


def _spec(database: str, run_dir: str) -> ChildSpec:
    return ChildSpec(
        database=database,
        pragmas=SqlitePragmas(),
        instance=1,
        epoch=1,
        instance_id="rehearsal",
        definition=DefinitionPath(name=_PIECE.name, module=__name__, attribute="_PIECE"),
        address=f"unix:{run_dir}/hub.sock",
        token="",
        run_dir=run_dir,
        slot=0,
        beat_interval=_SECONDS,
        ready_timeout=_SECONDS,
        kill_grace=_SECONDS,
        orphan_grace=_SECONDS,
        suspend_after=_SECONDS,
        max_payload=_BYTES,
        max_output=_BYTES,
    )


def build_schemas() -> None:
    """Build the validators of every workflow that was imported, and of what children say and hear.

    One that cannot be built fails where it is used.
    """
    for kind in (Cancel, Committed, Drain, Finished, Hello, Nudge, Ready, Refused, Welcome):
        kind.model_rebuild()
    for definition in list(BUILT.values()):
        schemas = [definition.input_schema]
        if isinstance(definition, Graph):
            for node in definition.nodes.values():
                schemas += [found for name in ("input", "output") if (found := getattr(node, name, None)) is not None]
        else:
            schemas.append(getattr(definition, "output_schema", definition.input_schema))
        for schema in schemas:
            try:
                schema.adapter()
            except PaddockError:
                continue
