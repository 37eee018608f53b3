"""The fork server: a clean, single-threaded process that has imported what children need, and forks one for each request.

No event loop, no database handle and no thread exists here when it forks: a lock held by a thread that is not copied would stay locked
for ever, and an inherited SQLite handle would commit into nothing. An audit after the warm-up says whether that is so; where imported
code has left threads behind, children get a fresh interpreter instead (`posix_spawn`), and the server warns with their names.

One child is forked ahead of its order while the machine has a core to spare (`standby.py`), so that a start need not wait for it.

It is the subreaper of its children's trees: what a dead child leaves behind becomes a child of this process, which it did not make, and
which therefore belongs to nobody alive; it is ended on sight. Without a server it makes no more children, stays for those that live
(they outlive a server for a while), and then ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from ...ipc.channel import Channel
from ...ipc.errors import IpcError
from ...ipc.messages import Boot, Exited, Fork, Forked, ForkFailed, Shutdown, Warm, Warmed
from ...watchdog.beats import BeatTable
from ...watchdog.identity import identify
from ...watchdog.procstat import children_of
from ...watchdog.tree import end_tree
from ..base.probes import reach, silence
from ..base.timeslice import forget_slices
from . import process as _warm
from .birth import become_child, become_subreaper, catch_output, mark, name_process
from .main_module import load_main
from .outfit import Outfit
from .rehearsal import Stage, build_schemas
from .spawn import spawn
from .spec import SERVICE_MANAGER, ChildSpec, Needs
from .standby import Standby, await_order, practise
from .threads import other_threads, thread_count

__all__ = ["main"]

_BOOT_TIMEOUT = 30.0
_SHORT_LIFE = 0.04
_LIVES = 10
_CORES = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Child:
    start_time: int
    instance_id: str
    epoch: int
    slot: int


class ForkServer:
    """Serve one channel until it ends."""

    def __init__(self, channel: Channel, boot: Boot) -> None:
        """Take over the server's import path and working directory."""
        self._channel: Channel | None = channel
        self._boot = boot
        self._children: dict[int, _Child] = {}
        self._table = BeatTable.open(boot.beats_path)
        self._main_loaded = False
        self._stage: Stage | None = None
        self._standby: Standby | None = None
        self._retired: set[int] = set()  # were a standby once, and are about to end
        self._warmed = False
        self._last_birth = 0.0
        with contextlib.suppress(OSError):
            os.chdir(boot.cwd)
        sys.path[:] = boot.sys_path
        sys.argv[:] = boot.argv
        self._bell, self._ringer = os.pipe()
        for descriptor in (self._bell, self._ringer):
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._ringer, warn_on_full_buffer=False)

    # --- warm-up ---

    def rehearse(self) -> None:
        """Do what children will do, before there is one."""
        with silence():
            self._stage = Stage(os.path.join(os.path.dirname(self._boot.beats_path), "rehearsal"))
            self._stage.play(_LIVES)

    def warm(self, modules: list[str]) -> None:
        """Import modules, look for threads they left, freeze what is there, and report."""
        failures: dict[str, str] = {}
        self._dismiss_standby()  # it has not imported these
        for name in modules:
            try:
                if name == "__main__":
                    self._load_main()
                else:
                    importlib.import_module(name)
            except BaseException as error:  # noqa: BLE001  a module may raise anything, SystemExit too
                failures[name] = "".join(traceback.format_exception_only(error)).strip()
        build_schemas()
        threads = other_threads()
        gc.collect()
        gc.freeze()  # what is here is shared for good: collections in children leave it alone
        self._warmed = bool(modules) or self._warmed
        self._send(Warmed(ok=not threads, threads=threads, failures=failures))

    def _load_main(self) -> None:
        if not self._main_loaded:
            self._main_loaded = True
            load_main(self._boot.main_path, self._boot.main_module)

    # --- the loop ---

    def run(self) -> None:
        """Serve requests and deaths until there is neither a server nor a child."""
        if self._channel is not None and not self._serve():  # what came together with the first message
            self._hang_up()
        while self._channel is not None or self._children:
            if self._channel is not None and self._channel.fileno() < 0:
                self._hang_up()  # the server went while something was told to it
                continue
            watched = [self._bell]
            if self._channel is not None:
                watched.append(self._channel.fileno())
            if self._standby is not None and not self._standby.ready:
                watched.append(self._standby.line.fileno())
            found, _, _ = select.select(watched, [], [], self._until_standby())
            if not found:
                self._make_standby()
            if self._bell in found:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._bell, 4096)
            if self._standby is not None and not self._standby.ready and self._standby.line.fileno() in found:
                self._standby.hear()
            if self._channel is not None and self._channel.fileno() in found and not self._serve():
                self._hang_up()
            self._reap()
        self._dismiss_standby()
        self._end_retired()

    def _hang_up(self) -> None:
        """Let go of a server that is gone: nobody will ask for a child."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._dismiss_standby()

    def _serve(self) -> bool:
        """Handle what has arrived; return whether the server is still there."""
        assert self._channel is not None  # noqa: S101
        try:
            messages = self._channel.receive()
        except (IpcError, OSError):
            return False
        for message in messages:
            if isinstance(message, Fork):
                self._fork(message)
            elif isinstance(message, Warm):
                self.warm(message.modules)
            elif isinstance(message, Shutdown):
                return False
        return True

    def _send(self, message: Warmed | Forked | ForkFailed | Exited) -> None:
        if self._channel is not None:
            with contextlib.suppress(IpcError, OSError):  # the end of file will tell
                self._channel.send(message)

    # --- births ---

    def _fork(self, order: Fork) -> None:
        reach("forkserver.request")
        try:
            pid = spawn(order, self._boot) if order.mode == "spawn" or thread_count() > 1 else self._copy(order)
            start_time = identify(pid).start_time
        except (OSError, ValueError) as error:
            self._send(ForkFailed(request_id=order.request_id, reason=f"{type(error).__name__}: {error}"))
            return
        self._last_birth = time.monotonic()
        self._children[pid] = _Child(start_time, order.instance_id, order.epoch, order.slot)
        view = self._table.read(order.slot)
        if (view.instance_id, view.epoch) == (
            order.instance_id,
            order.epoch,
        ):  # else its server is gone, and the slot another's
            self._table.assign(
                order.slot, pid=pid, start_time=start_time, epoch=order.epoch, instance_id=order.instance_id
            )
        reach("forkserver.forked")
        self._send(Forked(request_id=order.request_id, pid=pid, start_time=start_time))

    # --- the standby ---

    def _until_standby(self) -> float | None:
        """Return in how many seconds a child is to be forked ahead; None while none is.

        Not beside as many at work as there are cores, which have better things to do; and not while the last one may still be a short
        instance's: the rehearsal would take from it what it gives to the next.
        """
        if (
            self._standby is not None
            or not self._warmed
            or self._channel is None
            or len(self._children) >= _CORES
            or thread_count() > 1
        ):
            return None
        return max(0.0, self._last_birth + _SHORT_LIFE - time.monotonic()) if self._children else 0

    def _make_standby(self) -> None:
        ours, theirs = socket.socketpair()
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            self._warmed = False  # no process to spare; a start that needs one will tell
            return
        if pid == 0:
            outfit = Outfit(Needs.model_validate_json(self._boot.needs) if self._boot.needs is not None else None)
            self._be_child(lambda: await_order(theirs, me, self._stage, outfit), outfit, foreign=[ours.fileno()])
        theirs.close()
        self._standby = Standby(pid, ours)
        if self._stage is not None and self._stage.order is not None:
            practise(self._stage.order)

    def _dismiss_standby(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            standby.dismiss()
            self._retired.add(standby.pid)

    def _end_retired(self) -> None:
        """Be the last to go: a standby has the database open, which its server is about to close as the last one who has."""
        for pid in self._retired:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _copy(self, order: Fork) -> int:
        """Return the pid of a copy of this process that works on the order: the standby, or one that is forked now."""
        standby = self._standby
        if standby is not None and standby.ready:
            self._standby = None
            if standby.hand(order.spec):
                return standby.pid
            self._retired.add(standby.pid)
        pid = os.fork()
        if pid == 0:
            foreign = [standby.line.fileno()] if standby is not None else []
            self._be_child(lambda: ChildSpec.model_validate_json(order.spec), Outfit(), foreign=foreign)
        return pid

    def _be_child(self, ordered: Callable[[], ChildSpec | None], outfit: Outfit, *, foreign: list[int]) -> NoReturn:
        """Work on an order in a fresh fork; it never comes back from here."""
        code = 1
        try:
            foreign += [self._bell, self._ringer]
            if self._channel is not None:
                foreign.append(self._channel.fileno())
            become_child(foreign=foreign)
            spec = ordered()
            if spec is None:
                os._exit(0)
            name_process("paddock-child")
            mark(spec.marker)
            catch_output(*spec.outputs)
            code = _warm.run_child(spec, outfit)
        except BaseException:  # noqa: BLE001  nothing may come back into the fork server's code
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    # --- deaths ---

    def _reap(self) -> None:
        """Take in every death; a child's is reported, and what it left behind is ended."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            child = self._children.pop(pid, None)
            if child is None:
                self._note_idle_death(pid)
                continue
            self._end_orphans()
            code = os.waitstatus_to_exitcode(status)
            rss = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            exit_code, number = (code, None) if code >= 0 else (None, -code)
            reach("forkserver.reaped")
            view = self._table.read(child.slot)
            if (view.pid, view.start_time) == (
                pid,
                child.start_time,
            ):  # else it was settled already, and the slot is another's
                self._table.record_exit(
                    child.slot,
                    exit_code=exit_code,
                    signal=number,
                    max_rss=rss,
                    user_us=int(usage.ru_utime * 1e6),
                    sys_us=int(usage.ru_stime * 1e6),
                )
            self._send(
                Exited(
                    pid=pid,
                    start_time=child.start_time,
                    instance_id=child.instance_id,
                    epoch=child.epoch,
                    exit_code=exit_code,
                    signal=number,
                    max_rss=rss,
                    user_time=usage.ru_utime,
                    system_time=usage.ru_stime,
                    core=os.WCOREDUMP(status),
                )
            )
        self._end_orphans()

    def _note_idle_death(self, pid: int) -> None:
        if self._is_standby(pid):
            self._dismiss_standby()
            self._warmed = (
                False  # nothing of ours ends it; where something else does, children are forked at their orders
            )
        self._retired.discard(pid)

    def _is_standby(self, pid: int) -> bool:
        return self._standby is not None and self._standby.pid == pid

    def _end_orphans(self) -> None:
        """End children that were not made here: what dead instances left behind."""
        for pid in children_of(os.getpid()):
            if pid not in self._children and pid not in self._retired and not self._is_standby(pid):
                with contextlib.suppress(ProcessLookupError):
                    end_tree(identify(pid), deadline=1.0)


def main() -> None:
    """Take the channel that the server left at a descriptor, warm up, serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the whole group; the server decides
    become_subreaper()
    forget_slices()  # the server's short ones are not for children
    for name in SERVICE_MANAGER:
        os.environ.pop(name, None)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    first = channel.wait(_BOOT_TIMEOUT)
    if not first or not isinstance(first[0], Boot):
        sys.exit("the fork server is started by a server, not by hand")
    server = ForkServer(channel, first[0])
    channel.push_back(first[1:])
    if first[0].modules:  # children are copies of this process; where they are spawned nothing is shared
        server.rehearse()
    server.warm(first[0].modules)
    server.run()
    os._exit(0)


if __name__ == "__main__":
    main()
