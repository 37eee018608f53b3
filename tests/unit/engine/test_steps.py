"""What a step does with its input, its output, its failures and its time."""

import asyncio
import functools
import re
import threading
from typing import Any

import pytest
from enginekit import EPOCH, Engine, an_engine
from pydantic import BaseModel

from paddock import BlockingContext, Context, InvalidWorkflow, Poll, Retry, Status, workflow
from paddock.runtime.base.errors import StepFailed
from paddock.runtime.engine.executor import OutcomeKind
from paddock.runtime.engine.retry import next_delay
from paddock.runtime.store.admission import Death


class Order(BaseModel):
    id: int
    note: str | None = None


class Receipt(BaseModel):
    order: Order
    total: float


def one(handler, **options):
    """Return a workflow of one task."""
    return workflow("w").task("s", handler, **options).build()


# --- inputs ---------------------------------------------------------------------------------------------------------------


async def test_a_task_gets_the_workflows_input_as_its_annotation(engine: Engine):
    seen = []

    def first(order: Order) -> int:
        seen.append(order)
        return 1

    def second(order: Order, ctx: Context) -> int:
        seen.append((order, ctx.input, ctx.prev))
        return 2

    run = await engine.run(workflow("w").task("a", first).task("b", second).build(), {"id": "7"})
    assert seen == [Order(id=7), (Order(id=7), {"id": "7"}, 1)]
    assert run.output == 2


async def test_a_declared_input_is_what_the_context_shows(engine: Engine):
    built = workflow("w", input=Order).task("a", lambda ctx: [type(ctx.input).__name__, ctx.input.id]).build()
    assert (await engine.run(built, {"id": 3})).output == ["Order", 3]


@pytest.mark.parametrize(
    ("mapper", "expected"),
    [
        (lambda prev: {"id": prev}, 5),
        (lambda prev, start: {"id": prev + start["n"]}, 15),
        (functools.partial(lambda plus, prev, start: {"id": prev + plus}, 100), 105),
    ],
)
async def test_a_mapper_gives_the_input_and_the_annotation_checks_it(engine: Engine, mapper, expected):
    def second(order: Order) -> int:
        return order.id

    run = await engine.run(workflow("w").task("a", lambda: 5).task("b", second, input=mapper).build(), {"n": 10})
    assert run.output == expected
    assert run.instance.step_results["b"].input == {"id": expected}


async def test_a_mapper_may_be_async(engine: Engine):
    async def mapper(prev, start):
        await asyncio.sleep(0)
        return [prev, start]

    assert (await engine.run(one(lambda x: x, input=mapper), "in")).output == [None, "in"]


async def test_a_schema_checks_the_workflows_input(engine: Engine):
    built = workflow("w").task("a", lambda: 1).task("b", lambda order: order.id, input=Order).build()
    assert (await engine.run(built, {"id": 4})).output == 4
    error = (await engine.run(built, {"id": "x"})).error
    assert (error.type, error.step) == ("InvalidInput", "b")
    assert "id: Input should be a valid integer" in error.message


async def test_an_input_that_does_not_fit_fails_the_step_and_names_the_field(engine: Engine):
    def second(order: Order) -> int:
        raise AssertionError("it must not run")

    retry = {"max_attempts": 5, "interval": "1h"}  # it cannot get better: no other try
    run = await engine.run(
        workflow("w").task("a", lambda: {"id": "no"}).task("b", second, input=lambda prev: prev, retry=retry).build()
    )
    assert run.instance.step_results["b"].attempts == 1
    assert "workflow.step.retry" not in run.names(of="b")
    assert (run.error.type, run.error.step) == ("InvalidInput", "b")
    assert "'b' does not fit Order: id:" in run.error.message


async def test_a_mapper_that_raises_fails_its_step(engine: Engine):
    run = await engine.run(one(lambda x: x, input=lambda prev: prev["no"]))
    assert (run.error.type, run.error.step) == ("TypeError", "s")
    assert run.instance.step_results["s"].status == "failed"


# --- outputs --------------------------------------------------------------------------------------------------------------


