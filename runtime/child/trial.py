"""A program tried out before it takes over: `python -P -m paddock.runtime.child.trial`, with what it is on standard input, as JSON.

Its `__main__` is imported as every child would import it, so the part under `if __name__ == "__main__":` does not run. A script without
that guard comes as far as the start of its server, which is refused in such a process, and that is far enough.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

__all__ = ["TRIAL", "import_failure", "on_trial"]

#: The environment variable of a program that is only tried out.
TRIAL = "PADDOCK_TRIAL"


def on_trial() -> bool:
    """Tell whether this program is only tried out: it is to load what it needs, and then to end."""
    return TRIAL in os.environ


def import_failure(name: str, error: BaseException) -> str:
    """Say where in the user's code an import failed: the last line of theirs, not of the import machinery."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 2 else ""  # noqa: PLR2004
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})"
        return f"module {name!r} cannot be imported: {type(error).__name__}: {error.msg}{place}"
    return f"module {name!r} cannot be imported: {type(error).__name__}: {error}{place}"


def main() -> None:
    """Import a program's `__main__`; exit with 1 and a line on stderr where that fails."""
    from ..base.errors import ServerNotRunning
    from .main_module import load_main

    program = json.load(sys.stdin)
    sys.path[:] = program["sys_path"]
    sys.argv[:] = program["argv"]
    try:
        load_main(program["path"], program["module"])
    except ServerNotRunning:
        return
    except SystemExit as ended:
        if ended.code not in (None, 0):
            sys.exit(f"the program ended with {ended.code!r} as it was imported")
    except BaseException as error:  # noqa: BLE001  a program may raise anything as it is imported
        sys.exit(import_failure(program["module"] or program["path"], error))


if __name__ == "__main__":
    main()
