"""Audit a tree of Python code: the first real example of a workflow.

    python -m paddock.examples.code_audit                    audit the standard library
    python -m paddock.examples.code_audit --source src       audit another tree
    python -m paddock.examples.code_audit --demo             the same, with processes killed in the middle

It finds the modules, starts a separate program that indexes them, measures them in branches side by side (all in a process of its
own, so your application never notices the load), polls until the index is there, and writes a report as JSON and as HTML.

The parts that have nothing to do with workflows are in `audit/`.
"""

import argparse
import asyncio
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from paddock import AppServer, Context, Event, Poll, branch, workflow
from paddock.examples.audit import indexer, report
from paddock.examples.audit.ledger import noted
from paddock.examples.audit.measure import Module, find_modules, measure_module

PARTS = 4
BATCHES = 4
SMALL = 40
ENDS = ("workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.timed_out")


# What goes in and out of the steps. Annotations are the schema: values are checked, stored as JSON, and come back as these types.


@dataclass
class Job:
    """What to audit, and the folder for everything that comes of it."""

    source: str
    out: str

    def file(self, name: str) -> str:
        """Return the path of a file in that folder."""
        return os.path.join(self.out, name)


@dataclass
class Found:
    """The modules, dealt into batches of about the same size."""

    modules: int
    bytes: int
    batches: dict[str, list[str]]


# The steps. Plain functions run in worker threads of the instance's process; they may block and burn CPU as they like.


def discover(job: Job) -> Found:
    """Find the modules and deal them out, each to the batch that is the smallest so far."""
    with noted(job.file("ledger.txt"), "discover"):
        modules = find_modules(job.source)
        names = [f"part-{part}/batch-{batch}" for part in range(1, PARTS + 1) for batch in range(1, BATCHES + 1)]
        sizes = dict.fromkeys(names, 0)
        batches: dict[str, list[str]] = {name: [] for name in names}
        for path, size in modules:
            smallest = min(names, key=sizes.__getitem__)
            batches[smallest].append(path)
            sizes[smallest] += size
        return Found(len(modules), sum(sizes.values()), batches)


def start_index(job: Job, ctx: Context) -> bool:
    """Start the separate program that builds the index, and do not wait for it."""
    with noted(job.file("ledger.txt"), "start-index"):
        found: Found = ctx.steps["discover"]
        with open(job.file("modules.json"), "w", encoding="utf-8") as file:
            json.dump([path for paths in found.batches.values() for path in paths], file)
        return indexer.ensure_running(job.source, job.file("modules.json"), job.file("index.json"))


def measure_batch(name: str) -> Callable[[Job, Context], list[Module]]:
    """Return the handler that measures one batch."""

    def measure(job: Job, ctx: Context) -> list[Module]:
        with noted(job.file("ledger.txt"), f"measure/{name}"):
            found: Found = ctx.steps["discover"]
            return _measure(job, found.batches[name], ctx)

    return measure


def measure_all(job: Job, ctx: Context) -> list[Module]:
    """Measure a small tree in one go."""
    with noted(job.file("ledger.txt"), "measure-at-once"):
        found: Found = ctx.steps["discover"]
        return _measure(job, [path for paths in found.batches.values() for path in paths], ctx)


def _measure(job: Job, paths: list[str], ctx: Context) -> list[Module]:
    measured = []
    for path in paths:
        measured.append(measure_module(job.source, path))
        if len(measured) % 5 == 0:
            ctx.heartbeat(progress={"done": len(measured), "of": len(paths)})
    return measured


def is_large(ctx: Context) -> bool:
    """Tell whether the tree is worth several branches."""
    found: Found = ctx.steps["discover"]
    return found.modules > SMALL


def all_of(prev: Any) -> list[Any]:
    """Return what was measured, by branches (a dict of their outputs) or at once."""
    return list(chain(*prev.values())) if isinstance(prev, dict) else prev


def collect(modules: list[Module], ctx: Context) -> list[Module]:
    """Put the modules in order, whatever branch they come from."""
    with noted(ctx.input.file("ledger.txt"), "collect"):
        return sorted(modules, key=lambda module: module.path)


def index_ready(job: Job) -> Poll[int]:
    """Look whether the index is there.

    A program that a step has started belongs to the instance's process and ends with it. Should that have happened, the step that
    started it is finished and will not run again; so it is here that the program is started anew.
    """
    try:
        with open(job.file("index.json"), encoding="utf-8") as file:
            return Poll.done(len(json.load(file)))
    except FileNotFoundError:
        indexer.ensure_running(job.source, job.file("modules.json"), job.file("index.json"))
        return Poll.pending()


