"""The watchdog process: look, find, end, report; without an event loop, and with or without a server.

Three kinds of threads: this one looks once per interval, `HubLine` talks to the server, and each kill has one. So
neither a stopped server nor a process that cannot die keeps the others from being watched.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from ..ipc.handshake import PROTOCOL_VERSION
from ..ipc.messages import Hello, Policy
from .beats import BeatTable
from .ender import end_stale
from .hub import HubLine
from .identity import ProcessIdentity, boot_id, identify, is_alive
from .observer import Finding, Observer
from .policy import Thresholds, overslept
from .settings import Settings, parse_settings
from .tree import end_tree, marker_of

__all__ = ["Watchdog", "main"]

_FINISH_TIMEOUT = 2.0
_LAST_DUTY_AFTER = 1.0  # children count the same time from when they noticed, and go first
_USAGE = 2

_Key = tuple[int, int, int]


class Watchdog:
    """The loop of a watchdog. `run` it on one thread; `stop` from any, or from a signal handler."""

    def __init__(
        self, settings: Settings, table: BeatTable, *, report: Callable[[str], None], reach: Callable[[str], None]
    ) -> None:
        """Watch over this table; `report` takes a line for people, `reach` is called at points where tests make it die."""
        me = identify(os.getpid())
        self._me = (me.pid, me.start_time)
        self._gone: tuple[int, int] | None = None
        self._settings = settings
        self._table = table
        self._report = report
        self._reach = reach
        self._observer = Observer(table, settings.thresholds)
        self._stopping = False
        self._active: dict[_Key, threading.Thread] = {}
        hello = Hello(
            version=PROTOCOL_VERSION, role="watchdog", token=settings.token, pid=me.pid, start_time=me.start_time
        )
        self._hub = HubLine(settings.address, hello, self._apply)

    def stop(self) -> None:
        """Make `run` return within a fraction of a second, plus two seconds for kills that are under way."""
        self._stopping = True

    def run(self) -> None:
        """Watch until stopped, replaced by another watchdog, or without a server for `orphan_grace`."""
        if not is_alive(ProcessIdentity(*self._settings.server, boot_id())):
            # It died while this process came up. The next server may be there, with a watchdog that knows it.
            self._report("its server is gone already")
            return
        self._table.set_watchdog(*self._me)
        self._reach("watchdog.boot")
        self._hub.start()
        last = time.monotonic()
        try:
            while not self._stopping:
                now = time.monotonic()
                if overslept(last, now, self._observer.thresholds):
                    self._hub.forgive()
                last = now
                if self._superseded():
                    self._report("another watchdog is in charge")
                    return
                if self._hub.without_server() > self._settings.orphan_grace + _LAST_DUTY_AFTER:
                    self._report(f"no server for {self._settings.orphan_grace} s")
                    self._end_all()
                    return
                self._table.beat_watchdog()
                self._round(now)
                self._rest(now + self._observer.thresholds.interval)
        finally:
            self._finish()

    def _round(self, now: float) -> None:
        self._active = {key: thread for key, thread in self._active.items() if thread.is_alive()}
        for finding in self._observer.scan(now):
            key = (finding.view.slot, finding.identity.pid, finding.identity.start_time)
            if key not in self._active:
                thread = threading.Thread(
                    target=self._end, args=(finding,), name=f"end-{finding.identity.pid}", daemon=True
                )
                self._active[key] = thread
                thread.start()

    def _end_all(self) -> None:
        """End the children that did not end themselves without a server: code that holds the GIL in a deadlock lets them not."""
        for slot in self._table.used():
            view = self._table.read(slot)
            identity = ProcessIdentity(view.pid, view.start_time, self._table.boot_id)
            if view.pid and is_alive(identity):
                end_tree(identity, marker=marker_of(self._table.path, view.instance_id, view.epoch))

    def _end(self, finding: Finding) -> None:
        try:
            end_stale(
                finding,
                table=self._table,
                hub=self._hub,
                observer=self._observer,
                trace_dir=self._settings.trace_dir,
                reach=self._reach,
            )
        except Exception as error:  # noqa: BLE001  told, and the next round tries again
            self._report(f"ending process {finding.identity.pid} failed: {type(error).__name__}: {error}")

    def _superseded(self) -> bool:
        pid, start_time, _ = self._table.watchdog()
        if (pid, start_time) == self._me:
            return False
        if is_alive(ProcessIdentity(pid, start_time, boot_id())):
            return True
        # Found at two looks: one may have come between the two words that a living one was writing.
        if (pid, start_time) == self._gone:
            self._table.set_watchdog(*self._me)  # it came and went; somebody has to be in charge
        self._gone = (pid, start_time)
        return False

    def _apply(self, policy: Policy) -> None:
        try:
            self._observer.thresholds = Thresholds(
                policy.interval, policy.heartbeat_timeout, policy.stall_timeout, policy.kill_grace
            )
        except ValueError as error:
            self._report(f"a policy was refused: {error}")

    def _rest(self, until: float) -> None:
        # Slices, because a signal handler can set no condition that this thread may be holding the lock of.
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _finish(self) -> None:
        # A kill that is cut short leaves a frozen tree behind; the next watchdog finds its root stopped and ends it.
        deadline = time.monotonic() + _FINISH_TIMEOUT
        for thread in self._active.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._hub.stop()


def _report(line: str) -> None:
    try:
        sys.stderr.write(f"paddock watchdog {os.getpid()}: {line}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # whoever read it is gone; that is no reason to stop watching


def _release_stdin() -> None:
    # The pipe was for one line; held open it would look to its writer as if somebody still read.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _off(_name: str) -> None:
    pass


def main(reach: Callable[[str], None] = _off) -> int:
    """Run as `python -m paddock.watchdog` with the settings on standard input; return the exit code."""
    # Ctrl-C in a terminal goes to the whole group; the server decides what it means for the children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings = parse_settings(sys.stdin.readline())
        table = BeatTable.open(settings.beats_path)
    except Exception as error:  # noqa: BLE001  whatever it is, its text is all that the server can learn
        _report(f"cannot start: {error}")
        return _USAGE
    _release_stdin()
    watchdog = Watchdog(settings, table, report=_report, reach=reach)
    signal.signal(signal.SIGTERM, lambda *_: watchdog.stop())
    watchdog.run()
    return 0
