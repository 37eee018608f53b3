"""A server that starts one instance after the other, and notes in the ledger what it was told: `powerserver.py FOLDER SETTINGS`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from ledger import write

from paddock import AppServer, Context, SqlitePragmas, WorkflowsConfig, flow

STEPS, AT_ONCE = 12, 6


@flow("counted")
async def counted(_input: Any, ctx: Context) -> int:
    """Note each step's beginning; one follows the other."""
    instance = ctx.instance.id

    async def begin(number: int) -> int:
        write("begun", instance=instance, number=number)
        return number

    for number in range(STEPS):
        await ctx.step(f"s{number}", lambda number=number: begin(number))
    return STEPS


def serving(folder: Path, database: str, synchronous: str) -> AppServer:
    """Return a server for it, whose run directory lies in a folder."""
    config = WorkflowsConfig(sqlite_pragmas=SqlitePragmas(synchronous=synchronous))
    server = AppServer(database, workflows=config, run_dir=folder / "run")
    server.workflows.register(counted)
    return server


async def main() -> None:
    """Serve until somebody ends it."""
    settings = json.loads(sys.argv[2])
    server = serving(Path(sys.argv[1]), settings["database"], settings["synchronous"])

    async def keep_starting() -> None:
        while True:
            await server.workflows.run(counted)

    async with server:
        server.events.on("*", lambda event: write("told", id=event.id, name=event.name))
        await asyncio.gather(*(keep_starting() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main())
