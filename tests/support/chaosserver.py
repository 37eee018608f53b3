"""A server for kill loops: `chaosserver.py FOLDER SETTINGS`, commands and answers as lines of JSON.

It has a subscriber that comes back: every event that it sees is a line of FOLDER/seen, and the next server's goes on after the last one.
"""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from chaosflows import WORK, leaf
from crashserver import pids, say

from paddock import AppServer, PaddockError, WatchdogConfig, WorkflowsConfig


def cursor(seen: Path) -> int:
    """Return the id of the last event that was seen; the tail of a line that a kill cut off is no event."""
    with contextlib.suppress(FileNotFoundError):
        text = seen.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(seen, len(whole))
        if whole:
            return int(whole.rstrip(b"\n").rpartition(b"\n")[2].split()[0])
    return 0


async def watch(server: AppServer, seen: Path) -> None:
    """Write down every event, in the order in which it comes."""
    events = server.events.subscribe(after=cursor(seen))
    descriptor = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        async for event in events:
            os.write(descriptor, f"{event.id} {event.name} {event.instance_id}\n".encode())
    finally:
        os.close(descriptor)


async def caught_up(server: AppServer, seen: Path) -> None:
    """Wait until the subscriber has seen what there is: nobody comes after it."""
    last = await server.events.history(limit=1, reverse=True)
    while last and cursor(seen) < last[0].id:
        await asyncio.sleep(0.01)


async def obey(server: AppServer, command: dict[str, Any]) -> None:
    """Do what is asked and answer; what is refused is an answer too."""
    do = command.pop("do")
    try:
        if do == "start":
            say(id=await server.workflows.start(command["name"], command["input"], id=command["id"]))
        elif do == "signal":
            await server.workflows.signal(command["id"], "go", {"n": command["n"]})
            say(id=command["id"])
        elif do == "cancel":
            say(done=await server.workflows.cancel(command["id"]))
    except PaddockError as error:
        say(refused=type(error).__name__, message=str(error))


async def main() -> None:
    """Serve until the other side closes."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    loop = asyncio.get_running_loop()
    server = AppServer(
        folder / "app.db",
        workflows=WorkflowsConfig(**settings["workflows"]),
        watchdog=WatchdogConfig(**settings["watchdog"]),
    )
    for definition, _ in WORK.values():
        server.workflows.register(definition)
    server.workflows.register(leaf)
    async with server:
        watching = asyncio.create_task(watch(server, folder / "seen"))
        say(pids=await pids(server))
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await obey(server, json.loads(line))
        await caught_up(server, folder / "seen")
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


if __name__ == "__main__":
    asyncio.run(main())