async def test_a_typed_result_is_typed_on_the_first_run_and_on_the_replay(engine: Engine):
    seen = []

    def make(order: Order) -> Receipt:
        return Receipt(order=order, total=2)

    def use(ctx: Context) -> str:
        seen.append((ctx.prev, ctx.steps["make"], ctx.get_step_result("make", Receipt)))
        return ctx.prev.order.note or "none"

    built = workflow("w").task("make", make).task("use", use).build()
    receipt = Receipt(order=Order(id=1), total=2)
    for crash_at in ([], [2]):  # the third commit is the end of `use`
        seen.clear()
        assert (await engine.run(built, {"id": 1}, crash_at)).output == "none"
        assert seen[0] == (receipt, receipt, receipt)
        assert len(seen) == 1 + len(crash_at)


async def test_a_result_without_annotation_is_plain_json(engine: Engine):
    seen = []

    def make():
        return {"t": (1, 2), "m": Order(id=1)}

    def use(ctx):
        seen.append(ctx.prev)
        return 1

    built = workflow("w").task("make", make).task("use", use).build()
    for crash_at in ([], [2]):
        await engine.run(built, None, crash_at)
    assert seen == [{"t": [1, 2], "m": {"id": 1, "note": None}}] * 3


async def test_an_explicit_output_counts_more_than_the_annotation(engine: Engine):
    def make() -> dict[str, Any]:
        return {"id": "9"}

    built = workflow("w").task("make", make, output=Order).task("use", lambda ctx: [ctx.prev.id]).build()
    assert (await engine.run(built)).output == [9]


async def test_an_output_that_does_not_fit_fails_the_step(engine: Engine):
    def make() -> int:
        return "many"

    error = (await engine.run(one(make))).error
    assert (error.type, error.step) == ("InvalidInput", "s")
    assert "the output of step 's' does not fit int" in error.message


@pytest.mark.parametrize("falsy", [0, "", None, [], {}, False, 0.0])
async def test_a_falsy_result_is_a_result(engine: Engine, falsy):
    calls = []
    built = workflow("w").task("a", lambda: calls.append(1) or falsy).task("b", lambda ctx: [ctx.prev]).build()
    assert (await engine.run(built, None, [2, 1])).output == [falsy]
    assert len(calls) == 1


# --- handlers -------------------------------------------------------------------------------------------------------------


class Callable1:
    def __call__(self, value, ctx):
        return ["object", value, type(ctx).__name__]


class Callable2:
    async def __call__(self, ctx: Context):
        return ["async object", type(ctx).__name__]

    async def method(self, value):
        return ["method", value]

    @staticmethod
    def static(value):
        return ["static", value]

    @classmethod
    async def classy(cls, value):
        return [cls.__name__, value]


async def _async_both(value, ctx):
    return [value, type(ctx).__name__]


def _sync_both(value, ctx):
    return [value, type(ctx).__name__, threading.current_thread() is threading.main_thread()]


def _context_by_type(anything: Context):
    return type(anything).__name__


