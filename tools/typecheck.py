"""Run mypy over the shipped packages under the names that users import, and over tests/typing.

pyproject.toml maps folders to packages (`runtime/` is `paddock.runtime`), which mypy cannot read. So this lays a tree of links
under build/typecheck that has the shape of the installed package, runs mypy inside it (mypy looks into its working directory
before anything that is installed), and writes the messages back in terms of the checkout's paths.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "typecheck"
CASES = Path("tests") / "typing"


def mapping() -> dict[str, str]:
    """Return package name → folder, as pyproject.toml maps them."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return dict(config["tool"]["setuptools"]["package-dir"])


def lay_links(packages: dict[str, str]) -> None:
    """Build the tree afresh: each mapped folder is one link, but `paddock` itself, which has to hold the others."""
    shutil.rmtree(TREE, ignore_errors=True)
    (TREE / "paddock").mkdir(parents=True)
    for name, folder in packages.items():
        if "." in name:
            TREE.joinpath(*name.split(".")).symlink_to(ROOT / folder)
            continue
        for item in (ROOT / folder).iterdir():
            if item.name != "__pycache__":
                (TREE / name / item.name).symlink_to(item)
    if any((ROOT / CASES).glob("*.py")):
        (TREE / CASES).parent.mkdir(parents=True)
        (TREE / CASES).symlink_to(ROOT / CASES)


def main() -> int:
    """Check, print what mypy says, and return its exit status."""
    packages = mapping()
    lay_links(packages)
    targets = ["paddock", *([str(CASES)] if (TREE / CASES).exists() else [])]
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), *sys.argv[1:], *targets]
    result = subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, text=True, check=False)
    places = {name.replace(".", "/") + "/": folder + "/" for name, folder in packages.items() if "." in name}
    for line in result.stdout.splitlines():
        place = next((place for place in places if line.startswith(place)), None)
        print(line if place is None else places[place] + line.removeprefix(place))
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
