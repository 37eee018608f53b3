"""When a failed step is tried again: a policy and one pure function."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..base.duration import Duration
from ..base.errors import InvalidWorkflow
from ..base.values import describe_validation

__all__ = ["ONCE", "Retry", "next_delay"]


class Retry(BaseModel):
    """How a step is retried.

    Attributes:
        max_attempts: tries in all, the first included; a crash of the process spends none.
        interval: seconds before the first retry.
        backoff_rate: factor from one delay to the next.
        max_interval: upper bound of a delay, in seconds.
        retry_on: exception types, and regular expressions searched in ``"Type: message"``; empty means every exception.
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
    def of(cls, value: Retry | dict[str, Any] | int | None, default: Retry | None = None) -> Retry:
        """Return a policy from what users write: a `Retry`, its fields, or a number of attempts.

        Fields that a mapping leaves out come from `default`.
        """
        if value is None:
            return default or ONCE
        if isinstance(value, Retry):
            return value
        if isinstance(value, int):
            value = {"max_attempts": value}
        return cls(**{**(default.model_dump() if default else {}), **value})


#: No retry.
ONCE = Retry(max_attempts=1)


def next_delay(policy: Retry, failures: int, error: BaseException) -> float | None:
    """Return the seconds until the next try after `failures` failed ones, or None when the step has failed for good."""
    if failures >= policy.max_attempts or not _matches(policy, error):
        return None
    delay = policy.interval * policy.backoff_rate ** (failures - 1)
    if policy.max_interval is not None:
        delay = min(delay, policy.max_interval)
    return delay * (1 + random.random() * policy.jitter)  # noqa: S311  spreads load, guards nothing


def _matches(policy: Retry, error: BaseException) -> bool:
    if not policy.retry_on:
        return True
    text = f"{type(error).__name__}: {error}"
    return any(re.search(item, text) if isinstance(item, str) else isinstance(error, item) for item in policy.retry_on)
