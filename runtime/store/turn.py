"""Turns at the write lock, and the lock that makes one server per database.

SQLite's busy handler sleeps and tries again: of eight hot writers one was seen to commit once in five seconds. A blocking file lock,
held for each transaction, lets the kernel queue them. POSIX record locks are used because they die with their process and are
not inherited by a fork; their price is that closing any descriptor of the file drops all locks of the process, so each process
opens the file once, for good, and threads take turns by an ordinary lock (fcntl(2), "Record locking").

Byte 0 is the server's, held for its life; byte 1 is the writers'.
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
from typing import Self

from ..base.errors import DatabaseUnavailable, ServerAlreadyRunning

__all__ = ["LockFile"]

_SERVER_BYTE, _WRITER_BYTE = 0, 1
_TEXT_AT = 2
_SUFFIX = "-paddock"


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
            while True:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _WRITER_BYTE)
                except InterruptedError:
                    continue
                except OSError as error:
                    if error.errno != errno.EDEADLK:
                        raise
                    continue  # the kernel's guess at a deadlock between processes, not threads
                return self
        except BaseException:
            self._turn.release()
            raise

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
            while True:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SERVER_BYTE)
                except (BlockingIOError, PermissionError):
                    raise ServerAlreadyRunning(self._database, self._holder_pid()) from None
                if self._is_current():
                    break
                # the server before us removed its file between our opening and our locking it
                os.close(self._descriptor)
                self._descriptor = _open(self._database)
            try:
                os.ftruncate(self._descriptor, _TEXT_AT)
                os.pwrite(self._descriptor, json.dumps({"pid": pid, **facts}).encode(), _TEXT_AT)
            except OSError as error:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _SERVER_BYTE)
                raise DatabaseUnavailable(
                    f"{self._database} cannot be used: its lock file cannot be written: {error.strerror}. Make room on its disk."
                ) from None
            self._serving = True

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._database + _SUFFIX))
        except FileNotFoundError:
            return False

    def _holder_pid(self) -> int:
        """Return the pid that holds the server's lock, 0 when nobody does (fcntl(2), F_GETLK)."""
        layout = "qqihh" if sys.platform == "darwin" else "hhqqi"
        start = struct.pack(layout, *((0, 1, 0, fcntl.F_WRLCK, 0) if layout[0] == "q" else (fcntl.F_WRLCK, 0, 0, 1, 0)))
        answer = struct.unpack(layout, fcntl.fcntl(self._descriptor, fcntl.F_GETLK, start))
        kind, pid = (answer[3], answer[2]) if layout[0] == "q" else (answer[0], answer[4])
        return 0 if kind == fcntl.F_UNLCK else pid

    def holder(self) -> dict[str, object]:
        """Return what the living server noted of itself (`pid`, `run_dir`, `address`); `{}` when none runs."""
        pid = os.getpid() if self._serving else self._holder_pid()
        if not pid:
            return {}
        try:
            found = json.loads(os.pread(self._descriptor, 4096, _TEXT_AT) or b"{}")
        except ValueError:
            found = {}
        return {**(found if isinstance(found, dict) else {}), "pid": pid}

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


def _open(database: str) -> int:
    path = database + _SUFFIX
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DatabaseUnavailable(
            f"{database} cannot be used: its lock file {path} cannot be opened: {error.strerror}. "
            "Name a file in a folder that exists and is writable."
        ) from None
