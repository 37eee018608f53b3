"""A crash at any commit of any graph changes neither the result nor the journal, and no acknowledged step runs again."""

import asyncio
from collections import Counter

import pytest
from enginekit import an_engine, crash_everywhere, result_of, twice
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from paddock import Poll, action, branch, workflow
from paddock.runtime.authoring.outline import signals_of
from paddock.runtime.base.records import TERMINAL

# --- graphs by hand -------------------------------------------------------------------------------------------------------


def _tasks():
    done = Counter()

    async def work(ctx):
        await ctx.set_metadata(f"m-{ctx.prev}", 1)
        await ctx.emit("x", {"at": ctx.prev})
        done[str(ctx.prev)] += 1
        return (ctx.prev or 0) + 1

    return workflow("w").task("a", work).task("b", work).task("c", work).build(), done


def _choice_pass_end():
    done = Counter()
    built = (
        workflow("w")
        .task("a", lambda: 3)
        .choice("which", [(lambda ctx: ctx.steps["a"] > 5, "big"), (lambda ctx: ctx.prev == 3, "small")], default="big")
        .pass_("big", result="big", next="fin")
        .pass_("small", transform=lambda ctx: {"got": ctx.prev})
        .pass_("bare")
        .end("fin")
        .build()
    )
    return built, done


def _retries():
    done, failed = Counter(), Counter()

    def flaky(ctx):
        failed["n"] += 1
        if failed["n"] < 3:
            raise ValueError("not yet")
        return "yes"

    return workflow("w").task("a", flaky, retry={"max_attempts": 50, "interval": "10s"}).task(
        "b", lambda ctx: ctx.prev
    ).build(), done


def _fails():
    def bad():
        raise KeyError("no")

    return workflow("w").task("a", lambda: 1).task("b", bad, retry={"max_attempts": 2, "interval": 0}).task(
        "c", lambda: 2
    ).build(), Counter()


def _parallel(on_error="fail-fast", inner_fails=False):
    done = Counter()

    async def work(ctx):
        done[ctx.instance.current_step] += 1
        return ctx.instance.current_step

    async def fail():
        raise ValueError("inner")

    inner = branch("deep").parallel("nest", [branch("x").task("s", work), branch("y").task("s", work).task("t", work)])
    if inner_fails:
        inner = inner.task("boom", fail)
    outer = [branch("left").task("s", work).task("t", work), inner, branch("idle").pass_("p", result=0)]
    return workflow("w").task("a", work).parallel("both", outer, on_error=on_error).task("z", work).task(
        "zz", work
    ).build(), done


def _poll_loop_sleep():
    done, checks = Counter(), Counter()

    def check(ctx):
        checks["n"] += 1
        return Poll.done(True) if ctx.attempt >= 3 else Poll.pending()

    def count(ctx):
        return (ctx.steps.get("count") or 0) + 1

    built = (
        workflow("w")
        .poll("p", check, interval="5s")
        .sleep("rest", "1h")
        .task("count", count)
        .loop("again", lambda ctx: ctx.steps["count"] < 3, "count", interval="30s")
        .task("last", lambda ctx: ctx.steps["count"])
        .build()
    )
    return built, done


def _loop_of_parallels():
    done = Counter()

    async def work(ctx):
        done[ctx.instance.current_step] += 1
        return (ctx.steps.get("sum") or 0) + 1

    built = (
        workflow("w")
        .parallel("p", [branch("x").task("s", work).task("t", work), branch("y").task("s", work)])
        .task("sum", work)
        .loop("again", lambda ctx: ctx.steps["sum"] < 3, "p")
        .end("fin")
        .build()
    )
    return built, done


_GRAPHS = {
    "tasks": _tasks,
    "choice, pass, end": _choice_pass_end,
    "a failure": _fails,
    "parallel": _parallel,
    "parallel, wait-all": lambda: _parallel("wait-all"),
    "a branch fails": lambda: _parallel(inner_fails=True),
    "a branch fails, wait-all": lambda: _parallel("wait-all", inner_fails=True),
    "a loop of parallels": _loop_of_parallels,
}


