"""The workflows whose processes are killed while they are measured. Children import them from here, as they would a user's."""

import asyncio
import contextlib

from paddock import Context, workflow


async def hold(ctx: Context) -> str:
    """Hold still in the first life; go on in the next."""
    if ctx.attempt == 1:
        await asyncio.sleep(600)
    return "alive"


async def stay(ctx: Context) -> str:
    """Hold still in every life, and let nobody stop it."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


async def turn(ctx: Context) -> str:
    """Take a moment."""
    await asyncio.sleep(0.05)
    return "done"


held = workflow("recovery-held").task("hold", hold).build()
stubborn = workflow("recovery-stubborn").task("stay", stay).build()
queued = workflow("recovery-queued").task("turn", turn).build()

ALL = (held, stubborn, queued)
