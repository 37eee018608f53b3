"""`paddock top`."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import Db
from .database import find_database
from .output import console, print_json

if TYPE_CHECKING:
    from .snapshot import Snapshot

__all__ = ["top"]

_BETWEEN = 0.5
_QUIT = frozenset(b"qQ\x03\x04\x1b")


def top(
    db: Db = None,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.1, metavar="SECONDS", help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once; so it is where no terminal is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print it once, as JSON.")] = False,
) -> None:
    """Watch processes, queues and kills, live.

    Processes are shown with their steps, CPU use, memory and last heartbeat; queues with what they hold. q or Ctrl-C quits.

    [dim]paddock top[/]
    [dim]paddock top --json | jq '.processes[].rss'[/]
    """
    path = find_database(db)
    if json or once or not sys.stdout.isatty():
        _print_once(path, json=json)
        return
    _watch(path, interval)


def _print_once(path: str, *, json: bool) -> None:
    from .board import board
    from .snapshot import look

    before = look(path)
    time.sleep(_BETWEEN)  # CPU use is the difference of two looks
    snapshot = look(path, before)
    if json:
        print_json(_plain(snapshot))
    else:
        screen = console()
        screen.print(board(snapshot, screen))


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    found = asdict(snapshot) | {"kills": [event.model_dump(mode="json") for event in snapshot.kills]}
    del found["at"]
    return found


def _watch(path: str, interval: float) -> None:
    from rich.live import Live

    from .board import board
    from .snapshot import look

    screen = console()
    snapshot = look(path)
    with _keys() as keyboard, Live(console=screen, screen=True, auto_refresh=False) as live:
        while True:
            live.update(board(snapshot, screen, height=screen.height, keys=True), refresh=True)
            if _quits(keyboard, interval):
                return
            snapshot = look(path, snapshot)


@contextmanager
def _keys() -> Iterator[int | None]:
    """Read single keys from the terminal for a while; None where stdin is none."""
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _quits(keyboard: int | None, interval: float) -> bool:
    """Wait until the next look is due; tell whether a key said to quit meanwhile."""
    if keyboard is None:
        time.sleep(interval)
        return False
    until = time.monotonic() + interval
    while (left := until - time.monotonic()) > 0:
        if select.select([keyboard], [], [], left)[0]:
            pressed = os.read(keyboard, 64)
            if not pressed or _QUIT & set(pressed[:1]):  # the end of the terminal, or a key
                return True
    return False
