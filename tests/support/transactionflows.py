"""Flows that hold a write transaction of their own on Paddock's database while they make a durable call."""

import asyncio
import contextlib
import sqlite3

from paddock import Context, flow

KEPT = []
"""Connections that nobody closes."""


async def one():
    return 1


def writing(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


@flow("holds-locally")
async def holds_locally(path: str, ctx: Context):
    connection = writing(path)
    await ctx.step("a", one)
    connection.execute("COMMIT")


@flow("holds-for-ever")
async def holds_for_ever(path: str, ctx: Context):
    KEPT.append(writing(path))
    await ctx.step("a", one)


@flow("holds-core")
async def holds_core(ctx: Context):
    await ctx.core.db.execute("CREATE TABLE IF NOT EXISTS mine (a)")
    await ctx.core.db.execute("INSERT INTO mine VALUES (1)")
    await ctx.step("a", one)
    await ctx.core.db.commit()


@flow("holds-in-a-thread")
def holds_in_a_thread(path: str, ctx: Context):
    connection = writing(path)
    ctx.step("a", lambda: 1)
    connection.execute("COMMIT")


@flow("holds-in-a-handler")
async def holds_in_a_handler(path: str, ctx: Context):
    async def work(ctx: Context):
        connection = writing(path)
        await ctx.emit("told")
        connection.execute("COMMIT")

    await ctx.step("a", work, retry=5)


@flow("ends-it-after-all")
async def ends_it_after_all(path: str, ctx: Context):
    """Hold the lock in a task beside, which needs the loop to let it go."""
    begun = asyncio.Event()

    async def beside():
        with contextlib.closing(writing(path)) as connection:
            begun.set()
            await asyncio.sleep(0.4)
            connection.execute("COMMIT")

    task = asyncio.create_task(beside())
    await begun.wait()
    found = await ctx.step("a", one)
    await task
    return found


@flow("holds-inline", isolated=False)
async def holds_inline(path: str, ctx: Context):
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        await ctx.step("a", one)
