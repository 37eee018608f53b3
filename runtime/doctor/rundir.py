"""A run directory: whose it is, whether the socket answers, who beats in the table, how much was printed."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator

from ...watchdog.beats import BeatTable, BeatTableError
from ...watchdog.identity import ProcessIdentity, boot_id, is_alive
from .finding import Finding, note, ok, problem

__all__ = ["examine_run_dir"]

_AREA = "run directory"
_MUCH_OUTPUT = 256 * 2**20
_KNOCK_TIMEOUT = 2.0


def examine_run_dir(path: str, server: int | None) -> list[Finding]:
    """Look at a run directory of a server with this pid, or of none that lives."""
    try:
        seen = os.lstat(path)
    except OSError as error:
        if server is None:
            return [ok(_AREA, f"{path} is not there, and no server runs")]
        return [
            problem(
                _AREA,
                f"{path} of server {server} is gone ({error.strerror})",
                "restart the server; name a folder that nothing tidies up",
            )
        ]
    if not stat.S_ISDIR(seen.st_mode):
        return [
            problem(_AREA, f"{path} is no directory", "remove what is there, or name another with AppServer(run_dir=…)")
        ]
    found = list(_ownership(path, seen))
    if server is not None:
        found += _socket(path, server)
    return [*found, *_table(path, server), *_output(path)] or [ok(_AREA, path)]


def _ownership(path: str, seen: os.stat_result) -> Iterator[Finding]:
    if seen.st_mode & 0o077:
        yield problem(_AREA, f"others may enter {path} (mode {stat.S_IMODE(seen.st_mode):o})", f"chmod 700 {path}")
    elif os.geteuid() not in (0, seen.st_uid):
        yield problem(
            _AREA,
            f"{path} belongs to user {seen.st_uid}, you are {os.geteuid()}",
            "run server and doctor as the same user",
        )
    else:
        yield ok(_AREA, f"{path}, for its owner alone")


def _socket(path: str, server: int) -> Iterator[Finding]:
    name = os.path.join(path, "hub.sock")
    if os.path.exists(os.path.join(path, "port")):
        return  # it speaks TCP
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_KNOCK_TIMEOUT)
        try:
            sock.connect(name)
        except OSError as error:
            yield problem(
                _AREA,
                f"the socket of server {server} does not answer ({error.strerror or error}): its children cannot come back to it",
                "restart it with SIGHUP; name a folder that nothing tidies up with AppServer(run_dir=…)",
            )
        else:
            yield ok(_AREA, f"the socket of server {server} answers")


def _table(path: str, server: int | None) -> Iterator[Finding]:
    try:
        table = BeatTable.open(os.path.join(path, "beats"))
    except FileNotFoundError:
        if server is not None:
            yield problem(
                _AREA, "the table of heartbeats is gone: no child can start", "restart the server with SIGHUP"
            )
        return
    except (BeatTableError, OSError) as error:
        yield problem(
            _AREA, f"the table of heartbeats cannot be read: {error}", "restart the server; it makes a new one"
        )
        return
    with contextlib.closing(table):
        if table.boot_id != boot_id():
            yield note(_AREA, "it is from before the last boot; the next server takes it over")
            return
        yield from _who_beats(table, server)


def _who_beats(table: BeatTable, server: int | None) -> Iterator[Finding]:
    views = [table.read(slot) for slot in table.used()]
    living = [
        view for view in views if view.pid and is_alive(ProcessIdentity(view.pid, view.start_time, table.boot_id))
    ]
    if living:
        named = ", ".join(
            f"{view.instance_id} (pid {view.pid}{f', step {view.step}' if view.step else ''})" for view in living[:8]
        )
        yield (ok if server is not None else note)(_AREA, f"{len(living)} child(ren): {named}")
    pid, start_time, _ = table.watchdog()
    watched = pid and is_alive(ProcessIdentity(pid, start_time, table.boot_id))
    if watched:
        yield (ok if server is not None else note)(_AREA, f"watchdog {pid} looks at them")
    elif server is not None:
        yield problem(
            _AREA,
            "no watchdog looks at the children",
            "the server replaces one that died within two seconds; else look at its log",
        )


def _output(path: str) -> Iterator[Finding]:
    size = 0
    with contextlib.suppress(OSError), os.scandir(os.path.join(path, "out")) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                size += entry.stat().st_blocks * 512
    if size > _MUCH_OUTPUT:
        yield problem(
            _AREA,
            f"what children print takes {size >> 20} MiB in {path}/out",
            "see `paddock logs` for who prints so much",
        )
