"""The workflows of the contract's tests. Children import this module, so the handlers live here and not beside the tests."""

import asyncio
import os
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from contractnotes import gate, note
from contractplugins import Stamp
from pydantic import BaseModel, Field

from paddock import BlockingContext, Context, Poll, Retry, branch, workflow


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Order(BaseModel):
    id: str
    qty: int = Field(default=1, ge=1)
    due: date | None = None


class Priced(BaseModel):
    order: Order
    total: Decimal
    when: datetime
    tags: set[str]


@dataclass
class Point:
    x: int
    y: int
    colour: Colour = Colour.RED


# --- the simplest ----------------------------------------------------------------------------------------------------


async def echo(value: Any) -> Any:
    return value


def nothing() -> None:
    return None


def pid() -> int:
    return os.getpid()


def only_context(ctx: Context) -> str:
    return ctx.instance.workflow_name


def context_by_name(value: Any, ctx) -> list[Any]:
    return [value, ctx.instance.id]


def context_first(ctx: Context, value: Any) -> Any:
    return value


async def async_facts(value: Any, ctx: Context) -> dict[str, Any]:
    return {
        "thread": threading.current_thread() is threading.main_thread(),
        "loop": asyncio.get_running_loop().is_running(),
    }


def sync_facts(value: Any, ctx: Context) -> dict[str, Any]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        loop = False
    else:
        loop = True
    return {
        "thread": threading.current_thread() is threading.main_thread(),
        "loop": loop,
        "blocking": isinstance(ctx, BlockingContext),
    }


echo_flow = workflow("echo").task("echo", echo).build()
pid_flow = workflow("pid").task("pid", pid).build()
slim_flow = workflow("slim").task("nothing", nothing).build()
shapes_flow = (
    workflow("shapes")
    .task("only_context", only_context)
    .task("by_name", context_by_name)
    .task("first", context_first)
    .task("async", async_facts)
    .task("sync", sync_facts)
    .pass_("all", transform=lambda ctx: dict(ctx.steps))
    .build()
)
inside_flow = workflow("inside").isolated(False).task("pid", pid).build()


# --- values ----------------------------------------------------------------------------------------------------------


def price(order: Order, ctx: Context) -> Priced:
    return Priced(
        order=order, total=Decimal("2.50") * order.qty, when=datetime(2024, 2, 29, 12, tzinfo=UTC), tags={"a"}
    )


async def look(prev: Priced, ctx: Context) -> list[str]:
    held = ctx.steps["price"]
    return [
        type(prev).__name__,
        type(prev.total).__name__,
        type(prev.when).__name__,
        type(prev.tags).__name__,
        type(prev.order.due).__name__,
        type(held).__name__,
        type(ctx.prev).__name__,
        str(held == prev),
    ]


def point(value: Any) -> Point:
    return Point(1, 2, Colour.BLUE)


def points(value: Any) -> list[Point]:
    return [Point(3, 4)]


def untyped(value: Any):
    return (
        Point(5, 6),
        {
            "set",
        },
        Decimal("1.5"),
    )


def by_schema(value: Any):
    return {"id": "made", "qty": 7}


def kinds(ctx: Context) -> dict[str, str]:
    return {name: repr(value) for name, value in ctx.steps.items()} | {
        "as order": repr(ctx.get_step_result("untyped order", Order)),
        "raw": repr(ctx.get_step_result("untyped order")),
        "missing": repr(ctx.get_step_result("never", Order)),
    }


price_flow = workflow("price").task("price", price).task("look", look, input=lambda prev, workflow_input: prev).build()
types_flow = (
    workflow("types")
    .task("point", point)
    .task("points", points)
    .task("untyped", untyped)
    .task("untyped order", by_schema)
    .task("schema", by_schema, output=Order)
    .task("kinds", kinds)
    .build()
)
declared_flow = (
    workflow("declared", input=Order)
    .task("a", lambda ctx: [type(ctx.input).__name__, ctx.input.qty])
    .task("b", lambda order: type(order).__name__)
    .pass_("both", transform=lambda ctx: [ctx.steps["a"], ctx.steps["b"], type(ctx.input).__name__])
    .build()
)
gated_flow = workflow("validated").task("take", lambda value: value, input=Order).build()