def _decorated(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return ["wrapped", await function(*args, **kwargs)]

    return wrapper


_FORMS = {
    "async (input, ctx)": (_async_both, ["in", "Context"]),
    "def (input, ctx) in a thread": (_sync_both, ["in", "BlockingContext", False]),
    "(ctx, input)": (lambda ctx, value: [value, type(ctx).__name__], ["in", "BlockingContext"]),
    "(input)": (lambda value: value, "in"),
    "(ctx)": (lambda ctx: type(ctx).__name__, "BlockingContext"),
    "a context by its type": (_context_by_type, "BlockingContext"),
    "nothing": (lambda: "none", "none"),
    "defaults": (lambda value, scale=3: [value, scale], ["in", 3]),
    "a value bound behind the context": (lambda ctx, number=8: number, 8),
    "*args": (lambda *args, **kwargs: [list(args), kwargs], [[], {}]),
    "partial": (functools.partial(_async_both, "bound"), ["bound", "Context"]),
    "partial by keyword": (functools.partial(lambda value, factor: [value, factor], factor=2), ["in", 2]),
    "an object": (Callable1(), ["object", "in", "BlockingContext"]),
    "an async object": (Callable2(), ["async object", "Context"]),
    "a bound method": (Callable2().method, ["method", "in"]),
    "a static method": (Callable2.static, ["static", "in"]),
    "a class method": (Callable2.classy, ["Callable2", "in"]),
    "decorated": (_decorated(_async_both), ["wrapped", ["in", "Context"]]),
    "a builtin": (len, 2),
    "a builtin without a signature": (str, "in"),
    "a lambda that gives a coroutine": (lambda value, ctx: _async_both(value, ctx), ["in", "BlockingContext"]),
}


@pytest.mark.parametrize("form", _FORMS)
async def test_forms_of_handlers(engine: Engine, form):
    handler, expected = _FORMS[form]
    assert (await engine.run(one(handler), "in")).output == expected


@pytest.mark.parametrize(
    "handler", [lambda a, b: 1, lambda a, ctx, c: 1, lambda *, key: 1, lambda ctx, a, b: 1, 5, None, "name"]
)
def test_what_no_handler_can_be(handler):
    with pytest.raises(InvalidWorkflow, match="'s'"):
        one(handler)


async def test_a_plain_functions_context_blocks(engine: Engine):
    def work(ctx: BlockingContext):
        ctx.set_metadata("k", 1)
        ctx.emit("e", {"n": 1})
        ctx.log("info", "from a thread")
        ctx.heartbeat({"at": 2})
        return [ctx.get_metadata("k"), threading.get_ident() != main]

    main = threading.get_ident()
    run = await engine.run(one(work))
    assert run.output == [1, True]
    assert [log.message for log in run.logs] == ["from a thread"]
    assert [event.data["step_progress"] for event in run.events if "step_progress" in event.data] == [{"at": 2}]


async def test_a_coroutine_of_a_plain_function_may_await_its_context(engine: Engine):
    async def work(ctx):
        await ctx.emit("e", 1)
        await ctx.set_metadata("k", 2)
        return "done"

    run = await engine.run(one(lambda ctx: work(ctx)))
    assert run.output == "done"
    assert run.instance.metadata == {"k": 2}


# --- failures -------------------------------------------------------------------------------------------------------------


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class OwnBase(BaseException):
    pass


def _cancels_itself():
    raise asyncio.CancelledError


async def _cancels_itself_async():
    raise asyncio.CancelledError


async def _exits():
    raise SystemExit(3)


def _stops():
    raise StopIteration("x")


async def _own_base():
    raise OwnBase("own")


_FAILURES = {
    "an exception": (lambda: 1 / 0, "ZeroDivisionError", "division by zero"),
    "a message that cannot be read": (lambda: (_ for _ in ()).throw(Odd()), "Odd", "cannot be read"),
    "a lone surrogate": (lambda: (_ for _ in ()).throw(ValueError("\ud800")), "ValueError", "ud800"),
    "a long message": (lambda: (_ for _ in ()).throw(ValueError("x" * 10**6)), "ValueError", "xxxx"),
    "a cancel of its own, sync": (_cancels_itself, "CancelledError", ""),
    "a cancel of its own": (_cancels_itself_async, "CancelledError", ""),
    "sys.exit": (_exits, "SystemExit", "3"),
    "StopIteration": (_stops, "RuntimeError", "StopIteration"),
    "a base exception": (_own_base, "OwnBase", "own"),
}


@pytest.mark.parametrize("failure", _FAILURES)
async def test_whatever_a_handler_raises_fails_its_step(engine: Engine, failure):
    handler, kind, words = _FAILURES[failure]
    run = await engine.run(one(handler))
    assert (run.error.type, run.error.step) == (kind, "s")
    assert words in run.error.message
    assert len(run.error.message) < 5000
    assert len(run.error.traceback) <= 16_000
    assert run.names()[-2:] == ["workflow.step.failed", "workflow.failed"]
    assert [outcome.kind for outcome in run.outcomes] == [OutcomeKind.ENDED]


# --- retries --------------------------------------------------------------------------------------------------------------


def failing(times: int, error: type[Exception] = ValueError):
    calls = []

    async def handler(ctx):
        calls.append((ctx.attempt, ctx.idempotency_key))
        if len(calls) <= times:
            raise error(f"try {len(calls)}")
        return len(calls)

    return handler, calls


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        ({"max_attempts": 4, "interval": "2s", "backoff_rate": 1}, [2, 2, 2]),
        ({"max_attempts": 4, "interval": "2s"}, [2, 4, 8]),
        ({"max_attempts": 4, "interval": 2, "backoff_rate": 10, "max_interval": "30s"}, [2, 20, 30]),
        ({"max_attempts": 4, "interval": 0}, [0, 0, 0]),
    ],
)
async def test_delays_between_tries(engine: Engine, policy, waits):
    handler, calls = failing(3)
    run = await engine.run(one(handler, retry=policy))
    assert run.output == 4
    retries = [event.data for event in run.events if event.name == "workflow.step.retry"]
    assert [data["delay"] for data in retries] == waits
    assert [(data["attempt"], data["max_attempts"]) for data in retries] == [(1, 4), (2, 4), (3, 4)]
    assert engine.clock.time - EPOCH == pytest.approx(sum(waits))
    assert [attempt for attempt, _ in calls] == [1, 2, 3, 4]
    assert {key for _, key in calls} == {f"{run.instance.id}:s"}
    assert run.instance.step_results["s"].attempts == 4


