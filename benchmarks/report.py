"""Figures and ratios: medians with their spread, as a table and as JSON."""

import json
import os
import platform
import sqlite3
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

__all__ = ["FIGURES", "RATIOS", "Figure", "Ratio", "Results"]

Unit = Literal["ms", "/s"]


@dataclass(frozen=True)
class Figure:
    """Something that was measured."""

    label: str
    unit: Unit


@dataclass(frozen=True)
class Ratio:
    """One figure over another, taken within each round, so that what slows the machine slows both."""

    label: str
    over: str
    under: str
    at_most: float | None = None


FIGURES = {
    "floor-sqlite3-full": Figure("floor: sqlite3, FULL", "ms"),
    "floor-sqlite3-normal": Figure("floor: sqlite3, NORMAL", "ms"),
    "floor-aiosqlite-full": Figure("floor: aiosqlite, FULL", "ms"),
    "floor-aiosqlite-normal": Figure("floor: aiosqlite, NORMAL", "ms"),
    "floor-rate-sqlite3": Figure("floor: 8 in flight, sqlite3, FULL", "/s"),
    "floor-rate-aiosqlite": Figure("floor: 8 in flight, aiosqlite, FULL", "/s"),
    "floor-five-hundred-sqlite3": Figure("floor: 500 commits, sqlite3, FULL", "ms"),
    "floor-five-hundred-aiosqlite": Figure("floor: 500 commits, aiosqlite, FULL", "ms"),
    "one-step": Figure("1 step, start to completed event", "ms"),
    "ten-steps": Figure("10 steps, start to completed event", "ms"),
    "five-hundred-steps": Figure("500 steps, start to completed event", "ms"),
    "rate": Figure("10 steps, 8 in flight", "/s"),
    "start": Figure("start to first step's begin", "ms"),
    "resume": Figure("SIGKILL to next step's begin", "ms"),
    "dbos-ten": Figure("DBOS in process: 10 steps", "ms"),
    "dbos-five-hundred": Figure("DBOS in process: 500 steps", "ms"),
    "dbos-rate": Figure("DBOS in process: 10 steps, 8 in flight", "/s"),
}

RATIOS = {
    "one-step": Ratio("1 step ÷ floor", "one-step", "floor-aiosqlite-full"),
    "one-step-sqlite3": Ratio("1 step ÷ floor with sqlite3", "one-step", "floor-sqlite3-full"),
    "ten-steps": Ratio("10 steps ÷ floor", "ten-steps", "floor-aiosqlite-full", at_most=3),
    "ten-steps-sqlite3": Ratio("10 steps ÷ floor with sqlite3", "ten-steps", "floor-sqlite3-full"),
    "five-hundred-steps": Ratio(
        "500 steps ÷ floor of 500 commits", "five-hundred-steps", "floor-five-hundred-aiosqlite"
    ),
    "five-hundred-steps-sqlite3": Ratio(
        "500 steps ÷ floor of 500 commits with sqlite3", "five-hundred-steps", "floor-five-hundred-sqlite3"
    ),
    "growth": Ratio("500 steps ÷ 10 steps", "five-hundred-steps", "ten-steps"),
    "rate": Ratio("floor's rate ÷ 10 steps' rate, 8 in flight", "floor-rate-aiosqlite", "rate", at_most=2),
    "rate-sqlite3": Ratio("the same, floor with sqlite3", "floor-rate-sqlite3", "rate"),
    "resume": Ratio("SIGKILL to next step ÷ plain start", "resume", "start", at_most=5),
    "dbos-ten": Ratio("10 steps ÷ DBOS", "ten-steps", "dbos-ten", at_most=1 / 3),
    "dbos-five-hundred": Ratio("500 steps ÷ DBOS", "five-hundred-steps", "dbos-five-hundred", at_most=1 / 10),
    "dbos-five-hundred-floor": Ratio(
        "floor of 500 commits with sqlite3 ÷ DBOS, 500 steps", "floor-five-hundred-sqlite3", "dbos-five-hundred"
    ),
    "dbos-rate": Ratio("DBOS' rate ÷ 10 steps' rate, 8 in flight", "dbos-rate", "rate", at_most=1 / 5),
    "dbos-rate-floor": Ratio("DBOS' rate ÷ floor's rate, 8 in flight", "dbos-rate", "floor-rate-aiosqlite"),
}


