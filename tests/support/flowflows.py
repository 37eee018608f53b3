"""Workflows for the tests of flows: one little workflow written in the three styles, and flows that run in children."""

import asyncio
import os
from typing import Any

from pydantic import BaseModel

from paddock import Context, InvalidInput, Retry, StateMachine, StepFailed, action, flow, state, workflow


class Order(BaseModel):
    id: str
    qty: int = 1
    broken: bool = False


class Checked(BaseModel):
    order: Order
    total: int


class Verdict(BaseModel):
    ok: bool
    by: str = "nobody"


class Receipt(BaseModel):
    id: str
    how: str
    total: int
    left: int
    by: str


CALLS: list[str] = []
"""What handlers of this process have done."""


def validate(order: Order, ctx: Context) -> Checked:
    CALLS.append("validate")
    assert isinstance(order, Order)
    ctx.log("info", "checked", qty=order.qty)
    ctx.set_metadata("stage", "checked")
    return Checked(order=order, total=order.qty * 3)


async def reserve(checked: Checked, ctx: Context) -> Checked:
    CALLS.append("reserve")
    assert isinstance(checked, Checked)
    if ctx.attempt == 1:
        raise ConnectionError("the store is busy")
    return checked


def left() -> int:
    CALLS.append("left")
    return 0


async def ship(checked: Checked) -> str:
    CALLS.append("ship")
    if checked.order.broken:
        raise ValueError(f"{checked.order.id} is broken")
    return "shipped"


def refuse() -> str:
    CALLS.append("refuse")
    return "refused"


AGAIN = Retry(max_attempts=3, interval="2h")


# --- the step graph ---


async def ship_reserved(ctx: Context) -> str:
    return await ship(ctx.get_step_result("reserve", Checked))


def receipt(ctx: Context) -> dict[str, Any]:
    how = ctx.steps.get("ship") or ctx.steps["refuse"]
    checked = ctx.get_step_result("reserve", Checked)
    return {
        "id": checked.order.id,
        "how": how,
        "total": checked.total,
        "left": ctx.steps["left"],
        "by": ctx.steps["approve"].by,
    }


order_graph = (
    workflow("order-graph", input=Order)
    .task("validate", validate)
    .task("reserve", reserve, input=lambda prev: prev, retry=AGAIN)
    .task("left", left)
    .wait_event("approve", Verdict)
    .sleep("cool down", "1d")
    .choice("decide", choices=[(lambda ctx: ctx.get_step_result("approve", Verdict).ok, "ship")], default="refuse")
    .task("ship", ship_reserved, next="receipt")
    .task("refuse", refuse)
    .pass_("receipt", transform=receipt, end=True)
    .build()
)


# --- code first ---


@flow("order-flow")
async def order_flow(order: Order, ctx: Context) -> Receipt:
    checked = await ctx.step("validate", validate, order)
    checked = await ctx.step("reserve", reserve, checked, retry=AGAIN)
    rest = await ctx.step("left", left)
    verdict = await ctx.wait_event("approve", Verdict)
    await ctx.sleep("cool down", "1d")
    how = await ctx.step("ship", ship, checked) if verdict.ok else await ctx.step("refuse", refuse)
    return Receipt(id=order.id, how=how, total=checked.total, left=rest, by=verdict.by)


@flow("order-plain")
def order_plain(order: Order, ctx: Context) -> Receipt:
    checked = ctx.step("validate", validate, order)
    checked = ctx.step("reserve", reserve, checked, retry=AGAIN)
    rest = ctx.step("left", left)
    verdict = ctx.wait_event("approve", Verdict)
    ctx.sleep("cool down", "1d")
    how = ctx.step("ship", ship, checked) if verdict.ok else ctx.step("refuse", refuse)
    return Receipt(id=order.id, how=how, total=checked.total, left=rest, by=verdict.by)


# --- the state class ---


class OrderData(BaseModel):
    id: str
    qty: int = 1
    broken: bool = False
    checked: Checked | None = None
    verdict: Verdict | None = None
    receipt: Receipt | None = None
    left: int | None = None


class OrderMachine(StateMachine[OrderData], name="order-machine", start="check"):
    @state
    async def check(self):
        order = Order(id=self.data.id, qty=self.data.qty, broken=self.data.broken)
        checked = await self.action("validate", validate, order)
        self.data.checked = await self.action("reserve", reserve, checked, retry=AGAIN)
        self.data.left = await self.action("left", left)
        return self.ask

    @state
    async def ask(self):
        self.data.verdict = await self.wait_event("approve", Verdict)
        await self.sleep("1d", "cool down")
        return self.shipping if self.data.verdict.ok else self.refusing

    @state
    async def shipping(self):
        self._done(await self.action("ship", ship, self.data.checked))

    @state
    async def refusing(self):
        self._done(await self.action("refuse", refuse))

    def _done(self, how):
        checked = self.data.checked
        self.data.receipt = Receipt(
            id=checked.order.id, how=how, total=checked.total, left=self.data.left, by=self.data.verdict.by
        )


