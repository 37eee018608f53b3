"""Try every mutant: `make mutation`. Each takes one line of a guarantee out of a copy of the package; a named test must then fail."""

import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from mutants import MUTANTS, Mutant, copy_package, run, survives


def attempt(mutant: Mutant) -> str | None:
    """Try one mutant in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="pdk-mut-", dir="/tmp"))
    begun = time.monotonic()
    try:
        found = survives(mutant, folder)
    except LookupError as error:
        found = str(error)
    finally:
        shutil.rmtree(folder)
    print(
        f"{'SURVIVES' if found else 'found':8}  {mutant.guarantee:3}  {time.monotonic() - begun:5.1f} s  {mutant.name}",
        flush=True,
    )
    return found


def baseline(mutants: list[Mutant]) -> str | None:
    """See that without a mutation the same tests pass, in the same way."""
    folder = Path(tempfile.mkdtemp(prefix="pdk-mut-", dir="/tmp"))
    try:
        copy_package(folder)
        code, said = run(folder, sorted({mutant.test for mutant in mutants}), "-n", "2")
    finally:
        shutil.rmtree(folder)
    return None if code == 0 else f"without any mutation the tests fail:\n{said[-4000:]}"


def main() -> int:
    """Try those whose name holds one of the words given, or all."""
    words = sys.argv[1:]
    mutants = [
        one
        for one in MUTANTS
        if not words or any(word in (one.name, one.guarantee) or word in one.name for word in words)
    ]
    if found := baseline(mutants):
        print(found)
        return 1
    print(f"without a mutation the tests pass; {len(mutants)} mutants", flush=True)
    with ThreadPoolExecutor(2) as pool:
        alive = [found for found in pool.map(attempt, mutants) if found]
    print("\n\n".join(alive) if alive else "every mutant was found")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