@dataclass
class Results:
    """What each round found: for each figure its value in each round (milliseconds, or instances per second)."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    peer: str | None = None

    @property
    def figures(self) -> dict[str, Figure]:
        """Return what was measured; a peer need not be there."""
        return {key: figure for key, figure in FIGURES.items() if key in self.rounds[0]}

    @property
    def ratios(self) -> dict[str, Ratio]:
        """Return the ratios of what was measured."""
        there = self.figures.keys()
        return {key: ratio for key, ratio in RATIOS.items() if {ratio.over, ratio.under} <= there}

    def figure(self, key: str) -> list[float]:
        """Return a figure's values."""
        return [found[key] for found in self.rounds]

    def ratio(self, key: str) -> list[float]:
        """Return a ratio's values."""
        ratio = RATIOS[key]
        return [found[ratio.over] / found[ratio.under] for found in self.rounds]

    def as_json(self) -> dict[str, Any]:
        """Return everything, the values of each round too."""
        figures = {
            key: {"label": figure.label, "unit": figure.unit, **_summary(self.figure(key)), "values": self.figure(key)}
            for key, figure in self.figures.items()
        }
        ratios = {
            key: {
                "label": ratio.label,
                **_summary(self.ratio(key)),
                "target": ratio.at_most,
                "met": self._met(key),
                "values": self.ratio(key),
            }
            for key, ratio in self.ratios.items()
        }
        return {
            "machine": machine(),
            "peer": self.peer,
            "rounds": len(self.rounds),
            "figures": figures,
            "ratios": ratios,
        }

    def _met(self, key: str) -> bool | None:
        limit = RATIOS[key].at_most
        return None if limit is None else median(self.ratio(key)) <= limit

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.write_text(json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def show(self, console: Console) -> None:
        """Print both tables."""
        facts = machine()
        console.print(
            f"Paddock {facts['paddock']} on {facts['name']}, Python {facts['python']}, SQLite {facts['sqlite']}; "
            f"{'' if self.peer is None else self.peer + '; '}{len(self.rounds)} rounds, all kinds interleaved; median, and the middle half of the rounds"
        )
        console.print(self._figures())
        console.print(self._ratios())

    def _figures(self) -> Table:
        table = _table("figure", "median", "middle half", "")
        for key, figure in self.figures.items():
            found = _summary(self.figure(key))
            spread = f"{found['low']:.1f} … {found['high']:.1f}"
            table.add_row(figure.label, f"{found['median']:.1f}", spread, figure.unit)
        return table

    def _ratios(self) -> Table:
        table = _table("ratio (floor: aiosqlite, FULL)", "median", "middle half", "target")
        verdicts = {None: "", True: "met", False: "[bold]missed[/bold]"}
        for key, ratio in self.ratios.items():
            found = _summary(self.ratio(key))
            target = "" if ratio.at_most is None else f"≤ {ratio.at_most:.3g} {verdicts[self._met(key)]}"
            table.add_row(ratio.label, f"{found['median']:.2f}", f"{found['low']:.2f} … {found['high']:.2f}", target)
        return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number in (1, 2) else "left", no_wrap=True)
    return table


def _summary(values: list[float]) -> dict[str, float]:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": median(values), "low": low, "high": high}


def machine() -> dict[str, Any]:
    """Return what the figures depend on, and nothing that names somebody's machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "name": f"{cores}-core {platform.machine()} {platform.system()}",
        "cores": cores,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "paddock": version("paddock"),
    }
