"""Bound how many processes one instance may have: a control group of its own (cgroups(7), the pids controller).

`RLIMIT_NPROC` is no help: it counts all processes of a user together, and does not bind root at all. A control group
counts what one instance has started, and a fork too many fails with EAGAIN, a step's error. Both versions are known:
in version 1 the pids hierarchy, in version 2 a group next to ours, or below it, where the controller is handed down
and this user may write. Whether that is so is tried out, for no list of permissions tells.

The instance's process makes its group and moves itself; the server removes it once the whole tree is gone.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os

from .errors import LimitNotEnforceable

__all__ = ["group_of", "groups_folder", "join", "remove"]

_SHORT = 12
_TRIES = 3
_left: dict[str, set[str]] = {}  # by server: groups that somebody was in when they were to go


@functools.cache
def groups_folder() -> str | None:
    """Return the folder in which this process may make groups that count processes; None where there is none."""
    return next((folder for folder in _candidates() if _works(folder)), None)


def _candidates() -> list[str]:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return []
    found: list[str] = []
    for number, controllers, path in lines:
        for mount in mounts:
            kind = mount[mount.index("-") + 1]
            root, point = mount[3], mount[4]
            folder = os.path.normpath(point + "/" + os.path.relpath(path, root)) if path.startswith(root) else point
            if "pids" in controllers.split(",") and kind == "cgroup" and "pids" in mount[-1].split(","):
                found.append(folder)
            elif number == "0" and kind == "cgroup2":
                found += [folder, *([os.path.dirname(folder)] if folder != point else [])]
    return found


def _works(folder: str) -> bool:
    """Try a group out. To move a process out of `folder` one must be allowed to write to its list too."""
    draft = f"{folder}/paddock-try-{os.getpid()}"
    try:
        os.mkdir(draft)
    except OSError:
        return False
    try:
        with open(f"{draft}/pids.max", "w", encoding="ascii") as file:
            file.write("max")
        return os.access(f"{draft}/cgroup.procs", os.W_OK) and os.access(f"{folder}/cgroup.procs", os.W_OK)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(draft)


def group_of(folder: str, beats_path: str, instance: int, epoch: int) -> str:
    """Return the path of an execution's group; the beat table tells servers apart."""
    server = hashlib.sha256(os.fsencode(beats_path)).hexdigest()[:_SHORT]
    return f"{folder}/paddock-{server}-{instance}-{epoch}"


def join(group: str, most: int) -> None:
    """Make a group of at most so many processes and threads, and move this process into it.

    Raises:
        LimitNotEnforceable: the machine does not let us.
    """
    for left in reversed(range(_TRIES)):
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(group)
            for name, value in (("pids.max", most), ("cgroup.procs", os.getpid())):
                with open(f"{group}/{name}", "w", encoding="ascii") as file:
                    file.write(str(value))
            return
        except OSError as error:
            # a server that has just come removed it, with all that were empty (`remove`): it is made again
            if left and error.errno in (errno.ENOENT, errno.ENODEV):
                continue
            raise LimitNotEnforceable(f"processes: {group}: {error.strerror}") from None


def remove(group: str) -> None:
    """Remove a group that is empty by now, and those of the same server that could not be removed before.

    One that another process of it is about to enter is empty too, and left alone; at the first call in a process all are tried, for an
    earlier server may have left some.
    """
    folder, name = os.path.split(group)
    prefix = "-".join(name.split("-")[:2]) + "-"
    if prefix not in _left:
        with contextlib.suppress(OSError):
            _left[prefix] = {other for other in os.listdir(folder) if other.startswith(prefix)}
    kept = set()
    for other in {name, *_left.get(prefix, ())}:
        try:
            os.rmdir(f"{folder}/{other}")
        except FileNotFoundError:
            continue
        except OSError:  # somebody is in it: another instance, or a zombie
            kept.add(other)
    _left[prefix] = kept
