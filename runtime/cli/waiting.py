"""Wait for the end of an instance that a server runs, with its progress on a terminal."""

from __future__ import annotations

from ..base.errors import InstanceNotFound
from ..base.records import TERMINAL, Event, Status
from ..store import events, instances
from ..store.reading import Reader
from ..store.schemes import open_reader
from ..store.window import Window
from .follow import follow
from .outcome import report
from .output import console
from .progress import Progress

__all__ = ["wait_for_end"]


def wait_for_end(path: str, ident: str, name: str, *, whole: bool) -> int:
    """Follow an instance to its end, or until it is blocked; print what became of it and return the exit code."""

    def read(reader: Reader, after: int, limit: int) -> list[Event]:
        return reader.read(
            lambda tx: events.read_events(tx, Window(after, limit), instance=instances.find(tx, ident)[0])
        )

    with Progress(console(stderr=True), name) as progress:
        for event in follow(path, read, after=0, instance_id=ident, live=True, until=TERMINAL | {Status.BLOCKED}):
            progress.take(event)
    with open_reader(path) as reader:
        instance = reader.get(ident)
    if instance is None:
        raise InstanceNotFound(f"instance {ident} was cleaned up while it was waited for")
    return report(instance, whole=whole)