def wrong_type(value: Any) -> int:
    return "seven"  # type: ignore[return-value]


def no_json(value: Any) -> Any:
    return object() if value == "object" else float("nan") if value == "nan" else "x" * 300_000


wrong_type_flow = workflow("wrong-type").task("make", wrong_type).build()
no_json_flow = workflow("no-json").task("make", no_json).build()
bad_map_flow = (
    workflow("bad-map").task("one", nothing).task("two", price, input=lambda prev, given: {"qty": "many"}).build()
)


# --- the context -----------------------------------------------------------------------------------------------------


async def see(value: Any, ctx: Context) -> dict[str, Any]:
    await ctx.set_metadata("seen", {"by": "async"})
    await ctx.emit("looked", {"at": value})
    ctx.log("warning", "careful", size=3)
    ctx.logger.info("hello", who="async")
    ctx.heartbeat()
    ctx.heartbeat({"rows": 7})
    here = ctx.instance
    return {
        "input": ctx.input,
        "prev": ctx.prev,
        "steps": sorted(ctx.steps),
        "id": here.id,
        "workflow": here.workflow_name,
        "status": here.status,
        "current": here.current_step,
        "executions": here.executions,
        "started": here.started_at is not None,
        "metadata": ctx.metadata,
        "seen": ctx.get_metadata("seen"),
        "default": ctx.get_metadata("not there", "fallback"),
        "config": ctx.core.config,
        "key": ctx.idempotency_key,
        "attempt": ctx.attempt,
        "result": ctx.get_step_result("see-blocking"),
    }


def see_blocking(value: Any, ctx: Context) -> dict[str, Any]:
    assert ctx.set_metadata("seen", {"by": "sync"}) is None
    assert ctx.emit("looked", {"at": value}) is None
    ctx.log("error", "broken", size=4)
    ctx.logger.info("hello", who="sync")
    ctx.heartbeat({"rows": 1})
    return {"metadata": ctx.metadata, "key": ctx.idempotency_key, "steps": sorted(ctx.steps), "prev": ctx.prev}


context_flow = (
    workflow("context")
    .task("see-blocking", see_blocking)
    .task("see", see)
    .pass_("both", transform=lambda ctx: {"sync": ctx.steps["see-blocking"], "async": ctx.prev})
    .build()
)


async def misuse(value: Any, ctx: Context) -> list[str]:
    found = []
    for call in (
        lambda: ctx.set_metadata("", 1),
        lambda: ctx.set_metadata("x", object()),
        lambda: ctx.emit("e", float("inf")),
        lambda: ctx.emit("e", "x" * 300_000),
    ):
        try:
            await call()
        except Exception as error:  # noqa: BLE001
            found.append(f"{type(error).__name__}: {error}")
    for plain in (lambda: ctx.log("loud", "x"), lambda: ctx.heartbeat(object()), lambda: ctx.plugin(dict)):
        try:
            plain()
        except Exception as error:  # noqa: BLE001
            found.append(f"{type(error).__name__}: {error}")
    return found


def misuse_blocking(value: Any, ctx: Context) -> list[str]:
    found = []
    for call in (
        lambda: ctx.set_metadata("", 1),
        lambda: ctx.set_metadata("x", object()),
        lambda: ctx.emit("e", float("inf")),
        lambda: ctx.emit("e", "x" * 300_000),
        lambda: ctx.log("loud", "x"),
        lambda: ctx.heartbeat(object()),
        lambda: ctx.plugin(dict),
    ):
        try:
            call()
        except Exception as error:  # noqa: BLE001
            found.append(f"{type(error).__name__}: {error}")
    return found


misuse_flow = (
    workflow("misuse")
    .task("async", misuse)
    .task("sync", misuse_blocking)
    .pass_("both", transform=lambda ctx: dict(ctx.steps))
    .build()
)


def speak(value: Any, ctx: Context) -> None:
    ctx.logger.debug("one")
    ctx.logger.bind(bound=True).info("two", n=2)
    ctx.logger.warning("three", thing=object())
    try:
        raise ValueError("held")
    except ValueError:
        ctx.logger.exception("four")
    ctx.logger.critical("five")


