"""The table through which children show life: a file of fixed slots that every process of ours maps.

A beat is one store into shared memory (0.2 µs), so it needs no socket, no lock and no living server, a busy or dead
server delays no verdict, and the table outlives them all. Beats must not travel through the database either: a
stopped holder of its write lock would silence everybody.

Who writes what: the server claims and releases slots; the fork server assigns a process to a slot and records its
exit; the child beats, and notes up to which event the disk has its commits (`ON_DISK`), for which the server says in the header how long it will
go on looking; the watchdog sets the verdict; whoever wants to see a child's stacks counts up `STACKS_ASKED`, and the child says up to which
count it has written them (`STACKS_WRITTEN`).
Every number is one aligned 64-bit store through a cast memoryview, so no reader sees half of one. A reader that sees a
text while it is written takes it again (`TEXT_SEQUENCE` is odd meanwhile). `claim` clears a slot, and `pid` is assigned
last, so a slot with a pid is whole.

The file is allocated in full when it is created: a hole in it would be a SIGBUS in every process once the disk is full.

Careful with forks: Python's `mmap` keeps a duplicate of the file's descriptor. A forked child that closes foreign
descriptors must open the table anew by its path and keep the inherited object alive and unclosed, or it closes a
number that is another file's by then.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time

from .identity import boot_id
from .slots import (
    CPU_LIMIT,
    EPOCH,
    EXIT_CODE,
    EXIT_RECORDED,
    ID_AT,
    ID_SIZE,
    LAST_BEAT,
    LOOP_BEATS,
    MAX_RSS,
    MEMORY_LIMIT,
    ON_DISK,
    PEAK_MEMORY,
    PID,
    PROGRESS,
    SIGNAL,
    STACKS_ASKED,
    STACKS_WRITTEN,
    START_TIME,
    STATE,
    STEP_AT,
    STEP_DEADLINE,
    STEP_SIZE,
    SYS_US,
    TEXT_SEQUENCE,
    THREAD_BEATS,
    USER_US,
    VERDICT,
    SlotView,
    Verdict,
    pack,
    signed,
    unsigned,
)

__all__ = ["BeatTable", "BeatTableError", "NoFreeSlot", "SlotView", "SlotWriter", "Verdict"]

_MAGIC = int.from_bytes(b"PADBEATS", "little")
_VERSION = 1
_WORD = 8
_SLOT_WORDS = 64
_SLOT_SIZE = _SLOT_WORDS * _WORD
_TEXT_TRIES = 8

# Words of the header, which takes the place of one slot. The boot id follows as text.
_H_MAGIC, _H_VERSION, _H_SLOTS, _H_SLOT_SIZE, _H_WATCHDOG_PID, _H_WATCHDOG_START, _H_WATCHDOG_BEATS = range(7)
_H_LOOKS_UNTIL, _H_LAST_UNTIL = 7, 16  # the boot id lies between them
_H_BOOT, _H_BOOT_SIZE = 64, 64


class BeatTableError(Exception):
    """The file is no beat table of this version. Remove it once no child that uses it lives."""


class NoFreeSlot(Exception):
    """Every slot is taken; the table is as large as `max_processes` allows."""


class SlotWriter:
    """The child's side of its slot. One thread beats for the threads, the loop's thread does the rest."""

    __slots__ = ("_bytes", "_words")

    def __init__(self, words: memoryview, data: memoryview) -> None:
        """Write through these two views of one slot: as 64-bit words, and as bytes."""
        self._words = words
        self._bytes = data

    def beat_thread(self) -> None:
        """Show that the process can run a thread."""
        words = self._words
        words[THREAD_BEATS] += 1
        words[LAST_BEAT] = time.monotonic_ns()

    def beat_loop(self) -> None:
        """Show that the event loop turns."""
        words = self._words
        words[LOOP_BEATS] += 1
        words[LAST_BEAT] = time.monotonic_ns()

    @property
    def stacks_asked(self) -> int:
        """Return how often somebody has asked for the stacks."""
        return self._words[STACKS_ASKED]

    def note_stacks_written(self, asked: int) -> None:
        """Say that the stacks are written whole for everybody who has asked up to this count."""
        self._words[STACKS_WRITTEN] = asked

    def bump_progress(self) -> None:
        """Show that something was committed."""
        self._words[PROGRESS] += 1

    def set_step(self, text: str, deadline_ns: int | None = None) -> None:
        """Name the step that runs, cut to 119 bytes.

        `deadline_ns` is when it must be over, in CLOCK_MONOTONIC nanoseconds; None or 0 for never.
        """
        words = self._words
        words[STEP_DEADLINE] = 0  # never the old deadline with the new name, nor the reverse
        words[TEXT_SEQUENCE] += 1
        packed = pack(text, STEP_SIZE)
        self._bytes[STEP_AT : STEP_AT + len(packed)] = packed
        words[TEXT_SEQUENCE] += 1
        words[STEP_DEADLINE] = deadline_ns or 0

    def clear_step(self) -> None:
        """Say that no step runs."""
        self.set_step("")

    def close(self) -> None:
        """Give the views back, so that the table can be closed; idempotent."""
        self._words.release()
        self._bytes.release()


class BeatTable:
    """The mapped table. One object per process; `close` it last, after every `SlotWriter`."""

    def __init__(self, mapping: mmap.mmap, path: str) -> None:
        """Wrap a mapping that was checked; use `create` or `open`."""
        self.path = path
        self._mapping = mapping
        self._bytes = memoryview(mapping)
        self._words = self._bytes.cast("Q")
        self.slots: int = self._words[_H_SLOTS]

    @classmethod
    def create(cls, path: str, slots: int = 1024) -> BeatTable:
        """Make a new table with free slots, 0600, and put it at the path in one step, in place of any older file.

        Raises:
            OSError: the disk is full, or the directory is not writable. Nothing is left behind.
        """
        size = (slots + 1) * _SLOT_SIZE
        draft = f"{path}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(descriptor, size)
            mapping = mmap.mmap(descriptor, size)
            with memoryview(mapping) as data, data.cast("Q") as words:
                words[_H_VERSION], words[_H_SLOTS], words[_H_SLOT_SIZE] = _VERSION, slots, _SLOT_SIZE
                packed = pack(boot_id(), _H_BOOT_SIZE - 1)
                data[_H_BOOT : _H_BOOT + len(packed)] = packed
                words[_H_MAGIC] = _MAGIC
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        finally:
            os.close(descriptor)
        return cls(mapping, path)

    @classmethod
    def open(cls, path: str) -> BeatTable:
        """Map an existing table.

        Raises:
            BeatTableError: the file is none.
            OSError: it is missing or not ours to write.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size < _SLOT_SIZE or size % _SLOT_SIZE:
                raise BeatTableError(f"{path} is no beat table: it has {size} bytes")
            mapping = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        with memoryview(mapping) as data, data.cast("Q") as words:
            header = (words[_H_MAGIC], words[_H_VERSION], words[_H_SLOT_SIZE], (words[_H_SLOTS] + 1) * _SLOT_SIZE)
        if header != (_MAGIC, _VERSION, _SLOT_SIZE, size):
            mapping.close()
            raise BeatTableError(f"{path} is no beat table of version {_VERSION}")
        return cls(mapping, path)

    def close(self) -> None:
        """Unmap the table; idempotent. Writers must be closed first."""
        self._words.release()
        self._bytes.release()
        self._mapping.close()

    @property
    def boot_id(self) -> str:
        """Return the boot in which the table was made; its processes are those of that boot."""
        return self._text(_H_BOOT)

    # --- slots ------------------------------------------------------------------------------------------------------

    def claim(self) -> int:
        """Take the first free slot, cleared. For the server alone, on one thread.

        Raises:
            NoFreeSlot: there is none.
        """
        for slot in range(self.slots):
            at = self._word(slot)
            if self._words[at + STATE] == 0:
                self._bytes[at * _WORD : at * _WORD + _SLOT_SIZE] = bytes(_SLOT_SIZE)
                self._words[at + STATE] = 1
                return slot
        raise NoFreeSlot(f"all {self.slots} slots of {self.path} are taken")

    def release(self, slot: int) -> None:
        """Free a slot whose process is known to be gone."""
        at = self._word(slot)
        self._words[at + PID] = 0  # the watchdog looks at no slot without a pid
        self._words[at + STATE] = 0

    def used(self) -> list[int]:
        """Return the numbers of all claimed slots."""
        return [slot for slot in range(self.slots) if self._words[self._word(slot) + STATE]]

    def assign(self, slot: int, *, pid: int, start_time: int, epoch: int, instance_id: str) -> None:
        """Name the process of a claimed slot. Leaves the beats: the child may beat before its parent comes to this."""
        at = self._word(slot)
        packed = pack(instance_id, ID_SIZE)
        self._bytes[at * _WORD + ID_AT : at * _WORD + ID_AT + len(packed)] = packed
        self._words[at + START_TIME] = start_time
        self._words[at + EPOCH] = epoch
        self._words[at + PID] = pid

    def writer(self, slot: int) -> SlotWriter:
        """Return the child's side of a slot."""
        at = self._word(slot)
        return SlotWriter(self._words[at : at + _SLOT_WORDS], self._bytes[at * _WORD : at * _WORD + _SLOT_SIZE])

    def read(self, slot: int) -> SlotView:
        """Return what a slot says now."""
        at = self._word(slot)
        step = self.step(slot)
        words = self._words[at : at + _SLOT_WORDS].tolist()
        verdict = words[VERDICT]
        return SlotView(
            slot=slot,
            used=words[STATE] != 0,
            pid=words[PID],
            start_time=words[START_TIME],
            epoch=words[EPOCH],
            instance_id=self._text(at * _WORD + ID_AT),
            thread_beats=words[THREAD_BEATS],
            loop_beats=words[LOOP_BEATS],
            progress=words[PROGRESS],
            step=step,
            step_deadline_ns=words[STEP_DEADLINE],
            last_beat_ns=words[LAST_BEAT],
            verdict=Verdict(verdict) if verdict in Verdict._value2member_map_ else Verdict.NONE,
            exit_recorded=words[EXIT_RECORDED] != 0,
            exit_code=signed(words[EXIT_CODE]) if words[EXIT_RECORDED] else None,
            signal=signed(words[SIGNAL]) if words[EXIT_RECORDED] else None,
            max_rss=words[MAX_RSS],
            user_us=words[USER_US],
            sys_us=words[SYS_US],
            memory_limit=words[MEMORY_LIMIT],
            peak_memory=words[PEAK_MEMORY],
            cpu_limit_us=words[CPU_LIMIT],
        )

    def step(self, slot: int) -> str:
        """Return the step that a slot's process is in, or an empty text."""
        at = self._word(slot)
        step = ""
        for _ in range(_TEXT_TRIES):
            before = self._words[at + TEXT_SEQUENCE]
            step = self._text(at * _WORD + STEP_AT)
            if before % 2 == 0 and before == self._words[at + TEXT_SEQUENCE]:
                break
        return step

    def progress(self, slot: int) -> int:
        """Return how often a slot's process has committed."""
        return self._words[self._word(slot) + PROGRESS]

    def limit(self, slot: int, *, memory: int, cpu_us: int) -> None:
        """Say what the process of a slot may use: bytes that its tree may hold, microseconds of CPU time; 0 for any."""
        at = self._word(slot)
        self._words[at + MEMORY_LIMIT] = memory
        self._words[at + CPU_LIMIT] = cpu_us

    def ask_for_stacks(self, slot: int) -> int:
        """Ask the process of a slot to write its stacks at its next beat; return what `stacks_written` comes to then."""
        at = self._word(slot) + STACKS_ASKED
        self._words[at] += 1
        return self._words[at]

    def stacks_written(self, slot: int) -> int:
        """Return up to which count of `ask_for_stacks` the stacks are written."""
        return self._words[self._word(slot) + STACKS_WRITTEN]

    def saw_memory(self, slot: int, size: int) -> None:
        """Note how many bytes a tree was seen to hold, where that is more than ever."""
        at = self._word(slot) + PEAK_MEMORY
        self._words[at] = max(size, self._words[at])

    def set_verdict(self, slot: int, verdict: Verdict) -> None:
        """Say why a process is about to be ended; `Verdict.NONE` takes it back."""
        self._words[self._word(slot) + VERDICT] = int(verdict)

    def record_exit(
        self,
        slot: int,
        *,
        exit_code: int | None,
        signal: int | None,
        max_rss: int = 0,
        user_us: int = 0,
        sys_us: int = 0,
    ) -> None:
        """Keep how a process ended, for a server that was not there to be told. Bytes and microseconds."""
        at = self._word(slot)
        self._words[at + EXIT_CODE] = unsigned(exit_code)
        self._words[at + SIGNAL] = unsigned(signal)
        self._words[at + MAX_RSS] = max_rss
        self._words[at + USER_US] = user_us
        self._words[at + SYS_US] = sys_us
        self._words[at + EXIT_RECORDED] = 1

    # --- how far the disk is ---------------------------------------------------------------------------------------

    def note_on_disk(self, slot: int, event_id: int) -> None:
        """Note up to which event the disk has what this slot's process has committed."""
        self._words[self._word(slot) + ON_DISK] = event_id

    def on_disk(self, slot: int) -> int:
        """Return what was noted last, 0 for nothing."""
        return self._words[self._word(slot) + ON_DISK]

    def promise_looks(self, seconds: float, *, crowded: bool = False) -> None:
        """Say that the server will go on looking for so long, and then once more; 0 for no promise.

        Who notes something and then reads the promise need not tell the server. Where it is `crowded` that holds for a process's last word too.
        """
        until = time.monotonic_ns() + int(seconds * 1e9) if seconds else 0
        self._words[_H_LOOKS_UNTIL] = until
        self._words[_H_LAST_UNTIL] = until if crowded else 0

    def looks_promised(self, *, last: bool = False) -> bool:
        """Tell whether the server will look by itself; `last` where a process asks that has nothing more to say."""
        return time.monotonic_ns() < self._words[_H_LAST_UNTIL if last else _H_LOOKS_UNTIL]

    # --- the watchdog's own life ------------------------------------------------------------------------------------

    def set_watchdog(self, pid: int, start_time: int) -> None:
        """Name the watchdog in charge; another one that finds itself replaced here ends."""
        self._words[_H_WATCHDOG_START] = start_time
        self._words[_H_WATCHDOG_PID] = pid

    def watchdog(self) -> tuple[int, int, int]:
        """Return pid and start time of the watchdog in charge (0 for none yet) and its count of rounds."""
        return self._words[_H_WATCHDOG_PID], self._words[_H_WATCHDOG_START], self._words[_H_WATCHDOG_BEATS]

    def beat_watchdog(self) -> None:
        """Count a round of the watchdog."""
        self._words[_H_WATCHDOG_BEATS] += 1

    def _word(self, slot: int) -> int:
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
        return (slot + 1) * _SLOT_WORDS

    def _text(self, at: int) -> str:
        length = self._bytes[at]
        return bytes(self._bytes[at + 1 : at + 1 + length]).decode("utf-8", "replace")


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = memoryview(bytes(size))  # macOS: written bytes are allocated too
    while zeros:
        zeros = zeros[os.write(descriptor, zeros) :]
