"""What the processes of one workflow may use: checked where the workflow is registered, applied by each child to itself.

All of it is data that travels in the child's orders. Whether this machine can enforce it is asked elsewhere
(`server/enforcement.py`), and done elsewhere (`child/confine.py`, and the watchdog for memory).
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .duration import Duration
from .errors import ConfigError
from .values import describe_validation

__all__ = ["ALWAYS_PASSED", "MIN_OPEN_FILES", "ProcessLimits", "environment"]

#: What a child's environment has whatever `env=` says, if the server's has it: programs do not run without some of it.
ALWAYS_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "PADDOCK_*")

#: Open files that a child needs for itself, its plugins' imports included.
MIN_OPEN_FILES = 32

_LEAST_MEMORY = 2**20
_ENV_FORMS = 'give a list of names that pass ("AWS_*"), or a dict of names and values (None passes the server\'s)'
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?")
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def _memory(value: object) -> object:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip().lower())
        if found is None:
            raise ValueError(f'{value!r} is no size; give bytes, or text such as "512MB" or "2GB"')
        value = int(float(found[1]) * _UNITS[found[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value < _LEAST_MEMORY:
        raise ValueError(f"{value:,} bytes is less than any process needs; did you mean MB?")
    return value


def _environment(value: object) -> object:
    """Take a list of names, or a mapping of names to values; hold a mapping, in which None passes the server's value on."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(_ENV_FORMS)  # noqa: TRY004  pydantic collects these
    found: dict[Any, Any] = dict(value) if isinstance(value, Mapping) else dict.fromkeys(value)
    for name, text in found.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r:.50} is no name of a variable")
        if text is not None and (not isinstance(text, str) or "\0" in text or "*" in name or "?" in name):
            raise ValueError(f"the value of {name!r:.50} must be text, or None to pass the server's on")
        if name == "PADDOCK_INSTANCE":
            raise ValueError("PADDOCK_INSTANCE is how an instance's programs are found again; it cannot be set")
    return found


def _folder(value: object) -> object:
    return os.path.abspath(os.fspath(value)) if isinstance(value, str | os.PathLike) else value


def _interpreter(value: object) -> object:
    """Return an absolute path, symlinks kept: through its symlink an interpreter knows its virtual environment."""
    if not isinstance(value, str | os.PathLike):
        return value
    text = os.fspath(value)
    found = os.path.abspath(text) if os.sep in text else shutil.which(text)
    if found is None:
        raise ValueError(f"no program {text!r} is on PATH")
    return found


class ProcessLimits(BaseModel):
    """What a workflow's processes may use. None leaves it as it is in the server.

    Attributes:
        memory_limit: bytes that an instance's process may hold, together with all that it has started.
        cpu_limit: seconds of CPU time, of each of its processes by itself; the kernel counts whole ones.
        open_files: descriptors that each of its processes may have open.
        processes: processes and threads that an instance may have beside Paddock's own.
        env: variable to value, or to None for the server's value; names with `*` are patterns. Beside these only
            `ALWAYS_PASSED` is there.
        cwd: the folder to work in.
        nice: how much it yields to others, 0 to 19.
        python: the interpreter to run in, started afresh for each instance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    memory_limit: Annotated[int, BeforeValidator(_memory)] | None = None
    cpu_limit: Annotated[Duration, Field(gt=0)] | None = None
    open_files: Annotated[int, Field(ge=MIN_OPEN_FILES)] | None = None
    processes: Annotated[int, Field(ge=0)] | None = None
    env: Annotated[dict[str, str | None] | None, BeforeValidator(_environment)] = Field(default=None, repr=False)
    cwd: Annotated[str, BeforeValidator(_folder)] | None = None
    nice: Annotated[int, Field(ge=0, le=19)] | None = None
    python: Annotated[str, BeforeValidator(_interpreter)] | None = None

    @classmethod
    def of(cls, workflow: str, **options: Any) -> Self:
        """Return the limits that a registration names.

        Raises:
            ConfigError: a value cannot work; workflow and option are named, values of `env` are not shown.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            raise ConfigError(f"workflow {workflow!r}: {describe_validation(error)}") from None

    def __bool__(self) -> bool:
        """Tell whether anything is limited."""
        return any(value is not None for value in dict(self).values())


def environment(rule: Mapping[str, str | None] | None, current: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that a rule makes of another one."""
    if rule is None:
        return dict(current)
    patterns = [*ALWAYS_PASSED, *(name for name, value in rule.items() if value is None)]
    passed = {
        name: value
        for name, value in current.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    return passed | {name: value for name, value in rule.items() if value is not None}
