"""How a graph is walked: what steps see of each other, branches, polls, loops, sleeps, events, commits."""

import asyncio

import pytest
from enginekit import EPOCH, Engine

from paddock import Context, Poll, Status, branch, workflow
from paddock.runtime.engine.executor import OutcomeKind
from paddock.runtime.store.admission import Death


def prev(ctx: Context):
    return ctx.prev


# --- what steps see ---------------------------------------------------------------------------------------------------


async def test_prev_and_steps(engine: Engine):
    built = (
        workflow("w")
        .task("a", lambda ctx: ["a", ctx.prev])
        .choice("c", [(lambda ctx: ctx.prev == ["a", None], "b")], default="z")
        .task("b", lambda ctx: ["b", ctx.prev, sorted(ctx.steps)])
        .sleep("nap", 0)
        .pass_("p", transform=lambda ctx: {"prev": ctx.prev, "a": ctx.steps["a"]})
        .pass_("bare")
        .task("t", prev)
        .end("z")
        .build()
    )
    run = await engine.run(built)
    b = ["b", ["a", None], ["a"]]  # a choice is transparent
    assert run.output == {"prev": b, "a": ["a", None]}
    steps = run.instance.step_results
    assert {key: steps[key].kind for key in steps} == {
        "a": "task", "c": "choice", "b": "task", "nap": "sleep", "p": "pass", "bare": "pass", "t": "task", "z": "end",
    }  # fmt: skip
    assert (steps["c"].output, steps["bare"].output, steps["z"].output) == ("b", run.output, run.output)


async def test_inside_branches_own_steps_come_first(engine: Engine):
    def look(ctx):
        return [ctx.prev, ctx.steps.get("a"), ctx.steps.get("x"), "mine" in ctx.steps]

    built = (
        workflow("w")
        .task("a", lambda: "outer a")
        .task("x", lambda: "outer x")
        .parallel(
            "p",
            [
                branch("one")
                .task("first", look)
                .task("a", lambda: "inner a")
                .task("look", look)
                .task("mine", lambda: 1),
                branch("two").task("look", look),
            ],
        )
        .task("after", look)
        .build()
    )
    run = await engine.run(built)
    results = {key: step.output for key, step in run.instance.step_results.items()}
    assert results["p/one/first"] == ["outer x", "outer a", "outer x", False]
    assert results["p/one/look"] == ["inner a", "inner a", "outer x", False]
    assert results["p/two/look"] == ["outer x", "outer a", "outer x", False]
    assert results["p"] == {"one": 1, "two": ["outer x", "outer a", "outer x", False]}
    assert results["after"] == [results["p"], "outer a", "outer x", False]


async def test_what_a_handler_does_to_its_values_is_its_own_affair(engine: Engine):
    """Else the first run would see what a replay does not."""

    def spoil(ctx):
        ctx.steps["a"]["n"] = "spoiled"
        ctx.prev["n"] = "spoiled"
        ctx.input["n"] = "spoiled"
        return {"n": 1}

    built = (
        workflow("w")
        .task("a", lambda: {"n": 1})
        .task("b", spoil)
        .task("c", spoil, input=lambda prev, start: start.update(n="spoiled"))
        .task("d", lambda ctx: [ctx.steps["a"], ctx.input])
        .build()
    )
    assert (await engine.run(built, {"n": 1})).output == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize(
    ("choices", "default", "expected"),
    [
        ([(lambda ctx: False, "x"), (lambda ctx: True, "y")], "z", "y"),
        ([(lambda ctx: True, "x"), (lambda ctx: 1 / 0, "y")], "z", "x"),
        ([(lambda ctx: 0, "x"), (lambda ctx: "", "y")], "z", "z"),
    ],
)
async def test_the_first_condition_that_holds(engine: Engine, choices, default, expected):
    builder = workflow("w").choice("c", choices, default=default)
    for name in "xyz":
        builder.pass_(name, result=name, end=True)
    assert (await engine.run(builder.build())).output == expected


async def test_a_condition_may_be_async(engine: Engine):
    async def holds(ctx):
        await asyncio.sleep(0)
        return True

    built = (
        workflow("w")
        .choice("c", [(holds, "x")], default="y")
        .pass_("x", result="x", end=True)
        .pass_("y", result="y")
        .build()
    )
    assert (await engine.run(built)).output == "x"


