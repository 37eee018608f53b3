"""The Python stacks of a running child, which goes on undisturbed. The server is not needed: a process is found by its lease's row."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...watchdog.identity import ProcessHandle, ProcessIdentity, process_state
from ...watchdog.stacks import ask_or_take_stacks, trace_path_of
from ..base.errors import InvalidTransition, MachineError
from ..base.records import TERMINAL
from ..store import instances
from ..store.admission import Held, held
from ..store.transaction import Transaction

__all__ = ["Stacks", "holder", "stacks_of"]

_SIGNALLED = 0.5  # seconds that C code needs to answer a signal, at most


@dataclass(frozen=True, slots=True)
class Stacks:
    """What all threads of a process were doing, as text; the process's id with it."""

    pid: int
    text: str


def holder(tx: Transaction, instance_id: str) -> Held:
    """Return the lease under which an instance runs.

    Raises:
        InstanceNotFound: there is no such instance.
        InvalidTransition: it does not run, or within its server's process.
    """
    _, status = instances.find(tx, instance_id)
    found = next((one for one in held(tx) if one.id == instance_id), None)
    if found is None or status in TERMINAL:
        raise InvalidTransition(f"instance {instance_id} is {status.value}, so it has no process and no stack")
    if not found.isolated:
        raise InvalidTransition(
            f"instance {instance_id} runs inside its server's process, whose stacks cannot be taken from here"
        )
    return found


def stacks_of(found: Held, run_dir: str, timeout: float) -> Stacks:
    """Return the stacks of the process that holds a lease; blocks for up to `timeout` seconds.

    Raises:
        MachineError: it has only begun, is dead, or does not answer.
    """
    if found.pid is None or found.pid_start is None or found.boot_id is None:
        raise MachineError(f"the process of instance {found.id} is just being born; try again")
    identity = ProcessIdentity(found.pid, found.pid_start, found.boot_id)
    handle = ProcessHandle.open(identity)
    if handle is None:
        raise MachineError(
            f"process {found.pid} of instance {found.id} is dead; its server, or the next one, will see to it"
        )
    with handle:
        trace = trace_path_of(os.path.join(run_dir, "trace"), found.pid)
        text = ask_or_take_stacks(
            os.path.join(run_dir, "beats"),
            handle,
            identity,
            trace,
            state=process_state(found.pid)[0],
            patience=max(timeout / 2, timeout - _SIGNALLED),
            timeout=min(timeout, _SIGNALLED),
        )
    if text is None:
        raise MachineError(
            f"process {found.pid} of instance {found.id} wrote no stacks within {timeout:g} s; it may have just begun, or it hangs in the kernel"
        )
    return Stacks(found.pid, text)
