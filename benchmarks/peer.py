"""A peer beside us in the same run: a program in an environment of its own, driven over its standard input and output."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Peer"]


class Peer:
    """Hold a peer's process. Times are seconds."""

    def __init__(self, python: str, program: str) -> None:
        """Start it and wait until it is warm.

        Raises:
            RuntimeError: it did not come up; its own words stand above.
        """
        path = Path(__file__).with_name(program)
        self._process = subprocess.Popen(
            [python, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.version = self._answer()

    def ask(self, question: str) -> float:
        """Return how long it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(
                f"the peer {' '.join(map(str, self._process.args))} has ended; run it by hand to see why"
            )  # type: ignore[arg-type]
        return line

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
