"""What a process does to become a child, before any code of a user's runs.

After a fork: default signal handlers and no wake-up descriptor, so that nobody else's loop is rung; a session of its own, so that a
terminal's signals and the parent's death pass it by; the subreaper's role, so that a grandchild that forks twice still belongs to its
tree; output into files, which neither block nor break when their reader dies; no descriptor of the parent's but its standard ones.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys

from ..base.libc import libc
from .spec import MARKER

__all__ = ["become_child", "become_subreaper", "catch_output", "die_with_parent", "mark", "name_process"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
#: Asked once, before any fork: the answer is made anew at each call, of sixty enum members.
_SIGNALS = frozenset(signal.valid_signals())


def become_subreaper() -> bool:
    """Adopt orphaned descendants (prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4); return whether the kernel can."""
    if not sys.platform.startswith("linux"):
        return False
    return int(libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


def die_with_parent(parent: int | None) -> bool:
    """Have the kernel kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG, Linux), or no more with None.

    Returns False when the parent was gone before: the kernel tells only of later deaths.
    """
    if sys.platform.startswith("linux"):
        libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if parent is not None else 0, 0, 0, 0)
    return parent is None or os.getppid() == parent


def catch_output(out_path: str, err_path: str) -> None:
    """Point stdout and stderr at files, and stdin at nothing.

    Files and not pipes: a pipe that nobody reads would block the handler (with the GIL held, if C code writes), and one whose reader
    has died would break it. `O_APPEND` lets grandchildren write to the same file.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:  # noqa: PLR2004  the standard descriptors
        os.close(null)
    for descriptor, path in ((1, out_path), (2, err_path)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                line_buffering=True
            )  # a file is block-buffered, and a crash would take the last lines along


def mark(marker: str) -> None:
    """Mark every program that this process will start as one of its instance's tree."""
    os.environ[MARKER] = marker


def name_process(name: str) -> None:
    """Set the name that ps(1) and top(1) show, of at most 15 bytes (prctl(2), PR_SET_NAME); Linux only."""
    if sys.platform.startswith("linux"):
        libc().prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def become_child(*, foreign: list[int]) -> None:
    """Turn a fresh fork into a child; `foreign` are descriptors of the parent's to close.

    `PR_SET_PDEATHSIG` is not used for a child at work: it is bound to the parent's thread and would end children that are to outlive
    their fork server. The lifeline is the connection to the server.
    """
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    with contextlib.suppress(PermissionError):  # already a leader: posix_spawn made the session
        os.setsid()
    become_subreaper()
    for descriptor in foreign:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    # no random.seed(): the random module sees to that itself after a fork
