"""Workflows that are traced: they say which span is the current one."""

from httpflows import greet
from opentelemetry import trace

from paddock import FlowContext, Retry, branch, flow, workflow


def where(_value: int) -> list[str]:
    context = trace.get_current_span().get_span_context()
    return [f"{context.trace_id:032x}", f"{context.span_id:016x}"]


class Tries:
    left = 1


async def unsteady(value: int) -> list[str]:
    if Tries.left:
        Tries.left -= 1
        raise ConnectionError("not yet")
    return where(value)


@flow("traced")
async def traced(value: int, ctx: FlowContext) -> list[list[str]]:
    first = await ctx.step("unsteady", unsteady, value, retry=Retry(max_attempts=2, interval="1ms"))
    await ctx.wait_event("go")
    second = await ctx.step("where", where, value)
    outside = where(value)
    await ctx.wait_for(await ctx.start(greet, "Ada"))
    return [first, second, outside]


parted = (
    workflow("parted")
    .parallel(
        "both",
        branches=[branch("left").task("one", where).build(), branch("right").task("two", where).build()],
        end=True,
    )
    .build()
)