@pytest.mark.parametrize("retry", [None, 1, Retry(max_attempts=1), {"max_attempts": 1}])
async def test_one_try_only(engine: Engine, retry):
    handler, calls = failing(9)
    run = await engine.run(one(handler, retry=retry))
    assert run.error.type == "ValueError"
    assert len(calls) == 1


async def test_spent_tries_fail_with_the_last_error(engine: Engine):
    handler, _ = failing(9)
    run = await engine.run(one(handler, retry={"max_attempts": 3, "interval": 1}))
    assert run.error.message == "try 3"
    failed = [event.data for event in run.events if event.name == "workflow.step.failed"]
    assert [(data["attempts"], data["error"]["message"]) for data in failed] == [(3, "try 3")]
    assert run.names(of="s").count("workflow.step.retry") == 2


@pytest.mark.parametrize(
    ("retry_on", "again"),
    [
        (ValueError, True),
        ("^ValueError: ", True),
        ({KeyError}, False),
        ([ValueError], True),
        ([KeyError], False),
        ([KeyError, LookupError, Exception], True),
        (["^ValueError: try"], True),
        (["try [0-9]"], True),
        (["valueerror"], False),
        (re.compile("valueERROR", re.IGNORECASE), True),
        ([KeyError, re.compile("(?i)TRY")], True),
        ({re.compile("valueerror")}, False),
        ([KeyError, "try"], True),
        ([], True),
    ],
)
async def test_retry_on(engine: Engine, retry_on, again):
    handler, calls = failing(1)
    run = await engine.run(one(handler, retry={"max_attempts": 2, "interval": 0, "retry_on": retry_on}))
    assert (run.instance.status is Status.COMPLETED) is again
    assert len(calls) == 1 + again


async def test_a_timeout_is_retried_by_its_public_name(engine: Engine):
    async def slow(ctx):
        if ctx.attempt == 1:
            await asyncio.sleep(60)
        return ctx.attempt

    run = await engine.run(
        one(slow, timeout="30ms", retry={"max_attempts": 2, "interval": 0, "retry_on": ["^StepTimeout: "]})
    )
    assert run.output == 2


async def test_default_retry_fills_what_a_step_leaves_out(engine: Engine):
    def built(**options):
        handler, calls = failing(99)
        return workflow("w").default_retry(max_attempts=3, interval="7s").task("s", handler, **options).build(), calls

    for options, tries, delays in [
        ({}, 3, [7, 14]),
        ({"retry": {"max_attempts": 2}}, 2, [7]),
        ({"retry": 1}, 1, []),
        ({"retry": Retry(max_attempts=2)}, 2, [1]),
    ]:
        definition, calls = built(**options)
        run = await engine.run(definition)
        assert len(calls) == tries
        assert [e.data["delay"] for e in run.events if e.name == "workflow.step.retry"] == delays


async def test_the_count_of_tries_outlives_a_crash(engine: Engine):
    handler, calls = failing(99)
    built = one(handler, retry={"max_attempts": 3, "interval": "10s", "backoff_rate": 1})
    run = await engine.run(built, None, [None, 2])  # it sleeps; the second execution crashes with its failure unwritten
    retries = [event.data["attempt"] for event in run.events if event.name == "workflow.step.retry"]
    assert retries == [1, 3]  # the crash of the second try spent none
    assert [attempt for attempt, _ in calls] == [1, 2, 3, 4]
    assert (run.error.type, run.error.message) == ("ValueError", "try 4")


