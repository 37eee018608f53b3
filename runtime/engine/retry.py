"""When a failed step is tried again: a policy and one pure function."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..base.duration import Duration
from ..base.errors import InvalidWorkflow
from ..base.values import describe_validation
from .failure import error_name, error_text

__all__ = ["ONCE", "Retry", "grown", "next_delay"]

_LONGEST = 100 * 365 * 86400.0
_FLAGS = {"a": re.ASCII, "i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}
_OWN_FLAGS = re.compile(r"\A\(\?[aimsux]+\)")


class Retry(BaseModel):
    """How a step is retried.

    Attributes:
        max_attempts: tries in all, the first included; a crash of the process spends none.
        interval: seconds before the first retry.
        backoff_rate: factor from one delay to the next.
        max_interval: upper bound of a delay, in seconds.
        retry_on: exception types, and regular expressions (text, or compiled) searched in ``"Type: message"``, or one of them; empty
            means every exception.
        jitter: fraction of the delay that is drawn at random and added, 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    max_attempts: int = Field(default=3, ge=1)
    interval: Duration = 1.0
    backoff_rate: float = Field(default=2.0, ge=1)
    max_interval: Duration | None = None
    retry_on: Sequence[type[BaseException] | str] = ()
    jitter: float = Field(default=0.0, ge=0, le=1)

    def __init__(self, **values: Any) -> None:
        """Check the policy.

        Raises:
            InvalidWorkflow: a value cannot work; it is named.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidWorkflow(f"Retry: {describe_validation(error)}") from None

    @field_validator("retry_on", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        if isinstance(value, str | type | re.Pattern):
            value = (value,)
        if not isinstance(value, set | frozenset | list | tuple):
            return value
        return tuple(_as_text(item) if isinstance(item, re.Pattern) else item for item in value)

    @model_validator(mode="after")
    def _patterns(self) -> Self:
        for item in self.retry_on:
            if isinstance(item, str):
                try:
                    re.compile(item)
                except re.error as error:
                    raise ValueError(f"retry_on: {item!r} is no regular expression: {error}") from None
        return self

    @classmethod
    def of(cls, value: Retry | Mapping[str, Any] | int | None, default: Retry | None = None) -> Retry:
        """Return a policy from what users write: a `Retry`, its fields, or a number of attempts.

        Fields that a mapping leaves out come from `default`.

        Raises:
            InvalidWorkflow: a value cannot work; it is named.
        """
        if value is None:
            return default or ONCE
        if isinstance(value, Retry):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            value = {"max_attempts": value}
        if not isinstance(value, Mapping):
            raise InvalidWorkflow(f"{value!r:.100} is no retry: give a Retry, its fields, or a number of attempts")
        return cls(**{**(default.model_dump() if default else {}), **value})


def _as_text(pattern: re.Pattern[Any]) -> Any:
    """Return a compiled pattern as text, its flags in it: a policy travels to other processes as JSON."""
    if not isinstance(pattern.pattern, str):
        return pattern  # of bytes: refused like anything else that is no text
    flags = "".join(letter for letter, flag in _FLAGS.items() if pattern.flags & flag)
    return f"(?{flags})" * bool(flags) + _OWN_FLAGS.sub("", pattern.pattern)


#: No retry.
ONCE = Retry(max_attempts=1)


def next_delay(policy: Retry, failures: int, error: BaseException) -> float | None:
    """Return the seconds until the next try after `failures` failed ones, or None when the step has failed for good."""
    if failures >= policy.max_attempts or not _matches(policy, error):
        return None
    delay = grown(policy.interval, policy.backoff_rate, failures - 1)
    if policy.max_interval is not None:
        delay = min(delay, policy.max_interval)
    return delay * (1 + random.random() * policy.jitter)  # noqa: S311  spreads load, guards nothing


def grown(first: float, factor: float, times: int) -> float:
    """Return a delay that has grown by a factor so many times, a hundred years at most."""
    try:
        return min(first * factor**times, _LONGEST)
    except OverflowError:
        return _LONGEST if first else 0.0


def _matches(policy: Retry, error: BaseException) -> bool:
    if not policy.retry_on:
        return True
    text = f"{error_name(error)}: {error_text(error)}"
    return any(re.search(item, text) if isinstance(item, str) else isinstance(error, item) for item in policy.retry_on)
