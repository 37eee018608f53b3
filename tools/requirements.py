"""Print the dependencies that pyproject.toml declares, one a line: as ranges, or with --oldest the lower ends alone."""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def oldest(requirement: str) -> str:
    """Return the requirement pinned to the lower end of its range."""
    match = re.match(r"([A-Za-z0-9_.\[\]-]+)>=([0-9.]+)", requirement)
    if match is None:
        raise SystemExit(f"{PYPROJECT.name}: {requirement!r} has no lower bound")
    return "{}=={}".format(*match.groups())


def main() -> None:
    """Print the list."""
    for requirement in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]:
        print(oldest(requirement) if "--oldest" in sys.argv[1:] else requirement)


if __name__ == "__main__":
    main()
