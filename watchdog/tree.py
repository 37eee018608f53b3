"""Find and end everything that an instance's process has started.

No single mark finds a whole tree. Parenthood is lost when a parent dies, the process group and the session when
somebody calls `setsid`, the environment's marker when a program is started with an empty one or forks without an
exec. So all three are followed, each from every member found: the children of a daemon that carries the marker are
members too.

Strangers: a start earlier than the root's rules a process out. The kernel gives a number to no new process while it is
somebody's pid, group or session (kernel/pid.c frees it with its last use), so where the root's pid belongs to a later
process now, no session or group of that number is the root's, and none is touched. A session whose leader is gone and
of which a member carries another instance's marker is not the root's either. What remains open: the pid was used again
by a stranger that led a session, died, and left members. To close it, end a tree before its root is reaped: a zombie
holds its number.

Ending: everything found is stopped first and searched again until nobody new shows up, because a stopped process
neither forks nor orphans anybody; then all of it is killed. A kill right away would cut the lines by which a child
forked meanwhile is found.

Some live for milliseconds: each generation leaves its session, forks the next and dies. A look through all of /proc takes longer than that and
sees one after the other as gone. But whoever loses its parent becomes a child of the root, which is a subreaper and stopped
by then, so the children of those who are stopped are asked for, again and again, until they have no new ones. A generation that was seen
only as it is dead shows that the line goes on: nobody reaps it while the root is stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .identity import ProcessHandle, ProcessIdentity, boot_id
from .procstat import ProcessStat, children_of, environ_entries, list_pids, read_stat

__all__ = ["end_tree", "find_tree", "marker_of"]

_GONE = frozenset("ZXx")
_STOPPED = frozenset("Tt")
_MARKER_NAME = b"PADDOCK_INSTANCE="
_FREEZE_ROUNDS = 5
_STILL_LOOKS = 3
_STILL_INTERVAL = 0.003
_STILL_DEADLINE = 2.0
_RESCAN_INTERVAL = 0.02
_ASK_INTERVAL = 0.05


@dataclass
class _Search:
    """What is known of one tree.

    It is kept from scan to scan: a member that is dead by now still names its session and its group.
    """

    root: ProcessIdentity
    marker: bytes | None
    seen: dict[int, int] = field(default_factory=dict)  # pid → start time of every member ever found
    groups: set[int] = field(default_factory=set)  # sessions and groups that only members can be in

    def scan(self) -> list[ProcessIdentity]:
        """Return the living members as of now."""
        if self.root.boot_id != boot_id():
            return []
        table = _process_table()
        excluded = _own_line(table)
        candidates = {
            pid: stat for pid, stat in table.items() if pid not in excluded and stat.start_time >= self.root.start_time
        }
        found = self._seeds(table, candidates)
        self._close(found, candidates)
        self.seen.update((pid, candidates[pid].start_time) for pid in found)
        return [
            ProcessIdentity(pid, candidates[pid].start_time, self.root.boot_id)
            for pid in sorted(found)
            if candidates[pid].state not in _GONE
        ]

    def _seeds(self, table: dict[int, ProcessStat], candidates: dict[int, ProcessStat]) -> set[int]:
        marked, foreign = self._marked(candidates)
        found = {
            pid
            for pid, start_time in self.seen.items()
            if pid in candidates and candidates[pid].start_time == start_time
        }
        found |= marked
        holder = table.get(self.root.pid)
        if holder is not None and holder.start_time == self.root.start_time:
            if self.root.pid in candidates:
                found.add(self.root.pid)  # a zombie too: its pid is still its own, so its group is
            self.groups.add(self.root.pid)
        elif holder is None and not any(
            self.root.pid in (candidates[pid].sid, candidates[pid].pgid) for pid in foreign
        ):
            self.groups.add(self.root.pid)
        else:
            self.groups.discard(self.root.pid)
        return found

    def _marked(self, candidates: dict[int, ProcessStat]) -> tuple[set[int], set[int]]:
        """Return who carries our marker, and who another instance's."""
        ours: set[int] = set()
        foreign: set[int] = set()
        if self.marker is None:
            return ours, foreign
        for pid in candidates:
            markers = [entry for entry in environ_entries(pid) if entry.startswith(_MARKER_NAME)]
            if self.marker in markers:
                ours.add(pid)
            elif markers:
                foreign.add(pid)
        return ours, foreign

    def _close(self, found: set[int], candidates: dict[int, ProcessStat]) -> None:
        """Add children and fellows of sessions and groups until nobody new turns up."""
        while True:
            # A member that leads a session or a group of its own has nobody but its descendants in it.
            self.groups |= {pid for pid in found if pid in (candidates[pid].sid, candidates[pid].pgid)}
            new = {
                pid
                for pid, stat in candidates.items()
                if pid not in found
                and (stat.sid in self.groups or stat.pgid in self.groups or _is_child(stat, found, candidates))
            }
            if not new:
                return
            found |= new


def _is_child(stat: ProcessStat, found: set[int], candidates: dict[int, ProcessStat]) -> bool:
    # A child that is older than its parent is a line read before and a line read after a pid changed hands.
    return stat.ppid in found and stat.start_time >= candidates[stat.ppid].start_time


def _process_table() -> dict[int, ProcessStat]:
    table: dict[int, ProcessStat] = {}
    for pid in list_pids():
        with contextlib.suppress(ProcessLookupError):
            table[pid] = read_stat(pid)
    return table


