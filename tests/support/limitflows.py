"""Workflows that use up what they may, and workflows that die, each of its own cause."""

import asyncio
import ctypes
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from paddock import Context, FlowContext, action, flow, workflow

SIGXCPU_IGNORED = 1
MB = 2**20


def look(ctx: Context) -> dict[str, Any]:
    """Return what a handler sees of its process."""
    shell = subprocess.run(["/bin/sh", "-c", "echo $SECRET-$GIVEN; pwd"], capture_output=True, text=True, check=True)
    return {
        "environ": dict(os.environ),
        "grandchild": shell.stdout.split(),
        "cwd": os.getcwd(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
        "executable": sys.executable,
        "prefix": sys.prefix,
    }


looking = workflow("looking").task("look", look).build()


# --- memory ---


def greedy(megabytes: int, ctx: Context) -> str:
    """Take too much at the first try; be content with less at the second."""
    kept = bytearray((megabytes if ctx.attempt == 1 else 1) * MB)
    return f"content at try {ctx.attempt} with {len(kept) // MB} MB"


def fill(size: int) -> mmap.mmap:
    """Return so many bytes of shared memory, all of them in use; the kernel's limit of private memory leaves them out."""
    shared = mmap.mmap(-1, size)
    for at in range(0, size, mmap.PAGESIZE):
        shared[at] = 1
    return shared


HOARD = "import sys; sys.path.insert(0, sys.argv[1]); import limitflows, time; kept = limitflows.fill(int(sys.argv[2])); time.sleep(600)"


def hoard(megabytes: int) -> None:
    """Have another program take it."""
    subprocess.run([sys.executable, "-c", HOARD, os.path.dirname(__file__), str(megabytes * MB)], check=True)


def share(megabytes: int) -> int:
    """Fork workers that share this process's memory, and let them live for a few looks of the watchdog."""
    kept = bytearray(b"x") * (megabytes * MB)
    workers = []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            time.sleep(1.0)
            os._exit(0)
        workers.append(pid)
    for pid in workers:
        os.waitpid(pid, 0)
    return len(kept) // MB


greedy_flow = workflow("greedy").task("take", greedy, retry={"max_attempts": 2, "interval": "10ms"}).build()
hoarding = workflow("hoarding").task("hoard", hoard).build()
sharing = workflow("sharing").task("share", share).build()


# --- processes ---


def breed(count: int) -> int:
    """Start many programs; end them again, whatever happens."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            started.append(subprocess.Popen(["sleep", "600"]))
    finally:
        print(f"started {len(started)}")
        for program in started:
            program.kill()
        for program in started:
            program.wait()
    return len(started)


breeding = workflow("breeding").task("breed", breed).build()


# --- whose limits ---


@action("niceness")
def niceness() -> int:
    """Return how nice this process is."""
    return os.getpriority(os.PRIO_PROCESS, 0)


@flow("nice-child")
def nice_child() -> int:
    """Return how nice this process is."""
    return os.getpriority(os.PRIO_PROCESS, 0)


@flow("nice-parent")
async def nice_parent(ctx: FlowContext) -> list[int]:
    """Return how nice this process is, then that of an action, then that of another workflow."""
    mine = await ctx.step("mine", nice_child.function)
    return [mine, await ctx.run_action(niceness, isolated=True), await ctx.wait_for(await ctx.start(nice_child))]


# --- ways to die ---


def spin_in_a_thread() -> None:
    while True:
        pass


async def spin_on_the_loop() -> None:
    while True:
        pass


def spin_in_c() -> None:
    pow(7, 10**8)


async def spin_in_c_on_the_loop() -> None:
    pow(7, 10**8)


def block_in_a_thread() -> None:
    threading.Event().wait()


async def block_the_loop() -> None:
    time.sleep(600)


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def deadlock() -> None:
    ctypes.PyDLL(None).sleep(600)


def segfault() -> None:
    ctypes.string_at(0)


def spin_deaf() -> None:
    ctypes.CDLL(None).signal(int(signal.SIGXCPU), ctypes.c_void_p(SIGXCPU_IGNORED))
    while True:
        pass


def leave(code: int) -> None:
    os._exit(code)


WAYS: dict[str, Any] = {
    "segfault": segfault,
    "exit 0": lambda: leave(0),
    "exit 3": lambda: leave(3),
    "memory": lambda: (fill(600 * MB), time.sleep(600)),
    "kill": lambda: (os.kill(os.getpid(), signal.SIGKILL), time.sleep(600)),
    "term": lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(600)),
    "deadlock": deadlock,
    "cpu": spin_in_a_thread,
    "cpu, deaf": spin_deaf,
}


def die(way: str) -> str:
    """Say a word on each stream and die."""
    print(f"about to die: {way}")
    print(f"alas: {way}", file=sys.stderr)
    WAYS[way]()
    raise AssertionError(way)


dying_of = workflow("dying-of").task("prepare", lambda: 1).task("die", die).build()
dying_of_cpu = workflow("dying-of-cpu").task("die", die).build()

OVERLONG = (
    spin_in_a_thread,
    spin_on_the_loop,
    spin_in_c,
    spin_in_c_on_the_loop,
    block_in_a_thread,
    block_the_loop,
    wait_for_ever,
)
#: Workflows of one step each that goes on for ever, with a timeout and without.
overlong = {f.__name__: workflow(f"timed-{f.__name__}").task("long", f, timeout="1s").build() for f in OVERLONG}
endless = {f.__name__: workflow(f"endless-{f.__name__}").task("long", f).build() for f in OVERLONG}
globals().update({found.name.replace("-", "_"): found for found in (*overlong.values(), *endless.values())})


# --- descendants that do not want to go ---

ESCAPE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for at in range(int(sys.argv[3])):
    if os.fork(): os._exit(0)
    os.setsid()
with open(sys.argv[1], "a") as file: file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def found(end: str, ctx: Context) -> str:
    """Start programs that escape in several ways and hold every descriptor of this process; end as asked."""
    pids = ctx.metadata["pids"]
    for environ in (None, {}):
        for forks in ("0", "1", "2"):
            command = [sys.executable, "-S", "-c", ESCAPE, pids, "-", forks]
            subprocess.Popen(command, env=environ, close_fds=False, start_new_session=forks == "1")
    if not os.fork():  # a copy of this process, with every connection and database handle that it has
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(pids, "a") as file:
            file.write(f"{os.getpid()}\n")
        while True:
            time.sleep(600)
    while not os.path.exists(pids) or len(Path(pids).read_text().split()) < 7:
        time.sleep(0.01)
    if ctx.attempt == 1 and end != "normal":
        if end == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    return "founded"


founding = workflow("founding").task("found", found, timeout="30s").build()
founding_timed = workflow("founding-timed").task("found", found, timeout="6s").build()