async def test_a_crash_in_flight_spends_no_retry(engine: Engine):
    seen = []

    async def handler(ctx):
        seen.append((ctx.attempt, ctx.idempotency_key))
        return "done"

    run = await engine.run(one(handler), None, [1, 1, 1])  # commit 1 is the end of the step
    assert run.output == "done"
    assert [attempt for attempt, _ in seen] == [1, 2, 3, 4]
    assert len({key for _, key in seen}) == 1


async def test_a_long_delay_gives_the_process_back_and_is_not_restarted(engine: Engine):
    handler, _ = failing(1)
    run = await engine.run(one(handler, retry={"max_attempts": 2, "interval": "1h"}))
    assert run.output == 2
    assert [outcome.kind for outcome in run.outcomes] == [OutcomeKind.SUSPENDED, OutcomeKind.ENDED]
    assert engine.clock.time - EPOCH == 3600


async def test_a_crash_during_the_delay_waits_only_for_the_rest(engine: Engine):
    handler, _ = failing(1)
    definition = one(handler, retry={"max_attempts": 2, "interval": "1h"})
    ident = await engine.start(definition)
    lease = await engine.claim("w")
    await engine.execute(definition, lease)  # suspends at the delay
    await engine.store.settle(lease, Death(), 9, engine.clock.now())
    engine.clock.time += 1800
    run = await engine.go_on(definition, ident)
    assert run.output == 2
    assert engine.clock.time - EPOCH == 3600


async def test_a_short_delay_is_waited_for_again_only_for_the_rest():
    """A crash within the delay must not begin the next try at once, nor begin the delay anew."""
    handler, _calls = failing(1)
    definition = one(handler, retry={"max_attempts": 2, "interval": "8s"})
    async with an_engine(suspend_after=60) as engine:
        ident = await engine.start(definition)
        lease = await engine.claim("w")
        sleeping = asyncio.Event()

        async def sleep(_seconds):
            engine.clock.time += 3
            sleeping.set()
            await asyncio.Event().wait()

        engine.clock.sleep = sleep
        task = asyncio.create_task(engine.execute(definition, lease))
        await sleeping.wait()
        task.cancel()
        await task
        del engine.clock.sleep
        await engine.store.settle(lease, Death(planned=True), 9, engine.clock.now())
        run = await engine.go_on(definition, ident)
    assert run.output == 2
    assert engine.clock.slept == [5]
    assert engine.clock.time - EPOCH == 8


def test_a_delay_that_grows_for_ever_stays_a_number():
    policy = Retry(max_attempts=10**6, interval=1, backoff_rate=10)
    assert next_delay(policy, 5000, ValueError()) == 100 * 365 * 86400
    assert next_delay(Retry(max_attempts=10**6, interval=0, backoff_rate=10), 5000, ValueError()) == 0
    assert next_delay(Retry(max_attempts=10**6, interval=1, max_interval=5), 5000, ValueError()) == 5


def test_jitter_only_where_it_is_asked_for():
    plain = Retry(max_attempts=9, interval=4)
    assert {next_delay(plain, 1, ValueError()) for _ in range(50)} == {4}
    spread = {next_delay(Retry(max_attempts=9, interval=4, jitter=0.5), 1, ValueError()) for _ in range(50)}
    assert len(spread) > 1
    assert all(4 <= delay <= 6 for delay in spread)


# --- time -----------------------------------------------------------------------------------------------------------------


async def test_a_steps_timeout_stops_an_async_handler(engine: Engine):
    stopped = []

    async def slow():
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    run = await engine.run(one(slow, timeout="30ms"))
    assert (run.error.type, run.error.step) == ("StepTimeout", "s")
    assert "0.03s" in run.error.message
    assert stopped == [True]


async def test_a_timeout_counts_for_each_try(engine: Engine):
    async def slow(ctx):
        if ctx.attempt < 3:
            await asyncio.sleep(60)
        return ctx.attempt

    assert (await engine.run(one(slow, timeout="30ms", retry={"max_attempts": 3, "interval": 0}))).output == 3


@pytest.mark.parametrize("killable", [True, False])
async def test_a_thread_that_outruns_its_timeout(killable):
    """Only the process's end stops a thread: a child gives its process back, the server's own cannot."""
    free = threading.Event()
    tries = []

    def slow(ctx):
        tries.append(ctx.attempt)
        if ctx.attempt == 1:
            free.wait(30)
        return ctx.attempt

    async with an_engine() as engine:
        engine.killable = killable
        # long enough for the second try to get a thread on a busy machine
        run = await engine.run(one(slow, timeout="500ms", retry={"max_attempts": 2, "interval": 0}))
        free.set()
    assert run.output == 2
    kinds = [outcome.kind for outcome in run.outcomes]
    assert kinds == ([OutcomeKind.GIVEN_BACK, OutcomeKind.ENDED] if killable else [OutcomeKind.ENDED])


