"""What the demonstration looks like: bars that live on a terminal, plain lines anywhere else."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from paddock import Event

__all__ = ["Screen"]


class Screen:
    """Show events as they come."""

    def __init__(self, console: Console) -> None:
        """Hold the console."""
        self._console = console
        self._began = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(bar_width=36),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[what]}", style="dim", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("audit", total=100.0, what="")
        self._parts: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take them away; the lines stay."""
        self._bars.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line that stays."""
        stamp = f"{time.monotonic() - self._began:5.1f} s  "
        self._bars.console.print(Text.assemble((stamp, "dim"), (text, style)), soft_wrap=True)

    def clear_parts(self) -> None:
        """Take back what the branches have begun and not finished: it is lost."""
        for bar in self._parts.values():
            self._bars.update(bar, what="")

    def take(self, event: Event) -> None:
        """Show one event."""
        data = event.data
        step = str(data.get("step") or data.get("current_step") or "")
        if event.name == "workflow.started":
            self.say(f"Process {data['pid']} works.", "cyan")
        elif event.name == "workflow.resumed":
            self.say(f"Process {data['pid']} goes on where the last one was killed.", "cyan")
        elif event.name == "workflow.step.completed" and "together" not in step:
            self.say(f"finished  {step}", "green")
        elif event.name == "workflow.step.retry":
            self.say(f"again     {step}", "yellow")
        elif event.name == "workflow.step.failed":
            self.say(f"failed    {step}: {data.get('error')}", "red")
        elif event.name == "workflow.progress":
            self._progress(step, data)

    def _progress(self, step: str, data: dict[str, object]) -> None:
        progress = data.get("progress")
        if isinstance(progress, int | float):
            self._bars.update(self._all, completed=float(progress), what="" if "/" in step else step)
        inner = data.get("step_progress")
        path = step.split("/")
        if isinstance(inner, dict) and len(path) == 3:  # noqa: PLR2004  measure/part/batch
            _, part, batch = path
            if part not in self._parts:
                self._parts[part] = self._bars.add_task(part, total=1.0, what="")
            what = f"{batch}: {inner['done']} of {inner['of']} modules"
            self._bars.update(self._parts[part], completed=inner["done"], total=inner["of"], what=what)
