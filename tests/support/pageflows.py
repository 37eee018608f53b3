"""Workflows for the page: every kind of form, every status, and text that would be markup if anybody let it."""

import ctypes
import threading
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from paddock import Context, FlowContext, Poll, Retry, StateMachine, branch, flow, state, workflow

MARKUP = "<img src=x onerror=\"document.title='taken'\"><b>bold</b>"


class Item(BaseModel):
    sku: str = Field(min_length=2)
    quantity: int = Field(1, ge=1, le=99)


class Address(BaseModel):
    city: str
    country: Literal["DE", "FR"] = "DE"


class Order(BaseModel):
    customer: str
    items: list[Item] = Field(min_length=1)
    ship_to: Address
    gift: bool = False
    weight: float | None = None


class Decision(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


class Verdict(BaseModel):
    decision: Decision
    comment: str = Field("", max_length=300)
    reviewers: list[str] = []


def validate(order: Order, ctx: Context) -> dict:
    ctx.log("info", f"an order of {order.customer}", items=len(order.items))
    return {"pieces": sum(item.quantity for item in order.items)}


def echo(value: object) -> object:
    return value


def arrived() -> Poll[str]:
    return Poll.done("there")


order = (
    workflow("order", input=Order)
    .describe("Asks a person about large orders")
    .task("validate", validate)
    .choice("size", choices=[(lambda ctx: ctx.steps["validate"]["pieces"] > 10, "approve")], default="ship")
    .wait_event("approve", Verdict)
    .parallel(
        "ship",
        branches=[branch("parcel").task("pack", echo).build(), branch("paper").task("print", echo).build()],
    )
    .poll("follow", arrived, interval="1s")
    .pass_("done", result={"shipped": True}, end=True)
    .build()
)


class Job(BaseModel):
    fail: bool = False


def work(job: Job) -> str:
    if job.fail:
        raise ValueError(f"this cannot work: {MARKUP}")
    return "worked"


fragile = workflow("fragile", input=Job).task("prepare", echo).task("work", work).build()


@flow("asker")
async def asker(name: str, ctx: FlowContext) -> str:
    """Asks a person."""
    await ctx.step("prepare", echo, name)
    verdict = await ctx.interrupt("verdict", Verdict, timeout="7d")
    return verdict.decision


@flow("napper")
async def napper(ctx: FlowContext) -> None:
    """Sleeps for a day."""
    await ctx.sleep("the day", "1d")


@flow("late", timeout="50ms")
async def late(ctx: FlowContext) -> None:
    """Never makes it in time."""
    await ctx.sleep("too long", "1h")


@flow("chatty")
async def chatty(ctx: FlowContext) -> None:
    """Do and say more than one page holds."""
    for number in range(100):
        await ctx.step(f"say {number}", echo, number)
    ctx.logger.info("now for the rest")
    for number in range(400):
        ctx.log("info", f"line {number}")


def refuse() -> None:
    raise ConnectionError("nobody answers")


patient = workflow("patient").task("call", refuse, retry=Retry(max_attempts=3, interval="1h")).build()


def hold(gate: str) -> str:
    while not Path(gate).exists():
        threading.Event().wait(0.05)
    return "released"


holder = workflow("holder").task("hold", hold).build()


def hang() -> None:
    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock and uses no CPU, as a deadlock in C does


stuck = workflow("stuck").task("hang", hang).build()


class Score(BaseModel):
    guesses: int = 0
    player: str | None = None

    @field_validator("guesses")
    @classmethod
    def _lucky(cls, value: int) -> int:
        if value == 13:
            raise ValueError("13 is nobody's luck")
        return value


class Game(StateMachine[Score], name="game", start="ask"):
    @state
    async def ask(self) -> object:
        self.data.guesses += 1
        return self.won if await self.wait_event("guess", int) == 4 else self.ask

    @state
    async def won(self) -> None:
        return None


ALL = (order, fragile, asker, napper, late, chatty, patient, stuck, Game)
