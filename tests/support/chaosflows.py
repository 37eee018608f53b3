"""Work for kill loops: graphs, flows and state classes that sleep, wait, poll, branch and start one another.

What each returns is a function of its input alone, however often its process dies: a value that a replay would lose or change shows in
the result. What handlers do stands in the ledger.
"""

import asyncio
import time
from typing import Any

from crashflows import everything
from ledger import noted
from pydantic import BaseModel

from paddock import Context, Retry, StateMachine, flow, state, workflow

__all__ = ["SIGNALLED", "WORK", "limited"]

AGAIN = Retry(max_attempts=3, interval="20ms")


class Parcel(BaseModel):
    number: int
    label: str


async def pack(n: int, ctx: Context) -> Parcel:
    with noted(ctx):
        await asyncio.sleep(0.02)
        return Parcel(number=n, label="ö" * n)


def weigh(parcel: Parcel, ctx: Context) -> int:
    """Work in a thread, for a while."""
    with noted(ctx):
        time.sleep(0.03)
        print(f"weighing {parcel.label}")
        return len(parcel.label) + parcel.number


async def stumble_once(ctx: Context) -> str:
    with noted(ctx):
        if ctx.attempt == 1:
            raise ConnectionError("not today")
        return "at last"


async def same(value: str, ctx: Context) -> str:
    with noted(ctx):
        return value


async def ready(_n: int, ctx: Context) -> str:
    with noted(ctx, uncounted=True):
        await asyncio.sleep(0.005)
        return "ready" if ctx.attempt >= 3 else ""


@flow("chaos-journey")
async def journey(n: int, ctx: Context) -> dict[str, Any]:
    """Go through steps, values of chance, branches, a poll, short and long sleeps, a stream."""
    parcel = await ctx.step("pack", pack, n)
    chance = str(ctx.uuid4())
    kept = await ctx.step("keep", same, chance)
    weights = await ctx.gather(
        *(ctx.step(f"weigh {i}", weigh, Parcel(number=i, label=parcel.label)) for i in range(3)),
        ctx.step("stumble", stumble_once, retry=AGAIN),
    )
    await ctx.sleep("a moment", "20ms")
    found = await ctx.poll("ready", ready, n, every="30ms", timeout="10min")
    for i in range(3):
        await ctx.stream({"chunk": i})
    await ctx.sleep("a while", "150ms")  # longer than `suspend_after`: without a process
    last = await ctx.step("pack", pack, n + 1)
    return {"weights": weights, "same": kept == chance, "found": found, "last": last.number}


@flow("chaos-plain")
def plain(n: int, ctx: Context) -> list[Any]:
    """Run as a plain function, whose steps are plain functions too."""
    total = 0
    for i in range(n):
        total += ctx.step("weigh", weigh, Parcel(number=i, label="x"))
    ctx.sleep("a while", "150ms")
    drawn = ctx.random()
    return [total, ctx.step("keep", same, str(drawn)) == str(drawn)]


@flow("chaos-leaf")
async def leaf(n: int, ctx: Context) -> int:
    """Be one of the family."""
    await ctx.sleep("a while", "120ms")
    return await ctx.step("weigh", weigh, Parcel(number=n, label="leaf"))


@flow("chaos-family")
async def parent(n: int, ctx: Context) -> list[int]:
    """Instances that start others, and wait for them without a process."""
    children = [await ctx.start(leaf, n + i) for i in range(2)]
    found = await ctx.wait_for(children)
    total = await ctx.step("sum", sum_up, found)
    return [*found, total]


async def sum_up(values: list[int], ctx: Context) -> int:
    with noted(ctx):
        return sum(values)


@flow("chaos-signalled")
async def signalled(n: int, ctx: Context) -> dict[str, Any]:
    """Wait for a person."""
    await ctx.step("pack", pack, n)
    said = await ctx.wait_event("go", dict[str, int])
    return {"said": said["n"], "packed": (await ctx.step("pack", pack, said["n"])).number}


async def take_step(at: int, ctx: Context) -> str:
    with noted(ctx):
        await asyncio.sleep(0.02)
        return f"step {at}"


class Walk(BaseModel):
    at: int
    steps: list[str] = []


class Walker(StateMachine[Walk], name="chaos-walker", start="walk"):
    """A state class that visits a state again and again, and waits at its end."""

    @state
    async def walk(self) -> Any:
        """Take a step, until there are none left."""
        self.data.steps.append(await self.action("step", take_step, self.data.at))
        self.data.at -= 1
        return self.walk if self.data.at > 0 else self.rest

    @state
    async def rest(self) -> Any:
        """Wait for a signal."""
        self.data.steps.append(f"said {(await self.wait_event('go', dict[str, int]))['n']}")


async def alone(n: int, ctx: Context) -> int:
    with noted(ctx):
        await asyncio.sleep(0.05)
        return n * n


limited = workflow("chaos-limited").task("first", alone).task("second", alone).build()

#: Each workflow, and the inputs that it gets.
WORK: dict[str, tuple[Any, list[Any]]] = {
    "everything": (everything, [{"n": n} for n in range(1, 5)]),
    "chaos-journey": (journey, [1, 2, 3, 4]),
    "chaos-plain": (plain, [1, 2, 3, 4]),
    "chaos-family": (parent, [1, 2, 3, 4]),
    "chaos-signalled": (signalled, [1, 2, 3, 4]),
    "chaos-walker": (Walker, [{"at": n} for n in range(1, 5)]),
    "chaos-limited": (limited, [1, 2, 3, 4]),
}
SIGNALLED = frozenset({"chaos-signalled", "chaos-walker"})
"""Those that wait for the signal `go` with {"n": their number}."""
