"""A program with an embedded server, without HTTP, that the tests of the command line talk to: `cli_server.py DATABASE`."""

import asyncio
import os
import signal
import sys
import time

from pydantic import BaseModel

from paddock import AppServer, Context, StateMachine, WatchdogConfig, WorkflowsConfig, branch, flow, state, workflow


class Verdict(BaseModel):
    approved: bool


def hello(name: str) -> str:
    print(f"greeting {name}")
    return f"Hello, {name}"


def in_stock(ctx: Context) -> bool:
    return True


def ship(name: str) -> str:
    return "parcel"


def needs(path: str, ctx: Context) -> str:
    ctx.log("warning", "looking", path=path)
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    return "found"


def hang(marker: str) -> None:
    with open(marker, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    time.sleep(600)


order = (
    workflow("order")
    .task("hello", hello)
    .choice("check", choices=[(in_stock, "fulfill")], default="approve")
    .parallel("fulfill", branches=[branch("shipping").task("ship", ship).build()], next="approve")
    .wait_event("approve", Verdict)
    .pass_("done", transform=lambda ctx: {"approved": ctx.prev.approved}, end=True)
    .build()
)
needy = workflow("needy").task("hello", hello).task("needs", needs).build()
hangs = workflow("hangs").task("hang", hang).build()


@flow("nap")
async def nap(seconds: float, ctx: Context) -> str:
    await ctx.sleep("rest", seconds)
    return "rested"


class Data(BaseModel):
    answer: int = 3


class Game(StateMachine[Data], name="game", start="ask"):
    @state
    async def ask(self):
        guess = await self.wait_event("guess", int)
        return self.won if guess == self.data.answer else self.ask

    @state
    async def won(self):
        return None


async def main(database: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = AppServer(
        database,
        workflows=WorkflowsConfig(kill_grace="1s", orphan_grace="60s"),
        watchdog=WatchdogConfig(heartbeat_timeout="60s"),
    )
    for definition in (order, needy, hangs, nap, Game):
        server.workflows.register(definition)
    async with server:
        if not await server.workflows.get_schedules():
            await server.workflows.schedule("nap", cron="0 3 * * *", tz="Europe/Berlin", input=1.0, id="nightly")
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
