"""What a process prints is read while it prints: a line that is half there is not yet a line."""

import os
import sys
from types import SimpleNamespace

from paddock.runtime.child.output import OutputReader

LINES = 20_000
PRINTER = f"""
import os
for n in range({LINES}):
    os.write(1, b"a line ")
    os.write(1, b"in two writes\\n")
"""


def test_a_line_that_others_finish_meanwhile_stays_one(tmp_path):
    out, err = tmp_path / "out", tmp_path / "err"
    err.touch()
    kept: list[str] = []
    sink = SimpleNamespace(full=False, put=lambda _level, text, _data, **_: kept.append(text), skip=None)
    with open(out, "wb") as file:
        printer = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", PRINTER],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)],
        )
    reader = OutputReader(str(out), str(err), sink)
    try:
        while os.waitpid(printer, os.WNOHANG) == (0, 0):
            reader.drain()
        reader.drain()
    finally:
        reader.close()
    assert (len(kept), set(kept)) == (LINES, {"a line in two writes"})
