"""Whether this machine can enforce what a registration asks for: what it cannot is refused, never ignored."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

from ..base.errors import ConfigError, LimitNotEnforceable
from ..base.limits import ProcessLimits, environment
from ..base.tasks_group import groups_folder

__all__ = ["check_enforceable"]

_OLDEST = (3, 11)
_ANSWER_TIMEOUT = 60.0
#: Runs in any interpreter, however old.
_QUESTION = """
import sys
found = {"version": list(sys.version_info[:3])}
if sys.version_info >= (3, 11):
    sys.path[:1] = []
    try:
        from importlib.metadata import version
        import paddock, pydantic, paddock.runtime.child.spec
        found["paddock"] = version("paddock")
    except BaseException as error:
        found["error"] = type(error).__name__ + ": " + str(error)
import json
sys.stdout.write("\\n" + json.dumps(found) + "\\n")
"""
_known: dict[tuple[str, float], None] = {}


def check_enforceable(workflow: str, limits: ProcessLimits, *, watched: bool) -> None:
    """Refuse limits that this machine cannot enforce.

    Args:
        workflow: its name, for the messages.
        limits: what the registration asks for.
        watched: whether there is a watchdog.

    Raises:
        LimitNotEnforceable: one cannot be; the message names it and says what would help.
        ConfigError: the folder or the interpreter cannot be used.
    """
    if limits.memory_limit is not None and not watched:
        raise LimitNotEnforceable(
            f"workflow {workflow!r}: memory_limit is kept by the watchdog, which is off; use WatchdogConfig(enabled=True)"
        )
    if limits.open_files is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY and limits.open_files > most:
            raise LimitNotEnforceable(
                f"workflow {workflow!r}: open_files={limits.open_files} is more than this process may have itself ({most}); "
                "raise the hard limit (ulimit -Hn) first"
            )
    if limits.processes is not None and groups_folder() is None:
        raise LimitNotEnforceable(
            f"workflow {workflow!r}: processes= needs a control group with the pids controller that this user may write to "
            "(cgroups(7); systemd's Delegate=yes), and there is none here"
        )
    if limits.cwd is not None and not os.path.isdir(limits.cwd):
        raise ConfigError(f"workflow {workflow!r}: cwd: there is no folder {limits.cwd}")
    if limits.python is not None:
        _check_interpreter(workflow, limits.python, limits)


def _check_interpreter(workflow: str, path: str, limits: ProcessLimits) -> None:
    """Refuse what is no interpreter that can run our child; one that was found good is not asked again."""
    if path == sys.executable:
        return
    try:
        asked = (path, os.stat(path).st_mtime)
        if asked in _known:
            return
        answer = _ask(path, limits)
    except OSError as error:
        raise ConfigError(f"workflow {workflow!r}: python={path!r} cannot be run: {error.strerror or error}") from None
    from importlib.metadata import version  # 20 ms that a server without python= does not spend

    where, ours = f"workflow {workflow!r}: python={path!r}", version("paddock")
    if answer is None:
        raise ConfigError(f"{where} is no Python interpreter: it does not answer like one")
    number = ".".join(map(str, answer["version"]))
    if tuple(answer["version"]) < _OLDEST:
        raise ConfigError(f"{where} is Python {number}; Paddock needs {'.'.join(map(str, _OLDEST))} or later")
    install = f"install it there: {path} -m pip install paddock=={ours}"
    if "paddock" not in answer:
        raise ConfigError(f"{where} (Python {number}) cannot import paddock ({answer.get('error')}); {install}")
    if answer["paddock"] != ours:
        raise ConfigError(f"{where} has paddock {answer['paddock']}, this process has {ours}; {install}")
    _known[asked] = None


def _ask(path: str, limits: ProcessLimits) -> dict[str, list[int] | str] | None:
    try:
        done = subprocess.run(
            [path, "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_TIMEOUT,
            check=False,
            env=environment(limits.env, os.environ),
            cwd="/",
        )
        found = json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    return found if isinstance(found, dict) and "version" in found else None