@pytest.mark.parametrize(
    ("builder", "kind", "step"),
    [
        (workflow("w").choice("c", [(lambda ctx: 1 / 0, "z")], default="z").end("z"), "ZeroDivisionError", "c"),
        (workflow("w").choice("c", [(lambda ctx: False, "z")]).end("z"), "InvalidWorkflow", "c"),
        (workflow("w").pass_("p", transform=lambda ctx: 1 / 0), "ZeroDivisionError", "p"),
        (workflow("w").pass_("p", transform=lambda ctx: object()), "NotSerializable", "p"),
        (workflow("w").task("t", lambda: 1).loop("l", lambda ctx: 1 / 0, "t"), "ZeroDivisionError", "l"),
        (workflow("w").poll("q", lambda: 1 / 0), "ZeroDivisionError", "q"),
        (workflow("w").poll("q", lambda: True), "InvalidWorkflow", "q"),
    ],
)
async def test_what_fails_names_its_step(engine: Engine, builder, kind, step):
    run = await engine.run(builder.build())
    assert (run.error.type, run.error.step) == (kind, step)
    assert run.instance.step_results[step].status == "failed"


# --- branches -----------------------------------------------------------------------------------------------------------


async def test_branches_run_side_by_side(engine: Engine):
    both = asyncio.Barrier(3)

    async def meet(ctx):
        await both.wait()
        return ctx.instance.current_step

    built = workflow("w").parallel("p", [branch(name).task("s", meet) for name in "abc"]).build()
    assert (await engine.run(built)).output == {"a": "p/a/s", "b": "p/b/s", "c": "p/c/s"}


def failing_branches(on_error):
    begun = asyncio.Event()
    stopped, later = [], []

    async def slow():
        begun.set()
        try:
            await asyncio.sleep(0 if on_error == "wait-all" else 60)
        except asyncio.CancelledError:
            stopped.append("slow")
            raise
        return "slow"

    async def fail(ctx):
        await begun.wait()
        raise ValueError(f"in {ctx.instance.current_step}")

    branches = [
        branch("slow").task("s", slow).task("later", lambda: later.append(1)),
        branch("bad").task("s", fail),
        branch("worse").task("s", fail),
        branch("quick").pass_("s", result=1),
    ]
    return workflow("w").parallel("p", branches, on_error=on_error).task("never", lambda: 1 / 0).build(), stopped, later


async def test_fail_fast_stops_the_others(engine: Engine):
    definition, stopped, later = failing_branches("fail-fast")
    run = await engine.run(definition)
    assert (run.error.type, run.error.step) == ("ValueError", "p/bad/s")
    assert "in p/bad/s" in run.error.message
    assert (stopped, later) == (["slow"], [])
    steps = run.instance.step_results
    assert {steps[key].status for key in ("p", "p/bad/s", "p/slow/s")} == {"failed"}
    assert steps["p/slow/s"].error.message
    assert "never" not in steps


async def test_wait_all_lets_the_others_end_and_tells_all_errors(engine: Engine):
    definition, stopped, later = failing_branches("wait-all")
    run = await engine.run(definition)
    assert (run.error.type, run.error.step) == ("ValueError", "p/bad/s")
    assert "in p/bad/s" in run.error.message
    assert "in p/worse/s" in run.error.message
    assert (stopped, later) == ([], [1])
    assert run.instance.step_results["p/slow/s"].status == "completed"


async def test_finished_branches_do_not_run_again(engine: Engine):
    calls = []

    async def work(ctx):
        calls.append(ctx.instance.current_step)
        return 1

    built = (
        workflow("w")
        .parallel(
            "p",
            [branch("a").task("s", work), branch("b").sleep("nap", "1h").task("s", work), branch("c").task("s", work)],
        )
        .build()
    )
    run = await engine.run(built, None, [None, 1])
    assert run.output == {"a": 1, "b": 1, "c": 1}
    assert len(run.outcomes) > 2
    assert calls.count("p/a/s") == calls.count("p/c/s") == 1


async def test_a_branch_that_works_keeps_the_others_sleep_from_ending_it(engine: Engine):
    """The instance suspends when nothing in it can go on, and not a moment before."""
    done = []

    async def flaky(ctx):
        done.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError("again")
        await asyncio.sleep(0.05)
        return 1

    work = (
        branch("work")
        .task("a", flaky, retry={"max_attempts": 3, "interval": "300ms"})
        .task("b", lambda: 2)
        .task("c", lambda: 3)
    )
    built = workflow("w").parallel("p", [branch("nap").sleep("s", "1h"), work]).build()
    run = await engine.run(built)
    assert run.output == {"nap": None, "work": 3}
    assert [outcome.kind for outcome in run.outcomes] == [OutcomeKind.SUSPENDED, OutcomeKind.ENDED]
    suspended = next(event.id for event in run.events if event.name == "workflow.suspended")
    assert all(event.id < suspended for event in run.events if event.data.get("step") == "p/work/c")