def _own_line(table: dict[int, ProcessStat]) -> set[int]:
    line: set[int] = {0, 1}
    pid = os.getpid()
    while pid not in line:
        line.add(pid)
        pid = table[pid].ppid if pid in table else 0
    return line


def marker_of(beats_path: str, instance_id: str, epoch: int) -> str:
    """Return the entry `PADDOCK_INSTANCE=<id>:<epoch>:<table>` that marks the programs of one execution.

    Users choose ids, and two servers on one machine may have an instance of the same id each: the beat table tells them apart.
    """
    table = hashlib.sha256(os.fsencode(beats_path)).hexdigest()[:12]
    return f"{os.fsdecode(_MARKER_NAME)}{instance_id}:{epoch}:{table}"


def find_tree(root: ProcessIdentity, *, marker: str | None = None) -> list[ProcessIdentity]:
    """Return all living members of an instance's tree, the root included while it lives.

    Args:
        root: the instance's process; it may be dead.
        marker: the entry that its programs have in their environment, see `marker_of`.

    Never returns the calling process, nor one of its ancestors.
    """
    return _Search(root, os.fsencode(marker) if marker is not None else None).scan()


def end_tree(
    root: ProcessIdentity,
    *,
    marker: str | None = None,
    grace: float = 0.0,
    deadline: float = 10.0,
    asked: Callable[[], None] = lambda: None,
) -> list[ProcessIdentity]:
    """End an instance's tree and return those that could not be ended. Blocks.

    With a grace, the root is asked first (SIGTERM; a stopped one is continued to hear it; then `asked` is called) and given `grace` seconds.
    Then all members are killed, until no scan finds one or `deadline` further seconds have passed. What sleeps in the
    kernel (state D) dies when it wakes, and is returned if that is later.
    """
    search = _Search(root, os.fsencode(marker) if marker is not None else None)
    search.scan()  # before anybody dies: the lines of descent are whole now
    if grace > 0:
        _ask(root, grace, asked)
    until = time.monotonic() + deadline
    members = _freeze(search)
    while members:
        _kill(members, until)
        members = search.scan()
        if not members or time.monotonic() >= until:
            break
        time.sleep(_RESCAN_INTERVAL)
    return members


def _ask(root: ProcessIdentity, grace: float, asked: Callable[[], None]) -> None:
    handle = ProcessHandle.open(root)
    if handle is None:
        return
    with handle, contextlib.suppress(PermissionError):
        handle.send_signal(signal.SIGTERM)
        asked()
        until = time.monotonic() + grace
        while True:
            with contextlib.suppress(ProcessLookupError):
                if read_stat(root.pid).state in _STOPPED:
                    handle.send_signal(signal.SIGCONT)  # a signal to a stopped process stays pending
            # Looked at again and again: a stop that was sent before takes effect when the kernel comes to it.
            left = until - time.monotonic()
            if left <= 0 or handle.wait(min(left, _ASK_INTERVAL)):
                return


def _freeze(search: _Search) -> list[ProcessIdentity]:
    members = search.scan()
    known: set[ProcessIdentity] = set()
    for _ in range(_FREEZE_ROUNDS):
        new = [member for member in members if member not in known]
        if not new:
            break
        for member in new:
            _send(member, signal.SIGSTOP)
        known.update(new)
        _hold_still(known, search.root)
        members = search.scan()
    return members


def _hold_still(known: set[ProcessIdentity], root: ProcessIdentity) -> None:
    """Stop the descendants of those who are stopped, and add them, until they have no new ones.

    One that was born and has died between two looks is a new one too: the next of its line may live.
    """
    still = 0
    dead: set[int] = set()
    until = time.monotonic() + _STILL_DEADLINE
    while still < _STILL_LOOKS and time.monotonic() < until:
        new, moved = _new_children(known, dead, root)
        for child in new:
            _send(child, signal.SIGSTOP)
        known.update(new)
        still = 0 if moved else still + 1
        if not moved:
            time.sleep(_STILL_INTERVAL)


def _new_children(
    known: set[ProcessIdentity], dead: set[int], root: ProcessIdentity
) -> tuple[list[ProcessIdentity], bool]:
    """Return the living children that are not known, and whether there was any, alive or not, that the last look has not seen.

    Adds to `dead` those who hold their number and are not to be stopped: their parents are, and reap nobody.
    """
    pids = {member.pid for member in known}
    found: list[ProcessIdentity] = []
    moved = False
    for parent in pids:
        for pid in children_of(parent):
            if pid in pids or pid in dead:
                continue
            moved = True
            with contextlib.suppress(ProcessLookupError):
                stat = read_stat(pid)
                # The pid may be another process by now: one that is no child of ours, or a stranger with an older start.
                if stat.ppid not in pids:
                    continue
                if stat.start_time >= root.start_time and stat.state not in _GONE:
                    found.append(ProcessIdentity(pid, stat.start_time, root.boot_id))
                else:
                    dead.add(pid)
    return found, moved


def _send(member: ProcessIdentity, number: int) -> None:
    handle = ProcessHandle.open(member)
    if handle is not None:
        with handle, contextlib.suppress(PermissionError):
            handle.send_signal(number)


def _kill(members: list[ProcessIdentity], until: float) -> None:
    for member in members:
        _send(member, signal.SIGKILL)
    for member in members:
        handle = ProcessHandle.open(member)
        if handle is not None:
            with handle:
                # Not for longer: one that cannot die must not hold up the search for the others.
                handle.wait(min(1.0, until - time.monotonic()))
    # A zombie that nobody has reaped is dead; whoever still lives is seen by the next scan.