async def test_an_async_handler_that_will_not_stop_gives_its_process_back():
    release = asyncio.Event()

    async def stubborn(ctx):
        while ctx.attempt == 1 and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return ctx.attempt

    async with an_engine(cancel_grace=0.05) as engine:
        engine.killable = True
        run = await engine.run(one(stubborn, timeout="30ms", retry={"max_attempts": 2, "interval": 0}))
        release.set()
        await asyncio.sleep(0)
    assert run.output == 2
    assert [outcome.kind for outcome in run.outcomes] == [OutcomeKind.GIVEN_BACK, OutcomeKind.ENDED]


async def test_a_cancelled_execution_stops_its_handler_and_writes_no_end(engine: Engine):
    begun, stopped = asyncio.Event(), []

    async def slow():
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    definition = one(slow, retry={"max_attempts": 5, "interval": 0})
    ident = await engine.start(definition)
    task = asyncio.create_task(engine.execute(definition, await engine.claim("w")))
    await begun.wait()
    task.cancel()
    outcome = await task
    assert (outcome.kind, stopped) == (OutcomeKind.CANCELLED, [True])
    found = await engine.store.get(ident)
    assert (found.status, found.step_results["s"].status) == (Status.RUNNING, "running")


async def test_a_drained_execution_ends_at_the_next_boundary(engine: Engine):
    done = []

    def first(ctx):
        engine.execution.draining = "the server stops"
        done.append("first")
        return 1

    definition = workflow("w").task("a", first).task("b", lambda: done.append("second")).build()
    ident = await engine.start(definition)
    outcome = await engine.execute(definition, await engine.claim("w"))
    assert (outcome.kind, done) == (OutcomeKind.GIVEN_BACK, ["first"])
    assert (await engine.store.get(ident)).step_results["a"].status == "completed"


async def test_a_pause_that_nobody_could_tell_of_holds_the_next_step(engine: Engine):
    """The process hears of it from the commit that the step would begin with."""

    async def first(ctx):
        await engine.store.pause(ctx.instance.id, engine.clock.now())
        return 1

    definition = workflow("w").task("a", first).task("b", lambda ctx: ctx.attempt).build()
    run = await engine.run(definition)
    assert (run.instance.status, list(run.instance.step_results)) == (Status.PAUSED, ["a"])
    await engine.store.unpause(run.instance.id, engine.clock.now())
    assert (await engine.go_on(definition, run.instance.id)).output == 1


async def test_a_pause_holds_a_poll_between_its_checks(engine: Engine):
    async def check(ctx):
        if ctx.attempt == 2:
            engine.execution.draining = "it is to be paused"
            await engine.store.pause(ctx.instance.id, engine.clock.now())
        return Poll.done(ctx.attempt) if ctx.attempt == 3 else Poll.pending()

    definition = workflow("w").poll("p", check, interval="10ms").build()
    run = await engine.run(definition)
    assert (run.instance.status, run.instance.step_results["p"].poll_count) == (Status.PAUSED, 2)
    await engine.store.unpause(run.instance.id, engine.clock.now())
    assert (await engine.go_on(definition, run.instance.id)).output == 3


async def test_an_end_from_outside_is_noticed_at_the_next_write(engine: Engine):
    async def first(ctx):
        await engine.store.end(ctx.instance.id, Status.CANCELLED, engine.clock.now())
        return 1

    definition = workflow("w").task("a", first).task("b", lambda: 1 / 0).build()
    ident = await engine.start(definition)
    outcome = await engine.execute(definition, await engine.claim("w"))
    assert outcome.kind is OutcomeKind.LOST
    found = await engine.store.get(ident)
    assert (found.status, list(found.step_results)) == (Status.CANCELLED, ["a"])


def test_a_failure_says_the_same_on_every_replay():
    first = StepFailed("s", "ValueError", "boom", 3)
    assert str(first) == "step 's' failed after 3 attempts: ValueError: boom"
