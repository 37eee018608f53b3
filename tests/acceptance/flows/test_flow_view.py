"""What a flow sees of its own steps, and of an input that nobody gave."""

import pytest
from flowkit import ended, run
from pydantic import BaseModel

import paddock.testing
from paddock import Context, InvalidInput, WorkflowFailed, flow

# --- what the steps have come to ------------------------------------------------------------------------------------------


class Made(BaseModel):
    size: int = 1


async def make() -> Made:
    return Made(size=7)


async def look(ctx: Context):
    return [type(ctx.prev).__name__, sorted(ctx.steps), ctx.get_step_result("make", Made).size]


@flow("shows-inner")
async def shows_inner(n: int, ctx: Context) -> int:
    await ctx.step("make", lambda: n)
    return ctx.steps["make"] + ctx.steps["found"]


@flow("shows-steps")
async def shows_steps(ctx: Context):
    assert (ctx.prev, dict(ctx.steps), ctx.get_step_result("make")) == (None, {}, None)
    made = await ctx.step("make", make)
    made.size = 99  # what the code does to its own copy is nobody else's business
    seen = [ctx.steps["make"].size, await ctx.step("look", look)]
    await ctx.poll("found", lambda: 5)
    seen += [ctx.prev, await shows_inner(3), ctx.steps["make"].size, ctx.prev]
    await ctx.gather(ctx.step("a", give, 1), ctx.step("a", give, 2), ctx.step("b", give, 3))
    seen += [ctx.prev, ctx.steps["a"]]
    await ctx.sleep("night", "8h")
    await ctx.step("a", give, None)
    child = await ctx.start(shows_inner.name, 1)
    try:
        await ctx.wait_for(child)
    except WorkflowFailed:
        seen.append(ctx.prev)
    return [*seen, sorted(ctx.steps), ctx.steps["a"]]


def give(value):
    return value


async def test_a_flow_sees_what_its_steps_have_come_to_and_sees_it_again():
    report = await paddock.testing.crash_everywhere(shows_steps, also=[shows_inner])
    assert report, report.differences
    expected = [7, ["Made", ["make"], 7], 5, 8, 7, 8, [1, 2, 3], 2, None]
    assert report.outcome == [*expected, ["a", "b", "found", "look", "make", "shows-inner"], None]


@flow("shows-steps-in-a-thread")
def shows_steps_in_a_thread(ctx: Context):
    ctx.step("make", make)
    return [ctx.prev.size, ctx.steps["make"].size, ctx.get_step_result("make", dict)]


async def test_a_plain_function_sees_them_too():
    assert (await run(shows_steps_in_a_thread)).output == [7, 7, {"size": 7}]


# --- without an input -----------------------------------------------------------------------------------------------------


@flow("begins-with-three")
async def begins_with_three(n: int = 3) -> int:
    return n


@flow("begins-with-a-model")
async def begins_with_a_model(made: Made) -> int:
    return made.size


@flow("starts-others")
async def starts_others(ctx: Context):
    return await ctx.wait_for([await ctx.start(begins_with_three), await ctx.start("begins-with-a-model")])


async def test_what_is_not_given_has_its_default():
    async with paddock.testing.server(register=[begins_with_three, begins_with_a_model, starts_others]) as server:
        for name, default, output in (("begins-with-three", 3, 3), ("begins-with-a-model", {}, 1)):
            instance = await ended(server, await server.workflows.start(name))
            assert (instance.input, instance.output) == (default, output)
            (told,) = (one for one in server.workflows.describe() if one["name"] == name)
            assert told["input"]["default"] == default
        assert await server.workflows.run("begins-with-three", 0) == 0
        assert await server.workflows.run("starts-others") == [3, 1]
        with pytest.raises(InvalidInput):
            await server.workflows.start("begins-with-three", "many")
    assert await begins_with_three() == 3