def chatter(value: Any) -> None:
    print("plain")
    print("to stderr", file=sys.stderr)
    os.write(1, "räw ☃\n".encode())
    os.system("echo from a grandchild")
    os.write(1, b"no newline")


speak_flow = workflow("speak").task("speak", speak).build()
chatter_flow = workflow("chatter").task("chatter", chatter).build()


# --- plugins ---------------------------------------------------------------------------------------------------------


async def press(ctx: Context) -> list[Any]:
    typed = ctx.plugin(Stamp)
    return [
        await ctx.plugins.stamp.press("a"),
        await typed.press("b"),
        typed is ctx.plugins.stamp,
        await ctx.plugins["stamp"].press("c"),
    ]


stamped_flow = workflow("stamped").task("press", press).build()


# --- ways through a graph --------------------------------------------------------------------------------------------


def ship(priced: Priced) -> dict[str, str]:
    return {"order": priced.order.id}


process_order = (
    workflow("process-order")
    .timeout("1h")
    .default_retry(max_attempts=3, interval="1s", backoff_rate=2, max_interval="30s")
    .describe("an order from the basket to the door", tags=["orders"])
    .task("price", price)
    .choice("large", choices=[(lambda ctx: ctx.steps["price"].total > 100, "by hand")], default="fulfill")
    .parallel(
        "fulfill",
        branches=[
            branch("shipping").task("ship", ship, input=lambda prev, given: prev).build(),
            branch("notification").task("notify", lambda: {"sent": True}).task("log", lambda ctx: ctx.prev).build(),
        ],
        on_error="fail-fast",
        next="complete",
    )
    .task("by hand", lambda value: {"given": value}, input=lambda prev, given: given["id"], next="complete")
    .pass_("complete", transform=lambda ctx: {"prev": ctx.prev, "total": str(ctx.steps["price"].total)}, end=True)
    .build()
)

choices_flow = (
    workflow("choices")
    .choice(
        "which",
        choices=[
            (lambda ctx: ctx.input["go"] == "left", "left"),
            (lambda ctx: ctx.input["go"] in ("left", "right"), "right"),
            {"condition": lambda ctx: 1 / ctx.input["zero"] > 0, "next": "right"},
        ],
    )
    .task("left", lambda: "left", end=True)
    .task("right", lambda: "right", end=True)
    .build()
)

ends_flow = (
    workflow("ends")
    .start_at("first")
    .pass_("fixed", result={"fixed": [1]}, next="bare")
    .task("first", lambda value: {"first": value}, next="fixed")
    .pass_("bare")
    .sleep("nap", "1ms")
    .end("finish")
    .build()
)


async def fail(value: Any) -> None:
    raise ValueError(f"cannot {value}")


fail_fast_flow = (
    workflow("fail-fast")
    .parallel(
        "both",
        branches=[
            branch("bad").task("fail", fail).build(),
            branch("slow").task("wait", lambda value: gate_forever(), input=lambda prev, given: given).build(),
        ],
    )
    .build()
)


async def gate_forever() -> None:
    await asyncio.Event().wait()


async def after_fail(value: Any, ctx: Context) -> str:
    """Wait until the journal knows of the other branch's failure, so that the order is sure."""
    await gate(value["gate"])
    note(value["log"], "sibling ended")
    return "ended"


wait_all_flow = (
    workflow("wait-all")
    .parallel(
        "both",
        branches=[
            branch("bad").task("fail", fail).build(),
            branch("good").task("after", after_fail).build(),
        ],
        on_error="wait-all",
    )
    .build()
)


# --- retries, timeouts ------------------------------------------------------------------------------------------------


class Flaky(Exception):
    pass


async def flaky(value: Any, ctx: Context) -> dict[str, Any]:
    note(value["log"], f"{ctx.attempt} {ctx.idempotency_key}")
    if ctx.attempt < value["good_at"]:
        raise Flaky(f"try {ctx.attempt}")
    return {"attempt": ctx.attempt}


