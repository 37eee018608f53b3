"""Workflows that tests call over HTTP."""

import asyncio
import enum
from typing import Any

from pydantic import BaseModel, Field

from paddock import Context, FlowContext, Plugin, Retry, StateMachine, branch, flow, state, workflow


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Line(BaseModel):
    sku: str
    count: int = Field(ge=1, le=100)


class Order(BaseModel):
    number: str
    size: Size = Size.SMALL
    lines: list[Line] = Field(default_factory=list)


class Receipt(BaseModel):
    number: str
    pieces: int


class Verdict(BaseModel):
    approved: bool
    reason: str | None = None


def is_large(ctx: Context) -> bool:
    return ctx.input.get("size") == "large"


def count(order: Order) -> int:
    return sum(line.count for line in order.lines)


order = (
    workflow("order")
    .describe("Counts the pieces of an order", tags=["shop"])
    .default_retry(max_attempts=2, interval="1ms")
    .task("count", count)
    .choice("how", choices=[(is_large, "both"), (lambda ctx: ctx.steps["count"] > 50, "both")], default="receipt")
    .parallel(
        "both",
        branches=[
            branch("left").pass_("one", result=1).build(),
            branch("right").sleep("nap", "1ms").pass_("two", result=2).build(),
        ],
        next="receipt",
    )
    .pass_("receipt", transform=lambda ctx: {"pieces": ctx.steps["count"]}, end=True)
    .build()
)


@flow("greet", tags=["toy"])
async def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"


@flow("chat")
async def chat(length: int, ctx: FlowContext) -> int:
    for number in range(length):
        await ctx.stream({"count": number})
        await asyncio.sleep(0)
    return length


@flow("approval")
async def approval(what: str, ctx: FlowContext) -> Verdict:
    await ctx.set_metadata("what", what)
    verdict = await ctx.interrupt("approve", Verdict, timeout="7d")
    await ctx.step("note", len, verdict.reason or "")
    return verdict


@flow("broken")
async def broken(value: int, ctx: FlowContext) -> None:
    await ctx.step("prepare", abs, value)
    raise RuntimeError(f"{value} is not what it was")


def refuse() -> None:
    raise ConnectionError("nobody answers")


@flow("errand")
async def errand(ctx: FlowContext) -> None:
    await ctx.step("call", refuse, retry=Retry(max_attempts=9, interval="1h"))


@flow("parent")
async def parent(name: str, ctx: FlowContext) -> str:
    return await ctx.wait_for(await ctx.start(greet, name))


@flow("drip")
async def drip(length: int, ctx: FlowContext) -> int:
    """Do many small steps, with a wait for the reader between them."""
    for number in range(length):
        await ctx.step("drop", abs, number)
        ctx.logger.info("dropped", number=number)
        await asyncio.sleep(0.002)
    return length


class Goodbye(Plugin[dict[str, Any]]):
    """Has the last word in each process, when the instance has ended already."""

    name = "goodbye"

    async def teardown(self) -> None:
        print("goodbye")


class Light(BaseModel):
    color: str = "red"
    changes: int = Field(default=0, ge=0)


class Lamp(StateMachine[Light], name="lamp", start="off"):
    """A lamp."""

    @state
    async def off(self):
        self.data.color = await self.wait_event("on", str)
        return self.on

    @state
    async def on(self):
        self.data.changes += 1
        again = await self.wait_event("again", bool)
        return self.off if again else None


ALL = (order, greet, chat, approval, broken, errand, parent, drip, Lamp)
