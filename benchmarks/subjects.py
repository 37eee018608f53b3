"""The workflows that are measured. Children import them from here, as they would a user's."""

import asyncio

from paddock import Context, FlowContext, flow, workflow


async def work() -> dict[str, int]:
    """Do nothing, so that what is measured is the runtime's."""
    return {"row": 1}


async def hold(ctx: Context) -> str:
    """Hold still to be killed; go on in the next life."""
    if ctx.attempt == 1:
        await asyncio.sleep(60)
    return "alive"


def _chain(steps: int) -> workflow:
    chain = workflow(f"bench-{steps}")
    for number in range(1, steps + 1):
        chain = chain.task(f"step-{number}", work)
    return chain


one_step = _chain(1).build()
ten_steps = _chain(10).build()
five_hundred_steps = _chain(500).build()
killed = workflow("bench-killed").task("hold", hold).build()

sleeper = workflow("bench-sleeper").sleep("a month", "30d").build()


@flow("bench-nap")
async def nap(seconds: float, ctx: FlowContext) -> None:
    """Sleep for a while, without a process."""
    await ctx.sleep("nap", seconds)


ALL = (one_step, ten_steps, five_hundred_steps, killed)
