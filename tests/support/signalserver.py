"""A program that does nothing but serve: `signalserver.py FOLDER SETTINGS`; it says in lines of JSON what it does."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from crashkit import Stage

from paddock import AppServer


def say(**facts: Any) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps({**facts, "server": os.getpid()}) + "\n")
    sys.stdout.flush()


@asynccontextmanager
async def told(server: AppServer, instances: list[tuple[str, Any, str]]) -> AsyncIterator[None]:
    """Start what is to be started (the same id again starts nothing), and tell of it."""
    for name, payload, ident in instances:
        await server.workflows.start(name, payload, id=ident)
    say(said="up", pids={row["instance_id"] or row["role"]: row["pid"] for row in await server.processes()})
    yield
    say(said="leaving")


def main() -> None:
    """Serve until a signal."""
    settings = json.loads(sys.argv[2])
    instances = settings.pop("instances")
    server = Stage(Path(sys.argv[1])).server(**settings)
    server.serve(beside=lambda: told(server, instances))
    say(said="over")


if __name__ == "__main__":
    main()