async def test_progress_counts_branches_steps_of_one_name_apart(engine: Engine):
    branches = [branch(name).task("same", lambda: 1) for name in "abc"]
    built = workflow("w").parallel("p", branches).task("end", lambda: 1).build()
    run = await engine.run(built)
    progress = [event.data for event in run.events if event.name == "workflow.progress"]
    assert {data["total_steps"] for data in progress} == {5}
    assert [data["completed_steps"] for data in progress] == [1, 2, 3, 4, 5]
    assert [data["progress"] for data in progress] == [20, 40, 60, 80, 100]


# --- polls, loops, sleeps ---------------------------------------------------------------------------------------------------


def polling(times: int, **options):
    async def check(ctx):
        return Poll.done({"n": ctx.attempt}) if ctx.attempt > times else Poll.pending()

    return workflow("w").poll("q", check, **options).build()


async def test_a_poll_checks_at_once_and_then_by_its_interval(engine: Engine):
    run = await engine.run(polling(3, interval="10s", backoff=2))
    assert run.output == {"n": 4}
    assert engine.clock.time - EPOCH == 10 + 20 + 40
    assert [event.data["poll_count"] for event in run.events if event.name == "workflow.step.poll"] == [1, 2, 3, 4]
    assert run.instance.step_results["q"].poll_count == 4


@pytest.mark.parametrize(
    ("options", "count", "seconds"),
    [
        ({"max_attempts": 3, "interval": "10s"}, 3, 20),
        ({"timeout": "25s", "interval": "10s"}, 4, 25),
        ({"timeout": 0}, 1, 0),
    ],
)
async def test_a_poll_has_an_end(engine: Engine, options, count, seconds):
    run = await engine.run(polling(99, **options))
    assert run.error.step == "q"
    assert run.instance.step_results["q"].poll_count == count
    assert engine.clock.time - EPOCH == seconds


async def test_a_polls_count_and_times_outlive_crashes(engine: Engine):
    run = await engine.run(polling(99, max_attempts=4, interval="1h"), None, [None, 0, 1, None, 0, 1])
    assert run.instance.step_results["q"].poll_count == 4
    assert 3 * 3600 <= engine.clock.time - EPOCH < 3 * 3600 + 2  # and what the crashes cost


async def test_a_poll_with_a_type(engine: Engine):
    async def check() -> Poll[int]:
        return Poll.done("many")

    assert (await engine.run(workflow("w").poll("q", check, output=int).build())).error.type == "InvalidInput"


async def test_a_loop_jumps_back_while_its_condition_holds(engine: Engine):
    async def count(ctx):
        return (ctx.steps.get("n") or 0) + 1

    built = (
        workflow("w")
        .task("n", count)
        .loop("l", lambda ctx: ctx.steps["n"] < 4, "n", interval="10s")
        .task("end", prev)
        .build()
    )
    for crashes in ([], [1, 2, 3], [None, 1, None, 2]):
        engine.clock.time = EPOCH
        run = await engine.run(built, None, crashes)
        assert run.output == 4
        assert engine.clock.time - EPOCH == 30
        assert [event.data["loop_count"] for event in run.events if event.name == "workflow.step.loop"] == [1, 2, 3]
        assert [key for key in run.instance.step_results if key.startswith("n")] == ["n", "n#2", "n#3", "n#4"]
        assert run.instance.step_results["l"].loop_count == 3


@pytest.mark.parametrize(
    ("options", "count"),
    [({"max_iterations": 2}, 2), ({"timeout": "25s", "interval": "10s"}, 3), ({"max_iterations": 0}, 0)],
)
async def test_a_loop_has_an_end(engine: Engine, options, count):
    run = await engine.run(workflow("w").task("n", lambda: 1).loop("l", lambda ctx: True, "n", **options).build())
    assert (run.error.step, run.error.type) == ("l", "WaitTimeout")
    assert run.instance.step_results["l"].loop_count == count


