"""Turns at the write lock, and the lock that makes one server per database.

SQLite's busy handler sleeps and tries again: of eight hot writers one was seen to commit once in five seconds. A file lock, held for
each transaction, lets them wait instead. POSIX record locks are used because they die with their process and are not inherited by a
fork; their price is that closing any descriptor of the file drops all locks of the process, so each process opens the file once, for
good, and threads take turns by an ordinary lock (fcntl(2), "Record locking").

Byte 0 is the server's, held for its life; byte 1 is the writers', and whoever holds it may write. It alone would be no queue: the kernel
wakes who waits longest, and whoever is awake already takes the lock meanwhile. (Of 64 writers one was overtaken 500 times.) So a
writer that finds the lock taken draws a number, and goes to byte 1 when fewer than a handful are before it; until then it looks now and
then how far the numbers are. The few at the lock may overtake each other, nobody else does; and whoever had the last turn lets one of the
others go first.

No number has to be called: one that is higher counts as well, so who died or stands still in the queue (a stopped process, a frozen group,
a debugger's) holds up nobody. Where all those at the lock are such, it is free and the numbers stand still; whoever sees that for a while
takes it. (A moment is not enough: between two turns the lock is free until the next one has woken.) A
strict queue, in which each waits for the one before, would hand the lock to a process that cannot take it, and stop every writer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import Self

from ..base.errors import DatabaseUnavailable, ServerAlreadyRunning

__all__ = ["LockFile", "ServerNote", "read_note"]

_SERVER_BYTE, _WRITER_BYTE = 0, 1
_TEXT_AT = 4  # before it two numbers of two bytes: the one that the next draws, and the highest that had its turn
_HAD_AT = 2
_DOOR_BYTE = 2**28
_NUMBERS = 2**16
_NEAR = 4
_PACE = 0.0004  # a turn takes about as long; too short is a look too many, too long is made up for by those at the lock
_LONGEST_PAUSE = 0.01
_STANDS_STILL = 0.1
_SUFFIX = "-paddock"
_MOST_TEXT = 16 * 1024
_PATIENCE, _PAUSE = 0.1, 0.01


class LockFile:
    """The lock file of one database in this process: `<database>-paddock`, 0600."""

    _open: dict[str, LockFile] = {}  # noqa: RUF012  a POSIX lock belongs to the process, so its bookkeeping does too
    _registry = threading.Lock()

    def __init__(self, database: str, descriptor: int) -> None:
        """Hold an open descriptor; use `LockFile.of`."""
        self._database = database
        self._descriptor = descriptor
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._following = self._last = -1
        self._serving = False

    @classmethod
    def of(cls, database: str) -> LockFile:
        """Return this process's lock file for a database (its real path), opened at the first call.

        Raises:
            DatabaseUnavailable: the file cannot be made.
        """
        with cls._registry:
            found = cls._open.get(database)
            if found is None or not found.is_ours:  # a fork must not share its parent's bookkeeping
                found = cls._open[database] = cls(database, _open(database))
            return found

    @property
    def is_ours(self) -> bool:
        """Tell whether this process opened it."""
        return self._pid == os.getpid()

    def __enter__(self) -> Self:
        """Wait for the writers' turn, without bound: whoever holds it and stands still is the watchdog's business."""
        self._turn.acquire()
        try:
            if self._read(0) != self._following or not self._take(_WRITER_BYTE):
                self._queue()
            # else nobody has come since our last turn
        except BaseException:
            self._turn.release()
            raise
        return self

    def _queue(self) -> None:
        """Draw a number, and return with the lock."""
        number = self._draw()
        if number is None or not self._come_near(number):
            self._wait_at(_WRITER_BYTE)
        if number is not None and _ahead(number, self._read(_HAD_AT)):
            self._write(_HAD_AT, number)

    def _draw(self) -> int | None:
        """Return a number, None where the disk is so full that none can be written down: then it goes without."""
        self._wait_at(_DOOR_BYTE)
        try:
            number = self._read(0)
            following = (number + 1) % _NUMBERS
            if not self._write(0, following):
                return None
            self._following = following
            return number
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _DOOR_BYTE)

    def _come_near(self, number: int) -> bool:
        """Wait until few are before a number; return whether the lock was taken, because none of them took it."""
        last, self._last = self._last, number
        before, still, looked_at = -1, 0.0, 0.0
        while True:
            had = self._read(_HAD_AT)
            ahead = _ahead(number, had)
            if ahead <= (1 if had == last else _NEAR):
                return False
            now = time.monotonic()
            # who looks late was away itself, and has seen little of the time between
            still += min(now - looked_at, _STANDS_STILL / 4)
            looked_at = now
            if had != before or _holder(self._descriptor, _WRITER_BYTE) is not None:
                before, still = had, 0.0
            elif still > _STANDS_STILL and self._take(_WRITER_BYTE):
                return True
            time.sleep(min(max(ahead - _NEAR, 1) * _PACE, _LONGEST_PAUSE))

    def _read(self, place: int) -> int:
        return int.from_bytes(os.pread(self._descriptor, 2, place), "big")

    def _write(self, place: int, number: int) -> bool:
        try:
            os.pwrite(self._descriptor, number.to_bytes(2, "big"), place)
        except OSError:  # a full disk, and a file without a byte in it
            return False
        return True

    def _wait_at(self, byte: int) -> None:
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, byte)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno != errno.EDEADLK:
                    raise
                continue  # the kernel's guess at a deadlock between processes, not threads
            return

    def __exit__(self, *_exc: object) -> None:
        """Give the turn to the next."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _WRITER_BYTE)
        finally:
            self._turn.release()

    def serve(self, pid: int, **facts: object) -> None:
        """Take the server's lock for the life of this process, and note who holds it.

        Raises:
            ServerAlreadyRunning: another server holds it, in this process or another; its pid is named.
            DatabaseUnavailable: the note cannot be written; the lock is free again.
        """
        with self._registry:
            if self._serving:
                raise ServerAlreadyRunning(self._database, os.getpid())
            until = time.monotonic() + _PATIENCE
            while True:
                if not self._take(_SERVER_BYTE):
                    if time.monotonic() < until:  # perhaps somebody who removes the file, see `tidy`
                        time.sleep(_PAUSE)
                        continue
                    raise ServerAlreadyRunning(self._database, self._holder_pid())
                if self._is_current():
                    break
                # the server before us removed its file between our opening and our locking it
                os.close(self._descriptor)
                self._descriptor = _open(self._database)
            try:
                self.note(pid=pid, **facts)
            except OSError as error:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _SERVER_BYTE)
                raise DatabaseUnavailable(
                    f"{self._database} cannot be used: its lock file cannot be written: {error.strerror}. Make room on its disk."
                ) from None
            self._serving = True

    def note(self, **facts: object) -> None:
        """Write down what others need to find this server (`pid`, `run_dir`, `address`), in place of what was noted before."""
        text = json.dumps(facts).encode()
        os.ftruncate(self._descriptor, _TEXT_AT)
        os.pwrite(self._descriptor, text, _TEXT_AT)

    def _take(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._database + _SUFFIX))
        except FileNotFoundError:
            return False

    def _holder_pid(self) -> int:
        return _holder(self._descriptor, _SERVER_BYTE) or 0

    def holder(self) -> dict[str, object]:
        """Return what the living server noted of itself (`pid`, `run_dir`, `address`); `{}` when none runs."""
        pid = os.getpid() if self._serving else self._holder_pid()
        if not pid:
            return {}
        return {**_read_text(self._descriptor), "pid": pid}

    def noted(self) -> ServerNote:
        """Return what the last server noted of itself, whether it lives or not."""
        return _note_of(_read_text(self._descriptor), self._holder_pid())

    def leave(self, *, remove: bool = True) -> None:
        """Give the server's lock back and, when nobody else can be using it, remove the file."""
        with self._registry:
            if self._serving:
                self._serving = False
                if remove:
                    with contextlib.suppress(OSError):  # gone, or the disk is read-only now
                        os.unlink(self._database + _SUFFIX)
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _SERVER_BYTE)
                if remove:
                    os.close(self._descriptor)
                    self._open.pop(self._database, None)

    def tidy(self) -> None:
        """Remove a file that this process has made, where no server has come to use it meanwhile."""
        with self._registry:
            if self._serving or not self._take(_SERVER_BYTE):
                return
            if self._is_current():
                os.unlink(self._database + _SUFFIX)
            os.close(self._descriptor)  # which gives the lock back
            self._open.pop(self._database, None)


