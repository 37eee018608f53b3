"""What an examination finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Level", "note", "ok", "problem"]


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"  # looked at, and as it should be
    NOTE = "note"  # worth knowing; nothing need be done
    PROBLEM = "problem"  # something does not work, or will not


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: machine, database or run directory.
        level: how bad it is.
        text: what was found, in plain words.
        advice: what to do about it; empty where there is nothing to do.
    """

    area: str
    level: Level
    text: str
    advice: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


def ok(area: str, text: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(area, Level.OK, text)


def note(area: str, text: str, advice: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(area, Level.NOTE, text, advice)


def problem(area: str, text: str, advice: str) -> Finding:
    """Return a finding that somebody should act on."""
    return Finding(area, Level.PROBLEM, text, advice)