@pytest.mark.parametrize("graph", _GRAPHS)
async def test_a_crash_at_each_commit_changes_nothing(graph):
    assert await crash_everywhere(_GRAPHS[graph]) == []


@pytest.mark.parametrize("graph", [_retries, _poll_loop_sleep])
async def test_a_crash_at_each_commit_of_a_graph_that_counts(graph):
    """Handlers that count their own calls differ by the call that a crash repeats; the rest must not."""
    definition, _ = graph()
    async with an_engine() as engine:
        good = await engine.run(definition)
    for at in range(len(good.batches)):
        for after in (False, True):
            definition, done = graph()
            async with an_engine() as engine:
                bad = await engine.run(definition, None, [at], after=after)
            assert (bad.instance.status, bad.instance.output) == (good.instance.status, good.instance.output)
            assert list(bad.instance.step_results) == list(good.instance.step_results)
            assert twice(bad, done, f"{at} {after}") == []


# --- graphs by chance -----------------------------------------------------------------------------------------------------

_KINDS = [
    *("task", "task", "sync", "mapped", "flaky", "fails", "choice", "pass_", "parallel", "sleep", "poll", "loop"),
    *("wait_event", "child", "job"),
]
_NESTING = ("parallel", "loop")

_CHILD = (
    workflow("grandchild")
    .sleep("rest", "2h")
    .task("work", lambda value: [value], input=lambda prev, start: start)
    .build()
)


def _ill():
    raise KeyError("ill")


_ILL_CHILD = workflow("ill-child").sleep("rest", "1h").task("work", _ill).build()
_FAMILY = [_CHILD, _ILL_CHILD]


@action("random-graph-job")
def graph_job(value: list) -> list:
    return [*value, "job"]


def _engine():
    return an_engine(also=[*_FAMILY, graph_job.__paddock_definition__], answer=lambda name: {"signal": name})


@st.composite
def plans(draw, depth=2, width=4):
    """Draw a graph as data: a list of (kind, detail)."""
    plan = []
    for _ in range(draw(st.integers(1, width))):
        kind = draw(st.sampled_from(_KINDS if depth else [kind for kind in _KINDS if kind not in _NESTING]))
        detail = None
        if kind == "parallel":
            branches = draw(st.lists(plans(depth=depth - 1, width=2), min_size=1, max_size=3))
            detail = (draw(st.sampled_from(["fail-fast", "wait-all"])), branches)
        elif kind == "loop":
            detail = (draw(st.integers(1, 2)), draw(st.sampled_from([0, 60])), draw(plans(depth=depth - 1, width=2)))
        elif kind in ("flaky", "poll"):
            detail = draw(st.integers(1, 2))
        elif kind == "wait_event":
            detail = draw(st.sampled_from(["answered", "answered", "in vain"]))
        elif kind == "child":
            detail = draw(st.sampled_from(["grandchild", "grandchild", "ill-child"]))
        elif kind in ("choice", "sleep"):
            detail = draw(st.sampled_from([0, 0.5, 3600]))
        plan.append((kind, detail))
    return plan


