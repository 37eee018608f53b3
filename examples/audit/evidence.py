"""Collect what happened from two sides, the events and the ledger, and hold one against the other."""

import os
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paddock import Event
from paddock.examples.audit.ledger import Line, read_ledger

__all__ = ["Evidence"]

_HANDLERS = ("task", "poll")


class Evidence:
    """What the events said; `show` compares it with the ledger."""

    def __init__(self, out: str) -> None:
        """Begin with nothing."""
        self._out = out
        self.cursor = 0
        self.instance: dict[str, Any] | None = None
        self.killed: list[int] = []
        self.measured: set[str] = set()
        self.measuring: set[str] = set()
        self._finished: dict[str, datetime] = {}
        self._problems: list[str] = []

    @property
    def in_flight(self) -> list[str]:
        """Return what is being measured now, by short names."""
        return sorted(step.removeprefix("measure/") for step in self.measuring)

    def take(self, event: Event) -> None:
        """Note an event."""
        if event.id <= self.cursor:
            self._problems.append(f"event {event.id} came again")
        self.cursor = max(self.cursor, event.id)
        step = str(event.data.get("step"))
        if event.name == "workflow.resumed":
            self.measuring.clear()
        elif event.name == "workflow.step.started" and "/batch-" in step:
            self.measuring.add(step)
        elif event.name == "workflow.step.completed":
            self.measuring.discard(step)
            if step in self._finished:
                self._problems.append(f"step {step} finished twice")
            self._finished[step] = event.created_at
            if "/batch-" in step:
                self.measured.add(step)

    def show(self, console: Console) -> int:
        """Print the table and the verdict; return the exit code."""
        ledger = read_ledger(os.path.join(self._out, "ledger.txt"))
        problems = self._check(ledger)
        steps = self.instance["step_results"] if self.instance is not None else {}
        if self.instance is not None:
            console.print(self._table(self.instance, ledger))
        for problem in problems:
            console.print(Text(f"NOT AS IT SHOULD BE: {problem}", style="bold red"), soft_wrap=True)
        if problems:
            console.print(f"Everything is kept in {self._out}", soft_wrap=True)
            return 1
        again = sum(step["attempts"] > 1 for step in steps.values())
        console.print(
            Text(
                f"Two processes were killed (kill -9 {' and '.join(map(str, self.killed))}). "
                f"{len(self._finished)} steps finished, each once. "
                f"{again} that were cut off in the middle began again; no finished step did.",
                style="bold green",
            )
        )
        console.print(f"\nreport       {os.path.join(self._out, 'report.html')}", soft_wrap=True)
        console.print(f"for programs {os.path.join(self._out, 'report.json')}", soft_wrap=True, style="dim")
        console.print(
            f"look inside  paddock show audit --db {os.path.join(self._out, 'audit.db')}", soft_wrap=True, style="dim"
        )
        return 0

    def _check(self, ledger: list[Line]) -> list[str]:
        """Return what speaks against the claim that no finished step ran again."""
        problems = list(self._problems)
        if self.instance is None:
            return [*problems, "the audit did not come to its end"]
        if self.instance["status"] != "completed":
            problems.append(f"the audit ended as {self.instance['status']}: {self.instance['error']}")
        if len(self.killed) < 2:  # noqa: PLR2004  a child and a server
            problems.append("the audit was over before both kills; give it a larger tree with --source")
        problems += [
            f"step {step} finished, but no event said so"
            for step, result in self.instance["step_results"].items()
            if result["status"] == "completed" and step not in self._finished
        ]
        problems += [
            f"step {line.step} began again in process {line.pid} after it had finished"
            for line in ledger
            if line.what == "begin" and was_over(self._finished.get(line.step), line.at)
        ]
        ended = {line.step for line in ledger if line.what == "end"}
        problems += [
            f"step {step} counts as finished, but never came to its end"
            for step in {line.step for line in ledger} & self._finished.keys() - ended
        ]
        return problems

    def _table(self, instance: dict[str, Any], ledger: list[Line]) -> Table:
        table = Table(title="Steps that run code", title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("step")
        table.add_column("attempts", justify="right")
        table.add_column("ledger: begun", justify="right")
        table.add_column("ended", justify="right")
        table.add_column("at", justify="right")
        table.add_column("took", justify="right")
        table.add_column("in process")
        began = datetime.fromisoformat(instance["started_at"])
        for step, result in instance["step_results"].items():
            if result["kind"] not in _HANDLERS:
                continue
            lines = [line for line in ledger if line.step == step]
            begun = [line for line in lines if line.what == "begin"]
            start, end = (datetime.fromisoformat(result[key]) for key in ("started_at", "completed_at"))
            notes = f"{result['poll_count']} checks" if result["kind"] == "poll" else _pids(begun)
            table.add_row(
                step,
                str(result["attempts"]),
                str(len(begun)) if begun else "",
                str(len(lines) - len(begun)) if begun else "",
                f"{(start - began).total_seconds():.1f} s",
                f"{(end - start).total_seconds():.2f} s",
                notes,
                style="yellow" if result["attempts"] > 1 else "",
            )
        return table


def was_over(finished: datetime | None, begun: datetime) -> bool:
    """Tell whether a step had finished when it began."""
    return finished is not None and begun > finished


def _pids(lines: list[Line]) -> str:
    return ", then ".join(dict.fromkeys(str(line.pid) for line in lines))
