"""What a person sees on the terminal while an instance runs: one line that lives, and lines that stay."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from ..base.records import Event

__all__ = ["Progress"]

_LINES: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "workflow.resumed": lambda data: (f"goes on in process {data.get('pid')}", "yellow"),
    "workflow.step.retry": lambda data: (
        f"{data.get('step')}: attempt {data.get('attempt')} failed, again in {data.get('delay', 0):g} s: {_why(data)}",
        "yellow",
    ),
    "workflow.step.failed": lambda data: (f"{data.get('step')} failed: {_why(data)}", "red"),
    "workflow.watchdog.stale": lambda data: (f"the process is stale: {data.get('reason')}", "red"),
}


class Progress:
    """Follow one instance on a terminal; elsewhere, show nothing."""

    def __init__(self, screen: Console, name: str) -> None:
        """Hold the console; entering shows the line."""
        self._screen = screen
        self._shown = screen.is_terminal
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TextColumn("{task.fields[step]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=screen,
            transient=True,
            disable=not self._shown,
        )
        self._task = self._bar.add_task(name, total=100.0, step="starting")

    def __enter__(self) -> Self:
        """Show the line."""
        if self._shown:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        if self._shown:  # rich before 14 says goodbye with an empty line, shown or not
            self._bar.stop()

    def take(self, event: Event) -> None:
        """Show what an event tells."""
        if not self._shown:
            return
        data = event.data
        if event.name == "workflow.progress":
            self._bar.update(self._task, completed=data.get("progress") or 0.0)
        elif event.name == "workflow.step.started":
            self._bar.update(self._task, step=str(data.get("step") or ""))
        elif event.name == "workflow.suspended":
            self._bar.update(self._task, step=str(data.get("reason") or ""))
        elif event.name == "log.workflow":
            source = data.get("step_name") or ""
            self._say(f"{source}: " if source else "", str(data.get("message", "")), _style(str(data.get("level"))))
        if (line := _LINES.get(event.name)) is not None:
            text, style = line(data)
            self._say("", text, style)

    def _say(self, before: str, text: str, style: str) -> None:
        self._bar.console.print(Text.assemble((before, "dim"), (text, style)), soft_wrap=True)


def _style(level: str) -> str:
    return {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}.get(level, "")


def _why(data: dict[str, Any]) -> str:
    error = data.get("error") or {}
    return f"{error.get('type')}: {error.get('message')}" if isinstance(error, dict) else str(error)
