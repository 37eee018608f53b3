"""The long kill loop, by hand: `make chaos CHAOS_ARGS="--seed 7 --kills 200"`. A seed that fails is printed, and may be run again."""

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import leftovers
from chaoskit import Chaos, storm


def main() -> int:
    """Run, say what happened, and return 1 where something does not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="what is drawn; random without it")
    parser.add_argument("--kills", type=int, default=200, help="processes to kill")
    parser.add_argument("--population", type=int, default=50, help="instances that run at once")
    parser.add_argument("--pace", type=float, default=0.15, help="seconds between two faults, on average")
    parser.add_argument("--no-stops", action="store_true", help="kill only, stop nobody")
    parser.add_argument("--cancels", action="store_true", help="cancel one instance in five")
    parser.add_argument("--quiet", action="store_true", help="do not tell of every fault")
    given = parser.parse_args()
    begun = time.monotonic()

    def say(line: str) -> None:
        if not given.quiet:
            print(f"{time.monotonic() - begun:7.2f}  {line}", flush=True)

    chaos = Chaos(
        given.seed, given.kills, given.population, not given.no_stops, given.pace, cancels=given.cancels, say=say
    )
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="pdk-chaos-", dir="/tmp"))
    (folder / "tmp").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    os.environ[leftovers.MARKER] = secrets.token_hex(16)
    os.chdir(folder)
    found = asyncio.run(storm(chaos, folder, deadline=120 + given.kills * 3.0))
    took = time.monotonic() - begun
    print(f"{sum(chaos.killed.values())} kills in {took:.0f} s: {dict(chaos.killed.most_common())}")
    if found:
        print(f"seed {given.seed} found, and left in {folder}:\n  " + "\n  ".join(found[:50]))
        return 1
    leftovers._remove(folder)
    print("every instance completed as without faults; ledger, events, slots and processes are clean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
