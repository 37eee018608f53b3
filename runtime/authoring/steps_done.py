"""What a flow's steps have come to so far, by name: `ctx.steps` where the code decides which steps there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["StepsDone"]


class StepsDone(Mapping[str, Any]):
    """Outputs of completed steps; of several under one name the latest counts.

    The latest is the one that the code has asked for last, not the one that ended last: a replay must show the same. Of strands side by
    side nobody can tell which asks first, so among them the order of their paths counts.
    """

    def __init__(self, outer: Mapping[str, Any] | None = None) -> None:
        """Begin with none of its own; `outer` are those of the flow that this one is a part of."""
        self._outer = outer or {}
        self._places: dict[str, tuple[int, str, int]] = {}
        self._read: dict[str, Callable[[], Any]] = {}
        self._values: dict[str, Any] = {}
        self._gathers = 0

    def note(self, name: str, key: str, read: Callable[[], Any]) -> None:
        """Note that a step has completed; `read` gives its output anew."""
        scope, _, last = key.rpartition("/")
        place = (self._gathers, scope, int(last.rpartition("#")[2]) if "#" in last else 1)
        if name not in self._places or place >= self._places[name]:
            self._places[name], self._read[name] = place, read
            self._values.pop(name, None)

    def gathered(self) -> None:
        """Note that what ran side by side is over: whatever comes now is later."""
        self._gathers += 1

    def __getitem__(self, name: str) -> Any:
        """Return the output of the latest step of a name."""
        if name not in self._read:
            return self._outer[name]
        if name not in self._values:
            self._values[name] = self._read[name]()
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter({**self._outer, **self._read})

    def __len__(self) -> int:
        """Count the names."""
        return len({*self._outer, *self._read})
