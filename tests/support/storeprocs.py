"""Programs on a database in processes of their own: `python -m storeprocs <what> <database> …`."""

import asyncio
import json
import os
import signal
import sys
import time

from paddock import ServerAlreadyRunning, SqlitePragmas
from paddock.runtime.store import turn as turns
from paddock.runtime.store.ops import Emitted, Lease
from paddock.runtime.store.sqlite import SqliteStore, real_path
from paddock.runtime.store.turn import LockFile

_PRAGMAS = SqlitePragmas(synchronous="NORMAL")


async def write(path: str, instance: str, epoch: str, commits: str) -> None:
    """Commit as fast as it goes; say when each commit began and ended."""
    store = SqliteStore(path, _PRAGMAS, reader=False)
    lease = Lease(int(instance), int(epoch))
    print("ready", flush=True)
    sys.stdin.readline()
    waits = []
    for number in range(int(commits)):
        start = time.monotonic()
        await store.commit(lease, [Emitted("e", {"pid": os.getpid(), "n": number})], 1.0)
        waits.append(time.monotonic() - start)
    store.close()
    print(json.dumps(waits), flush=True)


async def serve(path: str) -> None:
    """Hold the server's lock until killed, or say who does."""
    try:
        LockFile.of(real_path(path)).serve(os.getpid(), run_dir="/run/x")
    except ServerAlreadyRunning as error:
        print(json.dumps({"refused": error.pid, "message": str(error)}), flush=True)
        return
    print(json.dumps({"serving": os.getpid()}), flush=True)
    sys.stdin.readline()


async def hold(path: str) -> None:
    """Take the writers' turn and the write lock, and die with both by SIGKILL when told."""
    store = SqliteStore(path, _PRAGMAS, reader=False)

    def stand_still(tx):
        tx.execute("INSERT INTO paddock_schema VALUES (999)")
        print("holding", flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)

    await store._write(stand_still)


async def turn(path: str, log: str, name: str, patience: str) -> None:
    """Take one turn when told, and note who had it; who does not come for `patience` seconds counts as standing still."""
    turns._STANDS_STILL = float(patience)
    lock = LockFile.of(path)
    print("ready", flush=True)
    sys.stdin.readline()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with lock:
        os.write(descriptor, name.encode())
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run({"write": write, "serve": serve, "hold": hold, "turn": turn}[sys.argv[1]](*sys.argv[2:]))
