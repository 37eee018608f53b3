"""What JSON cannot carry is refused where it comes in, with an error that names it; nothing else happens."""

import math
import re
from typing import Any

import pytest
from enginekit import Engine, an_engine
from pydantic import BaseModel

from paddock import PaddockError, Poll, Status, branch, workflow


class Reading(BaseModel):
    value: float | None


def circular():
    found: list[Any] = []
    found.append(found)
    return found


def deep():
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


_REFUSED = {
    "NaN": (lambda: {"a": [math.nan]}, "NaN or an infinity"),
    "infinity": (lambda: -math.inf, "NaN or an infinity"),
    "NaN in a model": (lambda: Reading(value=math.nan), "NaN or an infinity"),
    "bytes": (lambda: b"text", "bytes"),
    "bytes that are no text": (lambda: {"a": b"\xff"}, "JSON"),
    "a huge number": (lambda: 10**5000, "number out of range"),
    "colliding keys": (lambda: {1: "a", "1": "b"}, "keys that are the same"),
    "a lone surrogate": (lambda: "\ud800", "surrogates not allowed|can't encode"),
    "a lone surrogate as a key": (lambda: {"\ud800": 1}, "surrogates not allowed|can't encode"),
    "a circle": (circular, "[Cc]ircular"),
    "too deep": (deep, "depth|recursion"),
    "an object": (object, "object"),
    "a function": (lambda: print, "function"),
    "an iterator": (lambda: iter([1]), "iterator|unknown type"),
}
_TOO_LARGE = ("x" * 2000, "max_payload is 1,000")


@pytest.fixture
async def engine():
    async with an_engine(max_payload=1000) as made:
        yield made


@pytest.mark.parametrize("what", [*_REFUSED, "too large"])
@pytest.mark.parametrize("place", ["output", "input", "transform", "poll"])
async def test_a_step_that_makes_it_fails(engine: Engine, what, place):
    make, words = _REFUSED[what] if what in _REFUSED else (lambda: _TOO_LARGE[0], _TOO_LARGE[1])
    builder = workflow("w")
    if place == "output":
        builder.task("s", lambda: make())
    elif place == "input":
        builder.task("s", lambda value: 1, input=lambda prev: make())
    elif place == "transform":
        builder.pass_("s", transform=lambda ctx: make())
    else:
        builder.poll("s", lambda: Poll.done(make()))
    run = await engine.run(builder.build())
    assert run.error.type in ("NotSerializable", "PayloadTooLarge")
    assert run.error.step == "s"
    assert f"put of step 's' {'is' if what == 'too large' else ''}" in run.error.message
    assert re.search(words, run.error.message), run.error.message
    assert run.instance.step_results["s"].output is None


@pytest.mark.parametrize("what", [*_REFUSED, "too large"])
async def test_a_call_that_passes_it_raises_and_the_step_goes_on(engine: Engine, what):
    make = _REFUSED[what][0] if what in _REFUSED else lambda: _TOO_LARGE[0]
    caught = []

    async def work(ctx):
        for call in (lambda v: ctx.set_metadata("k", v), lambda v: ctx.emit("e", v), lambda v: ctx.stream(v)):
            try:
                await call(make())
            except PaddockError as error:
                caught.append(f"{type(error).__name__}: {error}")
        try:
            ctx.heartbeat(make())
        except PaddockError as error:
            caught.append(f"{type(error).__name__}: {error}")
        return "went on"

    run = await engine.run(workflow("w").task("s", work).build())
    assert run.output == "went on"
    assert len(caught) == 4
    assert all(text.startswith(("NotSerializable", "PayloadTooLarge")) for text in caught)
    assert ["metadata 'k'" in caught[0], "event 'e'" in caught[1], "chunk" in caught[2], "progress" in caught[3]] == [
        True
    ] * 4
    assert run.instance.metadata == {}
    assert "workflow.event" not in run.names()
    assert len(run.outcomes) == 1


