"""Durations as users write them: seconds, `timedelta`, or text such as "500ms", "30s", "5min", "2h", "30d"."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

from .errors import ConfigError

__all__ = ["Duration", "DurationLike", "is_duration", "parse_duration"]

DurationLike = float | timedelta | str

_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def parse_duration(value: DurationLike) -> float:
    """Return `value` in seconds.

    Args:
        value: seconds, a `timedelta`, or text made of numbers with units (ms, s, min, h, d, w), such as "1h 30min".

    Raises:
        ConfigError: the value is negative, not finite, or no duration; it is named in the message.
    """
    seconds = _seconds(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ConfigError(f"{value!r} is no duration: it must be finite and not negative")
    return seconds


def is_duration(value: object) -> bool:
    """Tell whether a value is a duration."""
    try:
        parse_duration(value)  # type: ignore[arg-type]  # what it is, is the question
    except ConfigError:
        return False
    return True


def _seconds(value: DurationLike) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str):
        text, position, total = value.strip().lower(), 0, 0.0
        while match := _PART.match(text, position):
            if match[2] not in _UNITS:
                break
            total += float(match[1]) * _UNITS[match[2]]
            position = match.end()
        if text and position == len(text):
            return total
    raise ConfigError(
        f'{value!r} is no duration: give seconds, a timedelta, or text such as "500ms", "30s", "5min", "2h", "30d"'
    )


def _validate(value: object) -> float:
    try:
        return parse_duration(value)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ValueError(str(error)) from None


#: A pydantic field type: accepts every form of duration and holds seconds.
Duration = Annotated[float, BeforeValidator(_validate)]
