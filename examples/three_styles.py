"""Lend a book, three times the same: as a graph of steps, as a function, as a class of states.

    python -m paddock.examples.three_styles

Find the book; if it is precious, wait for a librarian's permission; hand it out. The functions that do the work are shared. What
differs is who decides where it goes on: a drawing, a function's code, or the state that was just left. Journal, events, signals and
what survives a crash are the same for all three; the program prints them side by side.
"""

import asyncio
import os
import tempfile
from typing import Any

from pydantic import BaseModel

from paddock import AppServer, Context, FlowContext, Retry, StateMachine, flow, state, workflow

# What the work is about, and who does it: shared by all three.


class Request(BaseModel):
    """Who wants which book."""

    reader: str
    title: str


class Book(BaseModel):
    """A book that is there."""

    title: str
    shelf: int
    precious: bool


class Permission(BaseModel):
    """What a librarian says."""

    granted: bool
    by: str


class Loan(BaseModel):
    """How it ended."""

    reader: str
    book: Book
    handed_out: bool
    permitted_by: str | None = None


PRECIOUS = {"First Folio"}
TRIES = Retry(max_attempts=3, interval="50ms")


def find(request: Request, ctx: Context) -> Book:
    """Look the book up. The catalogue is slow to wake: the first try fails, and the retry policy tries again."""
    if ctx.attempt == 1:
        raise TimeoutError("the catalogue is still asleep")
    return Book(title=request.title, shelf=len(request.title) % 7, precious=request.title in PRECIOUS)


def lend(reader: str, book: Book, permission: Permission | None) -> Loan:
    """Hand the book out, or not."""
    granted = permission is None or permission.granted
    return Loan(reader=reader, book=book, handed_out=granted, permitted_by=permission.by if permission else None)


# 1. A graph: steps, and arrows between them. It can be checked and drawn before anything runs.


def lend_in_graph(ctx: Context) -> Loan:
    """Hand the book out: in a graph a handler finds what came before in its context."""
    return lend(ctx.input.reader, ctx.steps["find"], ctx.steps.get("permission"))


as_graph = (
    workflow("lend-graph", input=Request)
    .describe("Lend a book: a graph of steps.", tags=["library"])
    .task("find", find, retry=TRIES)
    .choice("precious?", choices=[(lambda ctx: ctx.steps["find"].precious, "permission")], default="lend")
    .wait_event("permission", Permission, timeout="7d")
    .task("lend", lend_in_graph)
    .build()
)


# 2. A flow: a function that asks for steps. It runs from the top each time, and finished steps answer from the journal.


@flow("lend-flow", description="Lend a book: a function.", tags=["library"])
async def as_flow(request: Request, ctx: FlowContext) -> Loan:
    """Lend a book."""
    book = await ctx.step("find", find, request, retry=TRIES)
    permission = await ctx.wait_event("permission", Permission, timeout="7d") if book.precious else None
    loan: Loan = await ctx.step("lend", lend, request.reader, book, permission)
    return loan


# 3. A state class: data that lives long, and states that name their successors. The data are saved at every change of state.


class Lending(BaseModel):
    """The data of one loan: the input is its beginning, the output its end."""

    reader: str
    title: str
    book: Book | None = None
    loan: Loan | None = None


class AsStates(StateMachine[Lending], name="lend-states", start="find", description="Lend a book: a class of states."):
    """Lend a book."""

    @state
    async def find(self) -> Any:
        """Look the book up."""
        request = Request(reader=self.data.reader, title=self.data.title)
        self.data.book = book = await self.action("find", find, request, retry=TRIES)
        return self.permission if book.precious else self.lend

    @state
    async def permission(self) -> Any:
        """Wait for the librarian."""
        permission = await self.wait_event("permission", Permission, timeout="7d")
        await self._lend(permission)

    @state
    async def lend(self) -> Any:
        """Hand out a book that needs no permission."""
        await self._lend(None)

    async def _lend(self, permission: Permission | None) -> None:
        self.data.loan = await self.action("lend", lend, self.data.reader, self.data.book, permission)


STYLES: dict[str, Any] = {"graph": as_graph, "flow": as_flow, "states": AsStates}


def loan_of(output: Any) -> Loan:
    """Return the loan in an output: that of a state class is all of its data."""
    return Loan.model_validate(output.loan if isinstance(output, Lending) else output)


async def main() -> None:
    """Lend a precious book and a plain one in each style, and print what the journals hold."""
    with tempfile.TemporaryDirectory() as folder:
        async with AppServer(db=os.path.join(folder, "library.db")) as server:
            for definition in STYLES.values():
                server.workflows.register(definition)
            for style, definition in STYLES.items():
                for title in ("First Folio", "Atlas"):
                    ident = await server.workflows.start(definition, {"reader": "Ada", "title": title})
                    if title in PRECIOUS:  # kept until the wait takes it, if it comes early
                        await server.workflows.signal(ident, "permission", Permission(granted=True, by="Bob"))
                    loan = loan_of(await server.workflows.result(ident, timeout="1min"))
                    instance = await server.workflows.wait(ident)
                    tries = max(step.attempts for step in instance.step_results.values())
                    print(f"{style:>6}  {title:<11}  handed out: {loan.handed_out}, permitted by {loan.permitted_by}")
                    print(f"{'':>6}  {tries} tries; journal: {', '.join(instance.step_results)}")


if __name__ == "__main__":
    asyncio.run(main())
