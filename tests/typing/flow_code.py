"""A user's flows and state classes, as a type checker reads them: what comes out of a step, a wait, a run has its type."""

from typing import Any, assert_type

from pydantic import BaseModel

import paddock.testing
from paddock import AppServer, Context, FlowContext, Retry, StateMachine, WorkflowsConfig, action, flow, state


class Page(BaseModel):
    """What is fetched."""

    words: list[str]


async def fetch(url: str, ctx: Context) -> Page:
    """Fetch: an async step."""
    return Page(words=[url, str(ctx.attempt)])


def count(page: Page) -> int:
    """Count: a plain step."""
    return len(page.words)


@action("translate", description="translates")
async def translate(text: str) -> str:
    """Translate: an async action."""
    return text


@action
def shout(text: str) -> str:
    """Shout: a plain action."""
    return text.upper()


@flow("read", timeout="1h", tags=["web"])
async def read(url: str, ctx: FlowContext) -> Page:
    """Read a page."""
    page = await ctx.step("fetch", fetch, url, retry=Retry(max_attempts=3, interval="1s"), timeout="10s")
    assert_type(page, Page)
    assert_type(await ctx.step("count", count, page), int)
    assert_type(await ctx.step("counted", count, page, output=str), str)
    assert_type(await ctx.run_action(translate, "a"), str)
    assert_type(await ctx.run_action(shout, "a", isolated=True, retry=2), str)
    assert_type(await ctx.run_action("translate", "a"), Any)
    assert_type(await ctx.wait_event("go", bool, timeout="7d"), bool)
    assert_type(await ctx.interrupt("verdict", Page), Page)
    assert_type(await ctx.interrupt("anything"), Any)
    return page


@flow("plain")
def plain(n: int) -> int:
    """Be a plain function."""
    return n


class Game(BaseModel):
    """The data of a game."""

    tries: int = 0


class Guess(StateMachine[Game], name="guess", start="ask", tags=["games"]):
    """A game."""

    @state
    async def ask(self) -> Any:
        """Count."""
        assert_type(self.data.tries, int)
        assert_type(await self.action("count", count, Page(words=[])), int)
        assert_type(await self.action("fetch", fetch, "x", retry=2), Page)
        guess = await self.wait_event("guess", int)
        assert_type(guess, int)
        return self.ask if guess else None


async def main() -> None:
    """Run them on a server, in memory, and alone."""
    config = WorkflowsConfig(suspend_after="100ms", max_payload="1MB")
    async with AppServer(db="app.db", workflows=config) as server:
        server.workflows.register(read)
        server.workflows.register(Guess, max_concurrent=1)
        server.workflows.register(shout)
        assert_type(await server.workflows.run(read, "x", timeout="1min"), Page)
        assert_type(await server.workflows.run(plain, 1), int)
        assert_type(await server.workflows.run(Guess, {"tries": 1}), Game)
        assert_type(await server.workflows.run("read", "x"), Any)
        await server.workflows.start(Guess, Game())
    async with paddock.testing.server(register=[read, Guess]) as memory:
        await memory.workflows.start(Guess)
    machine = Guess(Game(tries=1))
    machine.send("guess", 1)
    async for transition in machine.run(wait=False):
        assert_type(transition.target, str | None)
    machine.update_state({"tries": 0})
    assert_type(machine.waits_for, str | None)