@dataclass(frozen=True, slots=True)
class ServerNote:
    """What is noted of the server that runs, or of the one that died: then `pid` is 0. `host` is another machine's name."""

    pid: int
    run_dir: str | None = None
    address: str | None = None
    host: str | None = None


def read_note(database: str) -> ServerNote | None:
    """Return who serves a database (its real path), for a process that neither serves it nor writes to it; None for nobody ever.

    Nothing is made. The descriptor is closed again, which drops every lock that this process holds on the file: none, see above.
    """
    try:
        descriptor = os.open(database + _SUFFIX, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return _note_of(_read_text(descriptor), _holder(descriptor, _SERVER_BYTE) or 0)
    finally:
        os.close(descriptor)


def _ahead(number: int, had: int) -> int:
    """Return how many numbers are to be passed, 0 where a higher one has had its turn."""
    ahead = (number - had) % _NUMBERS
    return ahead if ahead < _NUMBERS // 2 else 0


def _note_of(facts: dict[str, object], pid: int) -> ServerNote:
    run_dir, address = facts.get("run_dir"), facts.get("address")
    return ServerNote(pid, run_dir if isinstance(run_dir, str) else None, address if isinstance(address, str) else None)


def _holder(descriptor: int, byte: int) -> int | None:
    """Return the pid that holds a byte, as far as it is another process; None when nobody does (fcntl(2), F_GETLK)."""
    layout = "qqihh" if sys.platform == "darwin" else "hhqqi"
    start = struct.pack(
        layout, *((byte, 1, 0, fcntl.F_WRLCK, 0) if layout[0] == "q" else (fcntl.F_WRLCK, 0, byte, 1, 0))
    )
    answer = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, start))
    kind, pid = (answer[3], answer[2]) if layout[0] == "q" else (answer[0], answer[4])
    return None if kind == fcntl.F_UNLCK else pid


def _read_text(descriptor: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(descriptor, _MOST_TEXT, _TEXT_AT) or b"{}")
    except ValueError:  # caught while it was written
        return {}
    return found if isinstance(found, dict) else {}


def _open(database: str) -> int:
    path = database + _SUFFIX
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DatabaseUnavailable(
            f"{database} cannot be used: its lock file {path} cannot be opened: {error.strerror}. "
            "Name a file in a folder that exists and is writable."
        ) from None