class Steps:
    """Adds steps to a builder; every handler's work depends only on what the journal holds."""

    def __init__(self, builder, done):
        self.builder = builder
        self.done = done

    def finish(self, ctx, value):
        self.done[ctx.instance.current_step] += 1
        return value

    def task(self, name, _detail):
        async def work(ctx):
            await asyncio.sleep(0)
            return self.finish(ctx, [name, ctx.prev])

        self.builder.task(name, work)

    def sync(self, name, _detail):
        self.builder.task(name, lambda ctx: self.finish(ctx, {"name": name}))

    def mapped(self, name, _detail):
        async def work(input, ctx):
            await ctx.emit("e", input)
            return self.finish(ctx, input)

        self.builder.task(name, work, input=lambda prev, start: [prev, start])

    def flaky(self, name, detail):
        async def work(ctx):
            if ctx.attempt <= detail:
                raise ValueError("flaky")
            return self.finish(ctx, 1)

        self.builder.task(name, work, retry={"max_attempts": 9, "interval": 2})

    def fails(self, name, _detail):
        async def work():
            await asyncio.sleep(0)
            raise KeyError("bad")

        self.builder.task(name, work)

    def choice(self, name, detail):
        self.builder.choice(name, [(lambda ctx: bool(detail), f"{name}-a")], default=f"{name}-b")
        self.builder.pass_(f"{name}-a", result="a", next=f"{name}-z")
        self.builder.pass_(f"{name}-b", transform=lambda ctx: ["b", ctx.prev])
        self.builder.pass_(f"{name}-z")

    def pass_(self, name, _detail):
        self.builder.pass_(name, transform=lambda ctx: [ctx.prev])

    def sleep(self, name, detail):
        self.builder.sleep(name, detail)

    def poll(self, name, detail):
        async def check(ctx):
            return Poll.done("there") if ctx.attempt > detail else Poll.pending()

        self.builder.poll(name, check, interval=0.5)

    def loop(self, name, detail):
        times, interval, body = detail
        inside = f"{name}-in"
        self.builder.task(inside, lambda ctx: (ctx.steps.get(inside) or 0) + 1)
        self.all(body, f"{name}-")
        self.builder.loop(name, lambda ctx: ctx.steps[inside] <= times, inside, interval=interval)

    def wait_event(self, name, detail):
        self.builder.wait_event(name, dict, timeout="3h" if detail == "in vain" else None)

    def child(self, name, detail):
        self.builder.child(name, detail, input=lambda prev, start: [name, start])

    def job(self, name, _detail):
        self.builder.task(name, job="random-graph-job", input=lambda prev, start: [name])

    def parallel(self, name, detail):
        on_error, plans = detail
        branches = [build(plan, branch(f"br{n}"), self.done, f"{name}-{n}-") for n, plan in enumerate(plans)]
        self.builder.parallel(name, branches, on_error=on_error)

    def all(self, plan, prefix):
        for number, (kind, detail) in enumerate(plan):
            getattr(self, kind)(f"{prefix}{kind.strip('_')}{number}", detail)


def build(plan, builder, done, prefix=""):
    Steps(builder, done).all(plan, prefix)
    return builder.build()


def ends_badly(plan):
    """Tell whether some step of a plan fails: in a parallel with fail-fast it is a matter of time how far its siblings came."""
    return any(word in str(plan) for word in ("'fails'", "'in vain'", "'ill-child'"))


def made(plan):
    done = Counter()
    return build(plan, workflow("w"), done), done


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(
    plan=plans(),
    crashes=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    after=st.booleans(),
    early=st.booleans(),
)
@example(  # a wait in the way of nothing, too short to suspend for, when all that runs beside it is over
    plan=[
        *[("wait_event", "in vain"), ("sync", None), ("choice", 0)],
        ("parallel", ("fail-fast", [[("task", None), ("flaky", 2)], [("task", None)], [("poll", 2), ("poll", 2)]])),
    ],
    crashes=[5],
    after=True,
    early=True,
)
def test_crashes_at_random_change_nothing(plan, crashes, after, early):
    async def both():
        definition, _ = made(plan)
        signals = [one["name"] for one in signals_of(definition)] if early else []
        async with _engine() as engine:
            good = await engine.run(definition, {"in": 1}, signals=signals)
        definition, done = made(plan)
        async with _engine() as engine:
            bad = await engine.run(definition, {"in": 1}, crashes, after=after, signals=signals)
        note(f"commits: {len(good.batches)}")
        assert good.instance.status in TERMINAL
        if ends_badly(plan) and "fail-fast" in str(plan):
            # how far the siblings of a failure came is a matter of time
            assert bad.instance.status == good.instance.status
        else:
            assert result_of(bad) == result_of(good)
        assert twice(bad, done, "random", len(crashes)) == []

    asyncio.run(asyncio.wait_for(both(), 20))