@pytest.mark.parametrize("key", ["", "\ud800", 5, None, "x" * 1001, b"k"])
async def test_keys_and_names_that_nothing_can_hold(engine: Engine, key):
    caught = []

    async def work(ctx):
        for call in (ctx.set_metadata(key, 1), ctx.emit(key, 1)):
            try:
                await call
            except PaddockError as error:
                caught.append(type(error).__name__)
        return 1

    assert (await engine.run(workflow("w").task("s", work).build())).output == 1
    assert caught == ["InvalidInput", "InvalidInput"]


async def test_a_parallel_whose_output_is_too_large_fails(engine: Engine):
    branches = [branch(name).task("s", lambda: "x" * 600) for name in "ab"]
    run = await engine.run(workflow("w").parallel("p", branches).build())
    assert (run.error.type, run.error.step) == ("PayloadTooLarge", "p")


@pytest.mark.parametrize(
    "value", [0, "", None, [], {}, False, 10**30, -0.0, 1e308, "é🐎\u2028", {"": {"": []}}, [[[]]], "x" * 998]
)
async def test_what_json_can_carry_arrives_whole(engine: Engine, value):
    async def work(value, ctx):
        await ctx.set_metadata("k", value)
        await ctx.emit("e", value)
        return value

    run = await engine.run(workflow("w").task("s", work).task("t", lambda ctx: ctx.prev).build(), value, [None, 1])
    event = next(event for event in run.events if event.name == "workflow.event")
    found = [run.output, run.instance.metadata["k"], event.data["data"], run.instance.input]
    assert found == [value] * 4
    assert {type(item) for item in found} == {type(value)}


async def test_a_log_must_not_fail_its_handler(engine: Engine):
    def work(ctx):
        for make, _ in _REFUSED.values():
            ctx.log("info", "m", value=make() if make is not deep else [[]])
        ctx.log("warning", "\ud800 text")
        ctx.logger.info("x" * 200_000)
        return 1

    run = await engine.run(workflow("w").task("s", work).build())
    assert run.output == 1
    assert len(run.logs) == len(_REFUSED) + 2
    assert len(run.logs[-1].message) <= 64 * 1024


async def test_logs_are_scoped_and_repeat_nothing(engine: Engine):
    def first(ctx):
        ctx.logger.info("one", k=1)
        if ctx.attempt == 1:
            raise ValueError
        return 1

    def second(ctx):
        ctx.logger.bind(b=2).warning("two", c=3)
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            ctx.logger.exception("bad")
        return 2

    built = (
        workflow("w")
        .task("a", first, retry={"max_attempts": 2, "interval": "1h"})
        .sleep("nap", "1d")
        .task("b", second)
        .sleep("n2", "1d")
        .build()
    )
    run = await engine.run(built)
    assert run.instance.status is Status.COMPLETED
    assert len(run.outcomes) == 4
    found = [(log.level, log.message, log.step_name, log.attempt) for log in run.logs]
    assert found == [
        ("info", "one", "a", 1),
        ("info", "one", "a", 2),
        ("warning", "two", "b", 1),
        ("error", "bad", "b", 1),
    ]
    assert run.logs[2].data == {"b": 2, "c": 3}
    assert "ZeroDivisionError" in run.logs[3].data["exception"]
    assert {log.source for log in run.logs} == {"handler"}


async def test_a_flood_of_logs_is_cut_and_says_so_once(engine: Engine):
    def work(ctx):
        for number in range(60):
            ctx.logger.info("m", data="x" * 40_000, n=number)
        return 1

    run = await engine.run(workflow("w").task("s", work).build())
    assert run.output == 1
    assert sum(len(str(log.data)) for log in run.logs) < 1_500_000
    assert [log.message for log in run.logs if log.source == "runtime"] == [
        "the limit of this execution's log is reached; the rest is dropped"
    ]


async def test_a_level_that_is_none(engine: Engine):
    run = await engine.run(workflow("w").task("s", lambda ctx: ctx.log("loud", "x")).build())
    assert run.error.type == "ConfigError"
    assert "loud" in run.error.message
