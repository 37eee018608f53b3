"""The workflows whose journals are kept in tests/histories.

They stand for users' code that does not change: do not touch one once a journal of it is recorded; add another beside it.
"""

from typing import Any

from pydantic import BaseModel

from paddock import Context, Poll, Retry, StateMachine, StepFailed, WaitTimeout, action, branch, flow, state, workflow

RAN: list[str] = []
"""The handlers that ran in this process."""


class Item(BaseModel):
    name: str
    size: int = 1


def make(name: str) -> Item:
    RAN.append("make")
    return Item(name=name)


def third(ctx: Context) -> int:
    RAN.append("third")
    if ctx.attempt < 3:
        raise ConnectionError("not yet")
    return 0


def broken() -> None:
    RAN.append("broken")
    raise ValueError("no")


@action("history-measure")
async def measure(item: Item) -> int:
    RAN.append("measure")
    return len(item.name)


@flow("history-child")
async def history_child(x: int, ctx: Context) -> int:
    await ctx.sleep("nap", "1h")
    return x * 2


@flow("history-inner")
async def history_inner(x: int, ctx: Context) -> int:
    return await ctx.step("half", lambda: x // 2)


@flow("history-flow")
async def history_flow(name: str, ctx: Context) -> dict[str, Any]:
    item = await ctx.step("make", make, name)
    drawn = [ctx.random(), ctx.now().isoformat(), str(ctx.uuid4()), ctx.rng.random(), ctx.patched("first")]
    await ctx.set_metadata("item", item.name)
    await ctx.emit("made", item)
    count = await ctx.step("third", third, retry=Retry(max_attempts=3, interval="1h"))
    size = await ctx.run_action(measure, item)
    try:
        await ctx.step("broken", broken)
    except StepFailed as error:
        caught = error.type
    await ctx.sleep("nap", "30d")
    twice = [await ctx.step("make", make, f"{name}{n}") for n in range(2)]
    found = await ctx.poll("found", lambda ctx: ctx.attempt > 2 and "it", every="1h")
    try:
        await ctx.gather(ctx.step("slow and broken", broken), ctx.sleep("long", "900d"))
    except StepFailed:
        pass
    try:
        await ctx.wait_event("never", timeout="1s")
    except WaitTimeout:
        pass
    approved = await ctx.interrupt("approve", Item)
    doubled = await ctx.wait_for(await ctx.start(history_child, size))
    many = await ctx.gather(ctx.sleep("a", "1h"), ctx.step("b", make, "b"), ctx.sleep("c", "2h"))
    isolated = await ctx.run_action(measure, approved, isolated=True)
    inner = await history_inner(9)
    await ctx.stream("chunk")
    await ctx.sleep("last nap", "1d")
    return {
        "drawn": drawn,
        "count": count,
        "size": size,
        "caught": caught,
        "twice": [one.name for one in twice],
        "found": found,
        "approved": approved.name,
        "doubled": doubled,
        "many": many[1].name,
        "isolated": isolated,
        "inner": inner,
    }


def poll_it(ctx: Context) -> Poll[str]:
    return Poll.done("it") if ctx.attempt > 2 else Poll.pending()


def note(ctx: Context) -> str:
    RAN.append("note")
    return ctx.attempt and "noted"


history_graph = (
    workflow("history-graph", input=Item)
    .task("make", make, input=lambda prev, item: item.name)
    .task("third", third, retry=Retry(max_attempts=3, interval="1h"))
    .parallel(
        "both",
        branches=[
            branch("left").task("one", note).sleep("nap", "2h").task("two", note).build(),
            branch("right").task("one", note).wait_event("approve", Item).build(),
        ],
    )
    .poll("found", poll_it, interval="1h", max_attempts=9)
    .choice("decide", choices=[(lambda ctx: ctx.steps["third"] == 0, "again")], default="give up")
    .task("again", note)
    .loop(
        "loop",
        lambda ctx: ctx.instance.step_results["again"].attempts and len(RAN) < 0,
        "again",
        interval="1h",
        max_iterations=3,
    )
    .child("child", history_child, input=lambda prev: 4)
    .task("job", job="history-measure", input=lambda prev: {"name": "abc"})
    .sleep("last nap", "1d")
    .pass_("sum", transform=lambda ctx: [ctx.steps["child"], ctx.steps["job"], ctx.steps["found"]], end=True)
    .pass_("give up", end=True)
    .build()
)


class HistoryData(BaseModel):
    rounds: int = 0
    items: list[Item] = []
    caught: str = ""


class HistoryMachine(StateMachine[HistoryData], name="history-machine", start="work"):
    @state
    async def work(self):
        self.data.items.append(await self.action("make", make, f"item {self.data.rounds}"))
        self.log("made")
        await self.sleep("1h")
        self.data.rounds += 1
        return self.work if self.data.rounds < 2 else self.ask

    @state
    async def ask(self):
        try:
            await self.action("broken", broken)
        except StepFailed as error:
            self.data.caught = error.type
        self.data.items.append(await self.wait_event("approve", Item))
        return self.rest

    @state
    async def rest(self):
        await self.sleep("1d")


RECORDED = {
    "flow": (history_flow, "bob"),
    "graph": (history_graph, {"name": "bob"}),
    "machine": (HistoryMachine, {}),
}
"""What `record.py` runs, by the name of its file."""

ALL = [history_flow, history_child, history_graph, HistoryMachine]
