"""Stream while working, and start later: a counter that sends chunks, and a joke that is told with a delay.

    python -m paddock.examples.streaming
    python -m paddock.examples.streaming --count 10 --delay 1min

Chunks are durable and in order. Any number of readers may follow an instance, from its first chunk on, also long after it ended.
"""

import argparse
import asyncio
import os
import tempfile

from pydantic import BaseModel

from paddock import AppServer, FlowContext, flow


class Tick(BaseModel):
    """A chunk."""

    count: int


@flow("counter", description="Counts, and tells each number as it comes.", tags=["streaming"], stream=Tick)
async def counter(count: int, ctx: FlowContext) -> str:
    """Count with a pause before each number."""
    for number in range(count):
        await ctx.sleep("pause", "50ms")
        await ctx.stream(Tick(count=number))
    return f"counted to {count}"


def write_joke(subject: str, opening: str) -> str:
    """Write a joke. A model would do better."""
    return f"{opening} a {subject}? Because nobody else would."


@flow("joke", description="Tells a joke about something.", tags=["jokes"])
async def joke(subject: str, ctx: FlowContext) -> str:
    """Tell a joke; chance comes from the context, so a resume tells the same one."""
    opening = ctx.rng.choice(["Why did the chicken marry", "Why did the dentist call", "Why did the king dance with"])
    text: str = await ctx.step("write", write_joke, subject, opening)
    return text


async def count(server: AppServer, upto: int) -> None:
    """Run the counter with a reader, then read its chunks again from the beginning."""
    stream = server.workflows.stream(counter, upto)
    async for chunk in stream:
        print("chunk", chunk.count)
    print(await stream.result(timeout="1min"))
    again = [chunk.count async for chunk in server.workflows.follow(await stream.id())]
    print("read again:", again)


async def tell_later(server: AppServer, subject: str, delay: str) -> None:
    """Queue a joke for later: it is stored at once, and its process is born when its time has come."""
    ident = await server.workflows.start(joke, subject, delay=delay)
    instance = await server.workflows.get_instance(ident)
    if instance is not None and instance.wake_at is not None:
        left = (instance.wake_at - instance.created_at).total_seconds()
        print(
            f"the joke is {instance.status.value}, begins {left:.0f} s after it was ordered, output: {instance.output}"
        )
    print(await server.workflows.result(ident))


async def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(prog="streaming", description="A counter that streams, a joke that comes later.")
    parser.add_argument("--count", type=int, default=3, help="how far to count (default: 3)")
    parser.add_argument("--delay", default="1s", help="how long the joke waits, such as 10s (default: 1s)")
    parser.add_argument("--subject", default="banana", help="what the joke is about (default: banana)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with AppServer(db=os.path.join(folder, "streaming.db")) as server:
            server.workflows.register(counter)
            server.workflows.register(joke)
            await count(server, options.count)
            await tell_later(server, options.subject, options.delay)


if __name__ == "__main__":
    asyncio.run(main())