async def test_tries_count_anew_at_each_visit(engine: Engine):
    async def flaky(ctx):
        if ctx.attempt == 1:
            raise ValueError("first try of each visit")
        return (ctx.steps.get("n") or 0) + 1

    built = (
        workflow("w")
        .task("n", flaky, retry={"max_attempts": 2, "interval": 0})
        .loop("l", lambda ctx: ctx.steps["n"] < 3, "n")
        .end("e")
        .build()
    )
    run = await engine.run(built)
    assert run.output == 3
    assert [step.attempts for key, step in run.instance.step_results.items() if key.startswith("n")] == [2, 2, 2]


async def test_a_sleeps_time_of_waking_is_fixed_when_it_begins(engine: Engine):
    definition = workflow("w").sleep("nap", "30d").task("end", lambda: 1).build()
    ident = await engine.start(definition)
    lease = await engine.claim("w")
    await engine.execute(definition, lease)
    await engine.store.settle(lease, Death(), 9, engine.clock.now())
    found = await engine.store.get(ident)
    assert (found.status, found.wake_at.timestamp(), found.current_step) == (Status.SLEEPING, EPOCH + 30 * 86400, "nap")
    engine.clock.time += 10 * 86400
    run = await engine.go_on(definition, ident)
    assert run.output == 1
    assert engine.clock.time - EPOCH == 30 * 86400


async def test_a_short_sleep_keeps_its_process(engine: Engine):
    run = await engine.run(workflow("w").sleep("nap", "500ms").build())
    assert [outcome.kind for outcome in run.outcomes] == [OutcomeKind.ENDED]
    assert engine.clock.slept == [0.5]


# --- events and commits ---------------------------------------------------------------------------------------------------


async def test_the_events_of_a_run_in_their_order(engine: Engine):
    async def work(ctx):
        await ctx.emit("mine", {"n": 1})
        return 1

    run = await engine.run(workflow("w").task("a", work).end("e").build(), "in")
    assert run.names() == [
        "workflow.started",
        "workflow.step.started",
        "workflow.event",
        "workflow.w.event",
        f"workflow.{run.instance.id}.event",
        "workflow.step.completed",
        "workflow.progress",
        "workflow.step.started",
        "workflow.step.completed",
        "workflow.progress",
        "workflow.completed",
    ]
    assert [event.id for event in run.events] == list(range(1, 12))
    by_name = {event.name: event.data for event in run.events}
    who = {"instance_id": run.instance.id, "workflow_name": "w"}
    assert by_name["workflow.event"] == {**who, "event": "mine", "data": {"n": 1}}
    assert by_name["workflow.started"]["input"] == "in"
    assert by_name["workflow.completed"]["output"] == 1


@pytest.mark.parametrize("steps", [1, 10])
async def test_a_steps_end_and_the_next_ones_beginning_are_one_commit(engine: Engine, steps):
    builder = workflow("w")
    for number in range(steps):
        builder.task(f"s{number}", lambda: 1)
        builder.pass_(f"p{number}", transform=lambda ctx: ctx.prev)  # costs none of its own
    run = await engine.run(builder.build())
    kinds = [[type(op).__name__ for op in batch] for batch in run.batches]
    assert len(kinds) == steps + 1
    assert kinds[0] == ["Began", "StepBegun"]
    assert all(batch[0] == "StepCompleted" for batch in kinds[1:])
    assert kinds[-1][-1] == "Ended"


async def test_logs_cost_no_commit(engine: Engine):
    async def work(ctx):
        for number in range(50):
            ctx.logger.info("line", n=number)
        return 1

    run = await engine.run(workflow("w").task("a", work).build())
    assert [log.data["n"] for log in run.logs] == list(range(50))
    assert len(run.batches) == 2


async def test_a_polls_timeout_bounds_a_check_that_hangs(engine: Engine):
    async def hang(ctx):
        if ctx.attempt == 2:
            await asyncio.Event().wait()
        return Poll.pending()

    run = await engine.run(workflow("w").poll("q", hang, interval=0, timeout="500ms").build())
    assert (run.error.type, run.error.step) == ("StepTimeout", "q")
    assert "did not return" in run.error.message


async def test_the_check_at_a_polls_very_end_may_not_hang_for_ever(engine: Engine):
    async def hang(ctx):
        if ctx.attempt == 2:
            await asyncio.Event().wait()
        return Poll.pending()

    run = await engine.run(workflow("w").poll("q", hang, interval="1h", timeout="500ms").build())
    assert (run.error.type, run.error.step) == ("StepTimeout", "q")
    assert "did not return" in run.error.message
