"""Wait for other flows: one that asks several others for a quote, each an instance of its own, and takes the best.

    python -m paddock.examples.waiting_for

The flow that waits has no process meanwhile; the end of the last quote brings it back. A start is journaled, so a crash in between
starts nothing twice. A quote that fails is an exception where it is waited for.
"""

import asyncio
import json
import os
import tempfile

from pydantic import BaseModel

from paddock import AppServer, ChildHandle, FlowContext, WorkflowFailed, flow


class Wanted(BaseModel):
    """What is to be printed, and who is asked."""

    pages: int
    printers: list[str]


class Quote(BaseModel):
    """One offer."""

    printer: str
    price: float


def calculate(printer: str, pages: int) -> Quote:
    """Make an offer: longer names have higher rents."""
    if printer == "Closed Press":
        raise ConnectionError("nobody answers the telephone")
    return Quote(printer=printer, price=round(pages * 0.05 * len(printer), 2))


@flow("quote", description="Asks one printer.")
async def quote(request: tuple[str, int], ctx: FlowContext) -> Quote:
    """Ask one printer; another process may take its time over it."""
    offer: Quote = await ctx.step("calculate", calculate, *request)
    return offer


@flow("best-quote", description="Asks all printers and takes the best offer.")
async def best_quote(wanted: Wanted, ctx: FlowContext) -> Quote:
    """Start all, wait for each."""
    started: list[ChildHandle] = [await ctx.start(quote, (printer, wanted.pages)) for printer in wanted.printers]
    offers: list[Quote] = []
    for printer, handle in zip(wanted.printers, started, strict=True):
        try:
            offers.append(await ctx.wait_for(handle))
        except WorkflowFailed as failed:
            ctx.logger.warning("no offer", printer=printer, reason=str(failed.error))
    return min(offers, key=lambda offer: offer.price)


async def main() -> None:
    """Ask three printers, one of which is closed."""
    with tempfile.TemporaryDirectory() as folder:
        async with AppServer(db=os.path.join(folder, "quotes.db")) as server:
            server.workflows.register(quote)
            server.workflows.register(best_quote)
            wanted = Wanted(pages=100, printers=["Aldus", "Closed Press", "Gutenberg"])
            ident = await server.workflows.start(best_quote, wanted)
            best = await server.workflows.result(ident, timeout="1min")
            print(best.model_dump_json())
            for instance in await server.workflows.get_instances("quote"):
                print(f"  {instance.input[0]:<12} {instance.status.value:<9} {json.dumps(instance.output)}")
            for record in await server.logs.query(instance_id=ident, level="warning"):
                print(f"  {record.message}: {record.data['printer']}")


if __name__ == "__main__":
    asyncio.run(main())
