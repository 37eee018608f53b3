"""A server that a test can kill: `crashserver.py FOLDER SETTINGS`, commands and answers as lines of JSON."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from crashkit import Stage

from paddock import AppServer, PaddockError


def say(**facts: Any) -> None:
    """Answer."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def pids(server: AppServer) -> dict[str, int]:
    """Return the pids of the processes around the server."""
    return {row["instance_id"] or row["role"]: row["pid"] for row in await server.processes()}


async def obey(server: AppServer, command: dict[str, Any]) -> None:
    """Do what is asked and answer; what is refused is an answer too."""
    try:
        await do_it(server, command)
    except PaddockError as error:
        say(refused=type(error).__name__, message=str(error))


async def do_it(server: AppServer, command: dict[str, Any]) -> None:
    """Do what is asked and answer."""
    do = command.pop("do")
    if do == "start":
        say(id=await server.workflows.start(command.pop("name"), command.pop("input", None), **command))
    elif do == "try":
        try:
            say(id=await server.workflows.start(command.pop("name"), command.pop("input", None), **command))
        except PaddockError as error:
            say(error=type(error).__name__, message=str(error))
    elif do == "health":
        say(**(await server.health())["problems"])
    elif do == "wait":
        say(status=(await server.workflows.wait(command["id"], timeout=60)).status)
    elif do == "cancel":
        say(done=await server.workflows.cancel(command["id"]))
    elif do == "signal":
        await server.workflows.signal(command["id"], command["name"], command["payload"])
        say(id=command["id"])
    elif do == "pids":
        say(pids=await pids(server))


async def main() -> None:
    """Serve until the other side closes."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    loop = asyncio.get_running_loop()
    async with Stage(folder).server(**settings) as server:
        say(pids=await pids(server))
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await obey(server, json.loads(line))


if __name__ == "__main__":
    asyncio.run(main())
