"""Workflows whose processes die: of every kind of step, and of every way to misbehave. What they do stands in the ledger."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ledger import noted, write
from pydantic import BaseModel

from paddock import Context, Poll, branch, flow, workflow

IGNORE_AND_STAY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
way = sys.argv[1]
if way == "setsid": os.setsid()
if way == "daemon":
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
with open(sys.argv[2], "a") as file: file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def wait_for(path: str) -> None:
    """Wait until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)


async def wait_for_file(path: str) -> None:
    """Wait until a file is there, off the loop's back."""
    while not os.path.exists(path):
        await asyncio.sleep(0.01)


# --- a workflow of every kind of step ---


class Plan(BaseModel):
    numbers: list[int]
    name: str


async def plan(input: dict[str, Any], ctx: Context) -> Plan:
    with noted(ctx):
        await asyncio.sleep(0.1)  # nothing is committed meanwhile, so the child takes up the line to its server
        print(f"planning {input['n']}")
        await ctx.set_metadata("planned", input["n"])
    return Plan(numbers=list(range(input["n"])), name="größe")


def total(plan: Plan, ctx: Context) -> int:
    with noted(ctx):
        ctx.emit("summing", {"count": len(plan.numbers)})
        return sum(plan.numbers)


async def double(value: int, ctx: Context) -> int:
    with noted(ctx):
        ctx.logger.info("doubling", value=value)
    return value * 2


async def stumble(ctx: Context) -> str:
    with noted(ctx):
        if ctx.attempt == 1:
            raise ConnectionError("not today")
    return "at last"


async def is_ready(ctx: Context) -> Poll[str]:
    with noted(ctx, uncounted=True):
        return Poll.done("ready") if ctx.attempt >= 2 else Poll.pending()


async def turn(ctx: Context) -> int:
    with noted(ctx):
        return int(ctx.idempotency_key.partition("#")[2] or 1)


everything = (
    workflow("everything")
    .default_retry(max_attempts=3, interval="10ms")
    .task("plan", plan)
    .choice("size", choices=[(lambda ctx: ctx.steps["plan"].numbers, "work")], default="finish")
    .parallel(
        "work",
        branches=[
            branch("left")
            .task("total", total, input=lambda prev: prev)
            .task("double", double, input=lambda prev: prev)
            .build(),
            branch("right").task("stumble", stumble, retry={"max_attempts": 3, "interval": "10ms"}).build(),
        ],
    )
    .poll("ready", is_ready, interval="10ms")
    .task("turn", turn)
    .loop("again", lambda ctx: ctx.steps["turn"] < 2, "turn")
    .sleep("rest", "20ms")
    .pass_("finish", transform=lambda ctx: [ctx.steps["work"], ctx.steps["ready"], ctx.steps["turn"], ctx.metadata])
    .build()
)


def result_of(n: int) -> Any:
    """Return what an undisturbed run of `everything` gives."""
    return [{"left": n * (n - 1), "right": "at last"}, "ready", 2, {"planned": n}]


# --- three steps, of which the second waits for a file ---


async def first(ctx: Context) -> str:
    with noted(ctx):
        return "one"


