"""Measure Paddock against the floor of this machine: `make bench`, or `python benchmarks/run.py [--quick] [--rounds N] [--json PATH] [--dbos PYTHON]`.

Every round takes every figure, one after the other, and ratios are taken within a round: other work on the machine, which comes and goes,
then weighs on both sides. Nothing is left behind: the databases lie in a temporary folder, and the processes end with the run.
"""

import argparse
import asyncio
import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from floor import LIBRARIES, SYNCHRONOUS, Floor
from peer import Peer
from report import Results
from rich.console import Console
from stopwatch import Stopwatch, make_server
from subjects import five_hundred_steps, one_step, ten_steps

_IN_FLIGHT = 8
_VARIANTS = [(library, synchronous) for library in LIBRARIES for synchronous in SYNCHRONOUS]


@dataclass(frozen=True)
class Plan:
    """How much is measured: rounds, repetitions of what is short within a round, instances for a rate."""

    rounds: int = 15
    repeats: int = 3
    count: int = 32


QUICK = Plan(rounds=2, repeats=1, count=8)


async def measure(plan: Plan, folder: Path, console: Console, dbos: str | None) -> Results:
    """Run the rounds, after one that warms everything up and does not count."""
    results = Results()
    with Floor(folder) as floor, contextlib.ExitStack() as stack:
        peer = stack.enter_context(Peer(dbos, "peer_dbos.py")) if dbos is not None else None
        results.peer = f"DBOS {peer.version}" if peer is not None else None
        async with make_server(folder) as server:
            watch = Stopwatch(server)
            with console.status("warming up") as status:
                await take_round(Plan(1, 1, _IN_FLIGHT), floor, watch, peer)
                for number in range(1, plan.rounds + 1):
                    status.update(f"round {number} of {plan.rounds}")
                    results.rounds.append(await take_round(plan, floor, watch, peer))
    return results


async def take_round(plan: Plan, floor: Floor, watch: Stopwatch, peer: Peer | None) -> dict[str, float]:
    """Take every figure once; what is short, a few times in turns."""
    times: dict[str, list[float]] = {}

    def note(key: str, seconds: float) -> None:
        times.setdefault(key, []).append(seconds * 1000)

    for _ in range(plan.repeats):
        for library, synchronous in _VARIANTS:
            note(f"floor-{library}-{synchronous.lower()}", await asyncio.to_thread(floor.run, library, synchronous))
        note("one-step", await watch.complete_alone(one_step.name))
        note("ten-steps", await watch.complete_alone(ten_steps.name))
        if peer is not None:
            note("dbos-ten", await asyncio.to_thread(peer.ask, "one 10"))
        start, resume = await watch.resume()
        note("start", start)
        note("resume", resume)
    for library in LIBRARIES:
        note(f"floor-five-hundred-{library}", await asyncio.to_thread(floor.run, library, "FULL", rows=500))
    note("five-hundred-steps", await watch.complete_alone(five_hundred_steps.name))
    if peer is not None:
        note("dbos-five-hundred", await asyncio.to_thread(peer.ask, "one 500"))
    found = {key: median(values) for key, values in times.items()}
    if peer is not None:
        found["dbos-rate"] = plan.count / await asyncio.to_thread(peer.ask, f"rate {plan.count} {_IN_FLIGHT} 10")
    for library in LIBRARIES:
        spent = await asyncio.to_thread(floor.run, library, "FULL", count=plan.count, in_flight=_IN_FLIGHT)
        found[f"floor-rate-{library}"] = plan.count / spent
    found["rate"] = plan.count / await watch.rate(ten_steps.name, plan.count, _IN_FLIGHT)
    await watch.quiet()
    return found


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure Paddock against the floor of this machine.")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: that it works, not how fast")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how many rounds (default {Plan.rounds})")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there, each round's values too")
    parser.add_argument("--dbos", metavar="PYTHON", help="an interpreter that has DBOS: measure it in the same rounds")
    chosen = parser.parse_args()
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    return chosen


def main() -> int:
    """Measure, print, and check that nothing is left; return the exit status."""
    chosen = options()
    plan = QUICK if chosen.quick else Plan()
    if chosen.rounds is not None:
        plan = Plan(chosen.rounds, plan.repeats, plan.count)
    said = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="paddock-bench-") as folder, contextlib.redirect_stderr(said):
        results = asyncio.run(measure(plan, Path(folder), Console(file=sys.__stderr__), chosen.dbos))
    for line in said.getvalue().splitlines():
        if "goes on in another" not in line:  # said at each kill
            print(line, file=sys.stderr)
    results.show(Console(width=None if sys.stdout.isatty() else 120))
    if chosen.json is not None:
        results.write(chosen.json)
    left = psutil.Process().children(recursive=True)
    for process in left:
        print(f"left behind: {process}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
