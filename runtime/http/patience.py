"""How long a caller waits for a result: what its call says (`timeout`), or its `Prefer` header (RFC 7240). Pure.

Nobody who says nothing is answered without the result: an answer of 202 that was not asked for would be taken for one.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Patience", "patience_of"]

_LONGEST = 10**9


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait.

    Attributes:
        seconds: None for as long as it takes.
        applied: what of the `Prefer` header that comes from; None where it does not.
    """

    seconds: float | None
    applied: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Return what tells the caller that its preference counted."""
        return {"Preference-Applied": self.applied} if self.applied is not None else {}


def patience_of(prefer: str, timeout: float | None) -> Patience:
    """Return how long a caller waits: the shorter one of the call's `timeout` and the `wait` of its `Prefer` header.

    `respond-async` without a `wait` waits for nothing. Preferences that are unknown or malformed are left out, as the RFC wants.
    """
    preferred = _preferences(prefer)
    wait = preferred.get("wait", "")
    if wait.isascii() and wait.isdigit() and len(wait) < 20:  # noqa: PLR2004
        found = Patience(float(min(int(wait), _LONGEST)), f"wait={int(wait)}")
    elif "respond-async" in preferred:
        found = Patience(0.0, "respond-async")
    else:
        return Patience(timeout)
    return found if timeout is None or float(found.seconds or 0) <= timeout else Patience(timeout)


def _preferences(text: str) -> dict[str, str]:
    """Return preferences with their values; of one that is said twice the first counts."""
    found: dict[str, str] = {}
    for one in text.split(","):
        name, _, value = one.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found
