"""Figures with their targets: as a table, as JSON, and as an exit status."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["Figure", "conclude"]


@dataclass(frozen=True)
class Figure:
    """One figure: what, how much, and what it may be at most (None for what has no target)."""

    label: str
    value: float
    unit: str
    most: float | None = None

    @property
    def met(self) -> bool:
        """Tell whether it is within its target."""
        return self.most is None or self.value <= self.most


def conclude(figures: list[Figure], path: Path | None) -> int:
    """Print the figures, write them where a path is given, and return the exit status: 1 where a target is missed."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "figure", "target"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for figure in figures:
        target = "" if figure.most is None else f"≤ {figure.most:g} {'met' if figure.met else 'MISSED'}"
        table.add_row(figure.label, f"{figure.value:,.2f}".removesuffix(".00") + f" {figure.unit}", target)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if path is not None:
        path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1), encoding="utf-8")
    return 0 if all(figure.met for figure in figures) else 1
