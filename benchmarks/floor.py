"""The floor: what a process for each piece of work costs on this machine before anybody's runtime has done a thing.

A warm process with one thread and nothing of ours in it forks; the child opens SQLite in WAL mode, commits ten rows, each in a
transaction of its own, and exits. `Floor` is the benchmark's side of it, `python floor.py` the warm process: it reads one order a line
and answers with one line, both JSON.

Somebody else holds the database open meanwhile, as a server does: the last connection to close would move the WAL into the database and
remove it, and the floor would pay for a clean-up that is not its own.
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import aiosqlite

ROWS = 10
LIBRARIES = ("sqlite3", "aiosqlite")
SYNCHRONOUS = ("FULL", "NORMAL")
_PATIENCE = 30.0  # seconds; SQLite's own way of waiting for the write lock is unfair, and must not fail a run


class Floor(AbstractContextManager["Floor"]):
    """A warm process, and one database for each way of writing."""

    def __init__(self, folder: Path) -> None:
        self._paths = {synchronous: str(folder / f"floor-{synchronous}.db") for synchronous in SYNCHRONOUS}
        self._holders = [_hold(path) for path in self._paths.values()]
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, library: str, synchronous: str, *, rows: int = ROWS, count: int = 1, in_flight: int = 1) -> float:
        """Fork `count` children, at most `in_flight` at once, and return the seconds from the first fork to the last one's end."""
        order = {"database": self._paths[synchronous], "library": library, "synchronous": synchronous, "rows": rows}
        return self._ask({**order, "count": count, "in_flight": in_flight})

    def _ask(self, order: dict[str, object]) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the floor's process died")
        return float(json.loads(answer))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        for holder in self._holders:
            holder.close()


def _hold(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY AUTOINCREMENT, fact TEXT)")
    return connection


# --- the warm process ---


def serve() -> None:
    """Answer orders until there are none."""
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(measure(order)), flush=True)


def measure(order: dict[str, object]) -> float:
    """Fork children and wait for them."""
    count, in_flight = int(str(order["count"])), int(str(order["in_flight"]))
    alive = 0
    begin = time.perf_counter()
    for number in range(count):
        if alive == in_flight:
            reap()
            alive -= 1
        if os.fork() == 0:
            live(number, order)
        alive += 1
    for _ in range(alive):
        reap()
    return time.perf_counter() - begin


def reap() -> None:
    _, status = os.wait()
    if status:
        raise RuntimeError(f"a child of the floor ended with {os.waitstatus_to_exitcode(status)}")


def live(number: int, order: dict[str, object]) -> None:
    """Be a child: write, and leave without a look back."""
    database, library, synchronous = (str(order[key]) for key in ("database", "library", "synchronous"))
    facts = [f"{number}/{row}" for row in range(int(str(order["rows"])))]
    code = 1
    try:
        if library == "sqlite3":
            with_sqlite3(database, synchronous, facts)
        else:
            asyncio.run(with_aiosqlite(database, synchronous, facts))
        code = 0
    finally:
        os._exit(code)


def with_sqlite3(database: str, synchronous: str, facts: list[str]) -> None:
    connection = sqlite3.connect(database, timeout=_PATIENCE)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    for fact in facts:
        connection.execute("INSERT INTO facts (fact) VALUES (?)", (fact,))
        connection.commit()
    connection.close()


async def with_aiosqlite(database: str, synchronous: str, facts: list[str]) -> None:
    async with aiosqlite.connect(database, timeout=_PATIENCE) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute(f"PRAGMA synchronous = {synchronous}")
        for fact in facts:
            await connection.execute("INSERT INTO facts (fact) VALUES (?)", (fact,))
            await connection.commit()


if __name__ == "__main__":
    serve()
