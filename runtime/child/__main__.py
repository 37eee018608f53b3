"""A child in a fresh interpreter (`launcher="spawn"`): `python -P -m paddock.runtime.child FD`, with its orders in that descriptor."""

from __future__ import annotations

import contextlib
import json
import os
import sys


def main() -> None:
    """Read the orders, import what the server's path reaches, run the instance, and leave without a look back."""
    descriptor = int(sys.argv[1])
    with open(descriptor, "rb") as file:
        orders = json.load(file)
    sys.path[:] = orders["sys_path"] + (sys.path if orders["foreign"] else [])
    sys.argv[:] = orders["argv"]
    from .birth import become_child, mark
    from .main_module import load_main
    from .outfit import Outfit
    from .process import run_child
    from .spec import ChildSpec

    spec = ChildSpec.model_validate(orders["spec"])
    become_child(foreign=[])
    mark(spec.marker)
    code = 1
    try:
        if spec.needs_main:
            with contextlib.suppress(Exception):  # whoever asks for something in it is told
                load_main(orders["main_path"], orders["main_module"])
        code = run_child(spec, Outfit())
    finally:
        leave(code)


def leave(code: int) -> None:
    """End the process at once: handlers' threads that still run, and `atexit` of imported modules, have no say."""
    import traceback

    if sys.exc_info()[0] is not None:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)


if __name__ == "__main__":
    main()