def write_report(job: Job, ctx: Context) -> dict[str, object]:
    """Write the report, and return where it is and the main figures."""
    with noted(job.file("ledger.txt"), "report"):
        modules: list[Module] = ctx.steps["collect"]
        figures = report.write(job.source, modules, ctx.steps["index-ready"], job.file("report"))
        for scrap in ("modules.json", "index.json.lock"):
            os.unlink(job.file(scrap))
        return {"html": job.file("report.html"), "json": job.file("report.json"), **asdict(figures)}


# The workflow.


def part(name: str) -> Any:
    """Build one branch: its batches one after the other, and what they found as its output."""
    built = branch(name)
    for number in range(1, BATCHES + 1):
        built.task(f"batch-{number}", measure_batch(f"{name}/batch-{number}"))
    return built.pass_("together", transform=together)


def together(ctx: Context) -> list[Any]:
    """Return what all batches of a branch found."""
    return list(chain(*(ctx.steps[f"batch-{number}"] for number in range(1, BATCHES + 1))))


code_audit = (
    workflow("code-audit", input=Job)
    .describe("Audits a tree of Python code.")
    .timeout("1h")
    .task("discover", discover)
    .task("start-index", start_index)
    .choice("by-size", choices=[(is_large, "measure")], default="measure-at-once")
    .parallel("measure", branches=[part(f"part-{n}") for n in range(1, PARTS + 1)], next="collect")
    .task("measure-at-once", measure_all)
    .task("collect", collect, input=all_of)
    .poll("index-ready", index_ready, interval="300ms", timeout="10min")
    .task("report", write_report, end=True)
    .build()
)


# The program: a server, one instance, its events as they come.


async def audit(job: Job, after: int | None, show: Callable[[Event], None]) -> dict[str, object]:
    """Run the audit, or go on with one that was begun in this folder; return the instance's final state as JSON.

    Args:
        job: what to audit.
        after: the last event seen; those that follow are shown, whatever happened meanwhile. None begins with the first.
        show: called with each event.
    """
    async with AppServer(db=job.file("audit.db")) as server:
        server.workflows.register(code_audit)
        ident = await server.workflows.start(code_audit, asdict(job), id="audit")  # the same id again starts nothing
        async for event in server.events.subscribe(instance_id=ident, after=after or 0):
            show(event)
            if event.name in ENDS or event.data.get("reason") == "blocked":
                break
        instance = await server.workflows.wait(ident)
        return instance.model_dump(mode="json", exclude={"step_results": {"__all__": {"input", "output"}}})


def print_line(event: Event) -> None:
    """Show one event to a person."""
    step = event.data.get("step")
    if event.name.startswith("workflow.step.") and step:
        print(f"{event.name.removeprefix('workflow.step.'):>10}  {step}", flush=True)


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(prog="code_audit", description="Audit a tree of Python code.")
    parser.add_argument(
        "--source", default=sysconfig.get_path("stdlib"), help="the tree (default: the standard library)"
    )
    parser.add_argument("--out", help="folder for the report (default: a new one in the temporary directory)")
    parser.add_argument(
        "--demo", action="store_true", help="kill processes in the middle, and prove that nothing ran twice"
    )
    parser.add_argument(
        "--events", type=int, metavar="AFTER", help="print events after this one as JSON lines (for programs)"
    )
    options = parser.parse_args()
    if not os.path.isdir(options.source):
        parser.error(f"there is no folder {options.source}")
    out = options.out or tempfile.mkdtemp(prefix="paddock-audit-")
    os.makedirs(out, exist_ok=True)
    job = Job(os.path.abspath(options.source), os.path.abspath(out))
    if options.demo:
        from paddock.examples.audit.demo import demonstrate

        return demonstrate(job.source, job.out)
    try:
        if options.events is not None:
            end = asyncio.run(audit(job, options.events, lambda event: print(event.model_dump_json(), flush=True)))
            print(json.dumps({"instance": end}), flush=True)
        else:
            end = asyncio.run(audit(job, None, print_line))
            print(f"{end['status']}: {end['error'] or job.file('report.html')}")
    except KeyboardInterrupt:
        print(f"interrupted; to go on: --out {job.out}", file=sys.stderr)
        return 130
    return 0 if end["status"] == "completed" else 1


if __name__ == "__main__":
    sys.exit(main())
