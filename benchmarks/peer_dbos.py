"""DBOS, driven by lines on standard input; runs in an environment of its own (`make bench-peers`), which has DBOS and not Paddock.

`one STEPS` answers with the seconds of one workflow of so many steps, `rate COUNT IN_FLIGHT STEPS` with the seconds of so many of them. It runs
on SQLite, in process and with the defaults of its own, and its steps do nothing, as ours.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from dbos import DBOS


@DBOS.step()
def work() -> dict[str, int]:
    """Do nothing."""
    return {"row": 1}


@DBOS.workflow()
def chain(steps: int) -> int:
    """Run so many steps, one after the other."""
    for _ in range(steps):
        work()
    return steps


def one(steps: int) -> float:
    """Return the seconds of one workflow."""
    begin = time.perf_counter()
    chain(steps)
    return time.perf_counter() - begin


def rate(count: int, in_flight: int, steps: int) -> float:
    """Return the seconds in which `count` workflows complete, `in_flight` at a time."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(lambda _: chain(steps), range(count)))
    return time.perf_counter() - begin


def main() -> None:
    """Answer line by line until there are no more."""
    with tempfile.TemporaryDirectory(prefix="bench-dbos-") as folder:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
                "log_level": "ERROR",
                "run_admin_server": False,
            }
        )
        DBOS.launch()
        one(10)
        print(version("dbos"), flush=True)
        for line in sys.stdin:
            kind, *numbers = line.split()
            spent = {"one": one, "rate": rate}[kind](*map(int, numbers))
            print(spent, flush=True)
        DBOS.destroy()


if __name__ == "__main__":
    main()
