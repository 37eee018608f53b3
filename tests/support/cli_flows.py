"""Workflows that the tests of the command line run by name."""

import os
import time

from paddock import Context, workflow


def hello(name: str) -> str:
    print(f"greeting {name}")
    return f"Hello, {name}"


async def announce(name: str, ctx: Context) -> str:
    await ctx.emit("greeted", {"name": name})
    return name


def boom(name: str) -> str:
    raise ValueError(f"no such [name]: {name}")


def hang(marker: str) -> None:
    with open(marker, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    time.sleep(600)


greet = workflow("greet").task("announce", announce).task("hello", hello).build()
fails = workflow("fails").task("announce", announce).task("boom", boom).build()
hangs = workflow("hangs").task("hang", hang).build()
number = 3
