"""Ask a human: a flow that stops for an approval and goes on with the answer, days later if need be.

    python -m paddock.examples.approval
    python -m paddock.examples.approval --what "new chairs" --amount 1200

While it waits, the instance has no process. Nor does it need a server: this program stops its server before it asks you, and starts
another one to pass on what you said.
"""

import argparse
import asyncio
import os
import tempfile

from pydantic import BaseModel

from paddock import AppServer, FlowContext, InvalidSignal, WaitTimeout, flow


class Expense(BaseModel):
    """What somebody wants to spend."""

    what: str
    amount: int


class Verdict(BaseModel):
    """What the human says: an answer that does not fit is refused, and the flow waits on."""

    approved: bool
    by: str


def book(expense: Expense, by: str) -> str:
    """Book the expense."""
    return f"{expense.what} for {expense.amount}: booked, approved by {by}"


@flow("expense", description="Books an expense once a human has approved it.", tags=["human"])
async def expense_flow(expense: Expense, ctx: FlowContext) -> str:
    """Wait for a verdict and act on it."""
    try:
        verdict = await ctx.interrupt("approval", Verdict, timeout="7d")
    except WaitTimeout:
        return f"{expense.what}: nobody cared for a week"
    except Exception:  # noqa: BLE001  to show that it may stand here: a suspension is no Exception and passes
        return f"{expense.what}: something broke"
    if not verdict.approved:
        return f"{expense.what}: refused by {verdict.by}"
    text: str = await ctx.step("book", book, expense, verdict.by)
    return text


def open_server(database: str) -> AppServer:
    """Return a server on the database, with the flow."""
    server = AppServer(db=database)
    server.workflows.register(expense_flow)
    return server


def answer_to(expense: Expense) -> str:
    """Ask the human; the end of the input is a no."""
    print(f"Approve {expense.what!r} for {expense.amount}? [yes/no]", flush=True)
    try:
        return input().strip()
    except EOFError:
        return "no"


async def ask(expense: Expense) -> None:
    """Start the flow, ask the human while no server runs, pass the answer on."""
    with tempfile.TemporaryDirectory() as folder:
        database = os.path.join(folder, "expenses.db")
        async with open_server(database) as server:
            ident = await server.workflows.start(expense_flow, expense)
            async for event in server.events.subscribe("workflow.suspended", instance_id=ident, after=0):
                print(f"the flow is {event.data['status']}; its process has gone, and now the server goes too")
                break
        answer = answer_to(expense)
        async with open_server(database) as server:
            while True:
                try:
                    await server.workflows.signal(ident, "approval", {"approved": answer, "by": "you"})
                    break
                except InvalidSignal as error:  # nothing was kept; the flow still waits
                    print(f"refused: {error}")
                    answer = await asyncio.to_thread(answer_to, expense)
            print(await server.workflows.result(ident, timeout="1min"))


async def main() -> None:
    """Ask for one expense."""
    parser = argparse.ArgumentParser(prog="approval", description="A flow that waits for your approval.")
    parser.add_argument("--what", default="a parrot")
    parser.add_argument("--amount", type=int, default=120)
    options = parser.parse_args()
    await ask(Expense(what=options.what, amount=options.amount))


if __name__ == "__main__":
    asyncio.run(main())