STYLES = {"graph": order_graph, "flow": order_flow, "plain": order_plain, "machine": OrderMachine}


# --- flows that run in children ---


@action("whereabouts")
def whereabouts(question: str) -> dict[str, Any]:
    return {"question": question, "pid": os.getpid()}


@flow("family-child")
async def family_child(x: int, ctx: Context) -> dict[str, Any]:
    await ctx.sleep("short nap", "1.2s")
    return {"x": x, "pid": os.getpid()}


async def talk(ctx: Context) -> int:
    for n in range(2):
        await ctx.stream({"n": n})
    return os.getpid()


def flaky(ctx: Context) -> int:
    if ctx.attempt < 2:
        raise ValueError("not yet")
    return ctx.attempt


def values(ctx) -> list[Any]:
    return [ctx.now().isoformat(), ctx.random(), str(ctx.uuid4()), ctx.rng.random()]


@flow("everything-flow")
async def everything_flow(name: str, ctx: Context) -> dict[str, Any]:
    before = values(ctx)
    first = await ctx.step("talk", talk)
    here = await ctx.run_action(whereabouts, "here")
    there = await ctx.run_action(whereabouts, "there", isolated=True)
    child = await ctx.start(family_child, 3)
    verdict = await ctx.interrupt("approve", Verdict)
    retried = await ctx.step("flaky", flaky, retry=Retry(max_attempts=2, interval="1.2s"))
    try:
        await ctx.step("broken", os.stat, "/nowhere/at/all")
    except StepFailed as error:
        caught = [error.type, error.attempts]
    await ctx.stream("last")
    found = await ctx.wait_for(child)
    return {
        "name": name,
        "before": before,
        "pids": [first, os.getpid()],
        "here": here,
        "there": there,
        "child": found,
        "by": verdict.by,
        "retried": retried,
        "caught": caught,
    }


def greeter(greeting: str):
    @action("greet-so")
    def greet_so(name: str) -> str:
        return f"{greeting}, {name}"

    return greet_so


@flow("greets-by-factory")
async def greets_by_factory(name: str, ctx: Context) -> list[str]:
    bonjour, hello = greeter("Bonjour"), greeter("Hello")
    here = [await ctx.run_action(one, name) for one in (bonjour, hello)]
    for made in (bonjour, hello):
        try:
            await ctx.run_action(made, name, isolated=True)
        except InvalidInput as error:
            here.append(str(error)[:39])
    return here


@flow("plain-child")
def plain_child(x: int, ctx: Context) -> list[Any]:
    a = ctx.step("double", lambda: x * 2)
    ctx.sleep("nap", "1.2s")
    b = ctx.gather(lambda: ctx.step("p", lambda: 1), lambda: ctx.step("q", lambda: 2))
    ctx.stream("chunk")
    return [a, b, ctx.wait_event("go", int)]


@flow("waits-forever")
async def waits_forever(ctx: Context) -> Any:
    await ctx.step("parent's child", lambda: None)
    return await ctx.wait_event("never")


@flow("waits-for-child")
async def waits_for_child(ctx: Context) -> Any:
    return await ctx.wait_for(await ctx.start(waits_forever))


@flow("ticks")
async def ticks(n: int, ctx: Context) -> int:
    return n


@flow("holds-on")
async def holds_on(path: str, ctx: Context) -> str:
    async def hold() -> str:
        while not os.path.exists(path):
            await asyncio.sleep(0.01)
        return "held"

    await ctx.step("hold", hold)
    return await ctx.step("after", lambda: "after")


class GuessData(BaseModel):
    answer: int = 7
    tries: int = 0
    names: list[str] = []


def pick() -> int:
    CALLS.append("pick")
    return 7


class Guess(StateMachine[GuessData], name="guess-game", start="begin"):
    """Guess a number."""

    @state
    async def begin(self):
        self.data.answer = await self.action("pick", pick)
        self.log("picked")
        return self.ask

    @state
    async def ask(self):
        guess = await self.wait_event("guess", int)
        self.data.tries += 1
        self.log("guessed", guess=guess)
        return self.won if guess == self.data.answer else self.ask

    @state
    async def won(self):
        self.log("won", tries=self.data.tries)


CHILDREN = (
    greets_by_factory,
    everything_flow,
    family_child,
    plain_child,
    waits_forever,
    waits_for_child,
    ticks,
    holds_on,
    Guess,
)


@flow("last-words")
async def last_words(ctx: Context) -> None:
    await ctx.step("speak", lambda: print("no newline", end=""))
