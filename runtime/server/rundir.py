"""The run directory: the sockets, the beat table, the children's output and stacks of one database's server.

By default it lies in the system's temporary directory under a name made of the database's real path, so the next server finds the
children of the last. It belongs to one user alone; anything else there is refused, because whoever can write it can speak for us.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from ...ipc.address import check_socket_path
from ...ipc.errors import SocketPathTooLong
from ..base.errors import RunDirectoryError
from ..base.sparse import punch

__all__ = ["RunDirectory"]


_KEPT_END = 16 * 2**20
#: Everything in a run directory that a server and its children need as long as they live.
_NEEDED = ("hub.sock", "bell.sock", "port", "token", "beats", "out", "trace")
#: Everything that is made there.
_OURS = (*_NEEDED, "rehearsal", "server")


class RunDirectory:
    """One directory, 0700 and ours."""

    _held: set[str] = set()  # noqa: RUF012  a POSIX lock belongs to the process, so its bookkeeping does too

    def __init__(self, path: str, token: str, lock: int) -> None:
        """Hold a directory that `open` has checked, and its lock's descriptor."""
        self.path = path
        self.token = token
        self._lock = lock
        self._made: dict[str, tuple[int, int] | None] = {}

    @classmethod
    def open(cls, database: str, given: str | Path | None) -> RunDirectory:
        """Make or take over the run directory of a database.

        Raises:
            RunDirectoryError: its path is too long for a socket, it is no directory, it belongs to somebody else, others may enter it, or
                another database's server works in it.
        """
        path = cls._chosen(database, given)
        if given is None:
            _make_private(os.path.dirname(path))
        cls.check_length(path)
        _make_private(path)
        lock = cls._take(path, database)
        try:
            for name in ("out", "trace"):
                _make_private(os.path.join(path, name))
            return cls(path, _token(os.path.join(path, "token")), lock)
        except BaseException:
            cls._give_back(path, lock)
            raise

    @classmethod
    def was_left(cls, database: str, given: str | Path | None) -> bool:
        """Tell whether there is one already, which a server has left: children of it may live."""
        return os.path.exists(os.path.join(cls._chosen(database, given), "token"))

    @classmethod
    def _chosen(cls, database: str, given: str | Path | None) -> str:
        return os.path.abspath(os.fspath(given)) if given is not None else cls.place(database)

    @classmethod
    def _take(cls, path: str, database: str) -> int:
        """Lock the directory for this server, and say in the lock's file whose it is; return its descriptor.

        A record lock, which dies with its process and is not inherited by a fork (fcntl(2)): a process that user code has forked would hold
        another kind on.
        """
        name = os.path.join(path, "server")
        holder = f"process {os.getpid()}, this very one"
        while path not in cls._held:
            try:
                lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise RunDirectoryError(f"run directory {path} cannot be used: {name}: {error.strerror}") from None
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(lock)
                if _inode(name) == (found.st_dev, found.st_ino):
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"process {os.getpid()} for {database}".encode(), 0)
                    cls._held.add(path)
                    return lock
                os.close(lock)  # the server before us removed it meanwhile
            except (BlockingIOError, PermissionError):
                holder = os.pread(lock, 1000, 0).decode(errors="replace")
                os.close(lock)
                break
            except OSError as error:
                os.close(lock)
                raise RunDirectoryError(
                    f"run directory {path} cannot be used: {name}: {error.strerror}; give AppServer(run_dir=…) another path"
                ) from None
        raise RunDirectoryError(
            f"run directory {path} is another server's ({holder}), whose children would be lost; "
            "give each AppServer(run_dir=…) a directory of its own"
        )

    @classmethod
    def _give_back(cls, path: str, lock: int) -> None:
        cls._held.discard(path)
        os.close(lock)

    @staticmethod
    def place(database: str) -> str:
        """Return where the run directory of a database (its real path) lies, where the user names none."""
        parent = os.path.join(tempfile.gettempdir(), f"paddock-{os.geteuid()}")
        return os.path.join(parent, hashlib.sha256(os.fsencode(database)).hexdigest()[:12])

    @staticmethod
    def check_length(path: str) -> None:
        """Refuse a directory whose socket would have too long a path.

        Raises:
            RunDirectoryError: it has.
        """
        try:
            check_socket_path(os.path.join(path, "hub.sock"))
        except SocketPathTooLong as error:
            raise RunDirectoryError(
                f"run directory {path}: {error}. Give AppServer(run_dir=…) a shorter path."
            ) from None

    @property
    def socket_path(self) -> str:
        """Return the path of the hub's socket."""
        return os.path.join(self.path, "hub.sock")

    @property
    def bell_path(self) -> str:
        """Return the path of the bell that children ring after each commit."""
        return os.path.join(self.path, "bell.sock")

    @property
    def port(self) -> int:
        """Return the port that the last server listened on, 0 for none: its children look for the next one there."""
        try:
            with open(os.path.join(self.path, "port"), encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return 0

    def keep_port(self, port: int) -> None:
        """Note the port that this server listens on."""
        descriptor = os.open(
            os.path.join(self.path, "port"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(str(port))

    @property
    def beats_path(self) -> str:
        """Return the path of the beat table."""
        return os.path.join(self.path, "beats")

    @property
    def trace_dir(self) -> str:
        """Return the directory of the children's stacks."""
        return os.path.join(self.path, "trace")

    def settled(self) -> None:
        """Note that everything is in place: what is missing from now on was taken away."""
        self._made = {name: _inode(os.path.join(self.path, name)) for name in _NEEDED}

    def trouble(self) -> str | None:
        """Say what was taken away from under the server, where anything was."""
        gone = [name for name, made in self._made.items() if made and _inode(os.path.join(self.path, name)) != made]
        if not gone:
            return None
        return (
            f"{', '.join(gone)} in {self.path} was removed or replaced, so no child can start or come back. Restart the server, and name "
            "a folder with AppServer(run_dir=…) that nothing cleans up"
        )

    def keep(self) -> None:
        """Touch everything in it: what cleans temporary folders up (systemd-tmpfiles, after ten days) goes by age."""
        for folder, _, names in os.walk(self.path):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                with contextlib.suppress(OSError):
                    os.utime(path, follow_symlinks=False)

    def trim(self, most_kept: int) -> None:
        """Bound what endless printing takes of the disk: of a long file the first `most_kept` bytes stay, and the last 16 MiB.

        Of an instance's output so much and no more is kept with it anyway, and the end is what a death is described with.
        """
        with contextlib.suppress(OSError), os.scandir(os.path.join(self.path, "out")) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # its child has just ended, and the file with it
                    seen = entry.stat(follow_symlinks=False)
                    if seen.st_blocks * 512 > most_kept + 2 * _KEPT_END:
                        _punch_middle(entry.path, most_kept, seen.st_size - _KEPT_END)

    def leave(self, *, remove: bool) -> None:
        """Give the directory back, to the next server with what is in it, or removed."""
        if remove:
            self._remove()
        self._give_back(self.path, self._lock)

    def _remove(self) -> None:
        """Remove what is ours, and the directory once nothing else is in it: one that the user named may hold more."""
        for name in _OURS:
            path = os.path.join(self.path, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
        parent = os.path.dirname(self.path)
        if os.path.basename(parent) == f"paddock-{os.geteuid()}":
            with contextlib.suppress(OSError):
                os.rmdir(parent)


def _punch_middle(path: str, start: int, end: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        punch(descriptor, start, end)
    finally:
        os.close(descriptor)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make_private(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise RunDirectoryError(
            f"run directory {path} cannot be made: {error.strerror}; give AppServer(run_dir=…) another path"
        ) from None
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise RunDirectoryError(
            f"run directory {path} is no directory; remove what is there, or give AppServer(run_dir=…) another path"
        )
    if found.st_uid != os.geteuid():
        raise RunDirectoryError(
            f"run directory {path} belongs to user {found.st_uid}, not to {os.geteuid()}; give AppServer(run_dir=…) another path"
        )
    if found.st_mode & 0o077:
        raise RunDirectoryError(
            f"run directory {path} is open to others (mode {stat.S_IMODE(found.st_mode):o}); chmod 700 it, or give another path"
        )


def _token(path: str) -> str:
    """Return the secret that peers must know; it outlives a server, so that children can come back to the next."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        with open(path, encoding="ascii") as file:
            if token := file.read().strip():
                return token
        os.unlink(path)
        return _token(path)
    with os.fdopen(descriptor, "w") as file:
        token = secrets.token_urlsafe(32)
        file.write(token)
    return token