RETRY = {"max_attempts": 3, "interval": "10ms", "backoff_rate": 2}
flaky_flow = workflow("flaky").task("flaky", flaky, retry=RETRY).build()
picky_flow = workflow("picky").task("type", flaky, retry={**RETRY, "retry_on": [KeyError]}).build()
pattern_flow = workflow("pattern").task("pattern", flaky, retry={**RETRY, "retry_on": [r"Flaky: try [12]$"]}).build()
defaults_flow = (
    workflow("defaults")
    .default_retry(max_attempts=2, interval="2ms")
    .parallel(
        "fan",
        branches=[
            branch("default").task("a", flaky).build(),
            branch("fields").task("a", flaky, retry={"max_attempts": 3}).build(),
            branch("own").task("a", flaky, retry=Retry(max_attempts=1)).build(),
            branch("branch").default_retry(max_attempts=4, interval="1ms").task("a", flaky).build(),
        ],
        on_error="wait-all",
    )
    .build()
)
failing_flow = workflow("failing").task("ok", nothing).task("fail", fail).build()


async def linger(value: Any, ctx: Context) -> str:
    try:
        await asyncio.Event().wait()
    finally:
        note(value["log"], "let go")
    return "never"


def linger_blocking(value: Any, ctx: Context) -> str:
    note(value["log"], "begun")
    time.sleep(60)
    return "never"


slow_step_flow = workflow("slow-step").task("slow", linger, timeout="50ms").build()
slow_twice_flow = (
    workflow("slow-twice").task("slow", linger, timeout="30ms", retry={"max_attempts": 2, "interval": "1ms"}).build()
)
slow_thread_flow = workflow("slow-thread").task("slow", linger_blocking, timeout="1s").build()
patient_flow = workflow("patient").timeout("400d").task("rest", nothing, timeout="300d").build()
deadline_flow = workflow("deadline").timeout("1500ms").task("ok", nothing).task("slow", linger).build()


# --- polls, loops, sleeps ---------------------------------------------------------------------------------------------


class Found(BaseModel):
    at: int


def check(value: Any, ctx: Context) -> Poll[Found]:
    if ctx.attempt < value["ready_at"]:
        return Poll.pending()
    return Poll.done(Found(at=ctx.attempt))


poll_flow = (
    workflow("poll")
    .poll("ready", check, interval="2ms", backoff=2, max_attempts=4)
    .task("type", lambda ctx: [type(ctx.prev).__name__, ctx.prev.at])
    .build()
)


def never() -> Poll[None]:
    return Poll.pending()


poll_timeout_flow = workflow("poll-timeout").poll("ready", never, interval="5ms", timeout="40ms").build()
poll_wrong_flow = workflow("poll-wrong").poll("ready", lambda: True, interval="1ms").build()


async def count(value: Any, ctx: Context) -> int:
    return (ctx.get_step_result("count", int) or 0) + 1


loop_flow = (
    workflow("loop")
    .task("count", count)
    .loop("again", lambda ctx: ctx.prev < ctx.input["until"], "count", max_iterations=3)
    .task("after", lambda ctx: {"prev": ctx.prev, "keys": sorted(ctx.instance.step_results)})
    .build()
)
sleep_flow = (
    workflow("sleep")
    .task("before", lambda: "slept")
    .sleep("nap", "1500ms")
    .task("after", lambda ctx: [ctx.prev, ctx.instance.executions])
    .build()
)
long_sleep_flow = workflow("long-sleep").sleep("night", "8h").task("after", nothing).build()


# --- holding on, for cancel, limits, restarts -------------------------------------------------------------------------


async def hold(value: Any, ctx: Context) -> str:
    note(value["log"], f"{value.get('name', ctx.instance.id)} {os.getpid()} {ctx.attempt}")
    await gate(value["gate"])
    return value.get("name", "held")


hold_flow = workflow("hold").task("first", nothing).task("hold", hold).task("last", lambda ctx: ctx.prev).build()
one_flow = workflow("one").task("hold", hold).build()
two_flow = workflow("two").task("hold", hold).build()
reject_flow = workflow("reject").task("hold", hold).build()


ALL = [value for value in list(globals().values()) if hasattr(value, "nodes")]