async def hold(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        await wait_for_file(input["until"])
    return "two"


def hold_in_thread(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        wait_for(input["until"])
    return "two"


async def hold_the_loop(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        wait_for(input["until"])
    return "two"


async def last(input: Any, ctx: Context) -> list[str]:
    with noted(ctx):
        return [ctx.steps["first"], ctx.steps["hold"], "three"]


def _three(name: str, handler: Any) -> Any:
    return workflow(name).task("first", first).task("hold", handler).task("last", last)


held = _three("held", hold).build()
held_in_thread = _three("held-in-thread", hold_in_thread).build()
held_loop = _three("held-loop", hold_the_loop).build()
THREE = ["one", "two", "three"]


# --- many at once ---


async def in_line(input: dict[str, Any], ctx: Context) -> int:
    with noted(ctx, number=input["number"]):
        await asyncio.sleep(input.get("seconds", 0.0))
        if input.get("dies") and ctx.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return input["number"]


in_line_flow = workflow("in-line").task("work", in_line).build()
beside_flow = workflow("beside").task("work", in_line).build()


# --- ways to die ---


def die(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        way = input["way"]
        if os.path.exists(input.get("unless", "")):
            return "survived"
        print(f"about to die by {way}", flush=True)
        if way == "segv":
            ctypes.string_at(0)
        elif way == "exit":
            os._exit(input.get("code", 0))
        elif way == "abort":
            os.abort()
        elif way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
    raise AssertionError(way)


dying = workflow("dying").task("first", first).task("die", die).build()


# --- ways to take too long ---


async def overlong(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        if ctx.attempt > input.get("times", 10**9):
            return "in time"
        way = input["way"]
        if way == "await":
            await asyncio.sleep(600)
        elif way == "ignore":
            while True:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    write("ignored", key="overlong", attempt=ctx.attempt, instance=input["id"])
        elif way == "block":
            time.sleep(600)
        elif way in ("gil", "deaf"):
            if way == "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                ctypes.PyDLL(None).sleep(600)  # a signal's handler cuts it short
        elif way == "compute":
            pow(7, 10**8)
        elif way == "headless":  # the main thread ends, and the process goes on
            ctypes.CDLL(None).pthread_exit(None)
    raise AssertionError(way)


def overlong_in_thread(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        if ctx.attempt > input.get("times", 10**9):
            return "in time"
        time.sleep(600)
    raise AssertionError


def _timed(name: str, handler: Any) -> Any:
    # long enough for a second try in time on a busy machine
    return workflow(name).task("overlong", handler, timeout="1s", retry={"max_attempts": 2, "interval": "200ms"})


timed = _timed("timed", overlong).build()
timed_in_thread = _timed("timed-in-thread", overlong_in_thread).build()
endless = workflow("endless").task("overlong", overlong).build()


# --- busy, and not stale ---


async def compute(input: dict[str, Any], ctx: Context) -> str:
    """Compute on the loop until the file is there."""
    with noted(ctx):
        while not os.path.exists(input["until"]):
            sum(range(200_000))
    return "computed"


async def compute_in_c(input: dict[str, Any], ctx: Context) -> str:
    """Hold the GIL in C, in pieces that are longer than the heartbeat's timeout; for a time, or until the file is there."""
    with noted(ctx):
        end = time.monotonic() + input.get("seconds", 0.0)
        while not os.path.exists(input["until"]) if "until" in input else time.monotonic() < end:
            sum(range(60_000_000))
    return "computed"


def compute_in_thread(input: dict[str, Any], ctx: Context) -> str:
    """Compute in Python, where frames come and go, in a worker's thread."""
    with noted(ctx):
        while not os.path.exists(input["until"]):
            for _ in range(200):
                (Path("some") / "path" / "or" / "other").exists()
    return "computed"


busy = workflow("busy").task("compute", compute).build()
busy_in_thread = workflow("busy-in-thread").task("compute", compute_in_thread).build()
busy_in_c = workflow("busy-in-c").task("compute", compute_in_c).build()


# --- a family that does not want to go ---


async def found_family(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        for way in ("plain", "setsid", "daemon"):
            subprocess.Popen([sys.executable, "-S", "-c", IGNORE_AND_STAY, way, input["pids"]])  # noqa: ASYNC220
        while len(Path(input["pids"]).read_text().split() if os.path.exists(input["pids"]) else []) < 3:
            await asyncio.sleep(0.01)
        write("family", instance=input["id"], key="family", attempt=ctx.attempt)
        if input.get("dies") and ctx.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if input.get("stays"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    continue
    return "founded"


family = workflow("family").task("family", found_family).build()


# --- output ---


def speak(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        os.write(1, b"raw on one\n")
        os.write(2, b"raw on two\n")
        print("printed äöü 你好")
        subprocess.run([sys.executable, "-S", "-c", "print('from a grandchild')"], check=True)
        thread = threading.Thread(target=lambda: print("from a thread"))
        thread.start()
        thread.join()
        ctx.logger.info("logged", n=1)
        if input.get("dies") and ctx.attempt == 1:
            os.write(1, b"last words")
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        os.write(1, b"without a newline")
    return "spoken"


def listen(ctx: Context) -> str:
    with noted(ctx):
        print("\nafterwards")
    return "heard"


speaking = workflow("speaking").task("speak", speak).task("listen", listen).build()


# --- big outputs ---


async def big(input: dict[str, Any], ctx: Context) -> str:
    return input["text"] * input["times"]


large = workflow("large").task("big", big).build()


def die_some(input: dict[str, Any], ctx: Context) -> str:
    with noted(ctx):
        if ctx.attempt <= input["times"]:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
    return "alive"


dying_twice = workflow("dying-twice").task("die", die_some).task("die again", die_some).build()


@flow("leading")
async def leading(input: dict[str, Any], ctx: Context) -> Any:
    return await ctx.wait_for(await ctx.start(held, input))


@flow("asking")
async def asking(ctx: Context) -> int:
    return await ctx.wait_event("go", int)


# --- code first: what stands between the steps is run again by each execution ---


def step_of(input: dict[str, int], ctx: Context) -> int:
    if ctx.attempt <= input["dies"]:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return 1


@flow("telling")
async def telling(input: dict[str, int], ctx: Context) -> int:
    done = 0
    for n in range(3):
        print(f"before {n}")
        ctx.logger.info(f"logged {n}")
        done += await ctx.step("count", step_of, {"dies": input["dies"] if n == 1 else 0})
    return done


# --- printing without end ---


async def flood(input: dict[str, Any], ctx: Context) -> str:
    """Print on, with the loop blocked so that nobody reads, until the file is there."""
    with noted(ctx):
        os.write(1, b"the beginning\n")
        chunk = (b"." * 1023 + b"\n") * 1024
        while not os.path.exists(input["until"]):
            os.write(1, chunk)
            if os.fstat(1).st_size > input["most"]:
                time.sleep(0.01)
        os.write(1, b"the end\n")
    return "flooded"


flooding = workflow("flooding").task("flood", flood).build()
