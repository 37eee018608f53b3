"""The workflows of `pressure.py`. Children import them from here."""

import asyncio
import time

from paddock import Context, FlowContext, flow, workflow

STEPS = 50


async def stamp() -> float:
    """Return when this step began: it begins once the commit that tells so has returned."""
    return time.monotonic()


@flow("pressure-writer")
async def writer(ctx: FlowContext) -> list[float]:
    """Commit as often as it can, and return when each step began."""
    return [await ctx.step(f"step-{number}", stamp) for number in range(STEPS)]


async def until_told(ctx: Context) -> str:
    """Hold still, as a child that waits for something of its own."""
    await asyncio.sleep(120 if ctx.attempt == 1 else 0)
    return "done"


async def nothing() -> None:
    """Do nothing."""


@flow("pressure-long")
async def long(steps: int, ctx: FlowContext) -> None:
    """Take so many steps, and hold still at one more."""
    for number in range(steps):
        await ctx.step(f"step-{number}", nothing)
    await ctx.step("hold", until_told)


waiting = workflow("pressure-waiting").task("wait", until_told).build()
short = workflow("pressure-short").task("only", nothing).build()

ALL = (writer, waiting, short, long)
