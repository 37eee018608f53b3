"""Before a restart in place: the program that would be executed is tried out, in a process of its own, while this one serves.

What cannot be loaded then would have ended the service. The new program finds the rest out itself, as at any start: a database that is too new
for it, an address that it does not own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ...watchdog.identity import identify
from ..child.main_module import describe_main
from ..child.trial import TRIAL
from .exits import ended

__all__ = ["Trial", "try_command", "try_program"]

#: Returns what is wrong with the program that would be executed, None where nothing is.
Trial = Callable[[], Awaitable[str | None]]

PATIENCE = 60.0
_WORDS = 4000
_COMPLAINT = re.compile(r"^error: ", re.MULTILINE)


async def try_program() -> str | None:
    """Import this process's `__main__` anew; return what is wrong with it."""
    path, module = describe_main()
    if path is None and module is None:
        return None  # an interactive session, or `python -c`: there is nothing to import
    program = {"path": path, "module": module, "sys_path": sys.path, "argv": sys.argv}
    command = [sys.executable, "-P", "-m", "paddock.runtime.child.trial"]
    return await try_command(command, given=json.dumps(program).encode())


async def try_command(
    command: Sequence[str], *, given: bytes = b"", environ: Mapping[str, str] | None = None, patience: float = PATIENCE
) -> str | None:
    """Run a program that knows that it is only tried out (`on_trial`); return what it says is wrong, None where it exits with 0.

    Args:
        command: the program and its arguments.
        given: its standard input.
        environ: variables that it gets beside ours.
        patience: seconds until it is ended; cancelled, it is ended at once.
    """
    with tempfile.TemporaryFile() as heard, tempfile.TemporaryFile() as told:
        told.write(given)
        told.seek(0)
        try:
            process = subprocess.Popen(  # noqa: ASYNC220  our own interpreter; starting it takes a millisecond
                command,
                stdin=told,
                stdout=subprocess.DEVNULL,
                stderr=heard,
                env={**os.environ, **(environ or {}), TRIAL: "1"},
                start_new_session=True,
            )
        except OSError as error:
            return f"{command[0]} cannot be executed: {error.strerror or error}"
        code = await _code(process, patience)
        heard.seek(max(heard.seek(0, os.SEEK_END) - _WORDS, 0))
        words = heard.read(_WORDS).decode(errors="replace").strip()
    if code is None:
        return f"it was not loaded within {patience:g}s" + (f": {words}" if words else "")
    words = _COMPLAINT.split(words)[-1]  # of our own command what it complains of, without what it says on the way
    return None if code == 0 else words or f"it ended with exit code {code} as it was loaded"


async def _code(process: subprocess.Popen[bytes], patience: float) -> int | None:
    """Wait for the end of a process and return its code; None where that took too long. What it has started ends with it."""
    try:
        async with asyncio.timeout(patience):
            await ended(identify(process.pid))
    except TimeoutError:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the number is nobody else's
        code = process.wait()
    return code
