"""Ids, names and keys: how they are made and what is refused."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid

from .errors import InvalidInput, InvalidInstanceId, InvalidWorkflow

__all__ = ["check_instance_id", "check_key", "check_step_name", "check_workflow_name", "new_id"]

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@+=~-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9_][\w.:-]{0,127}")
_MAX_STEP_NAME = 200
_MAX_KEY = 1000
_MAX_SHOWN = 80
_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Return a UUID version 7 (RFC 9562, method 3): ordered by time, also within one millisecond of one process."""
    global _last  # noqa: PLW0603  one counter per process is what keeps the ids ordered
    with _lock:
        # 60 bits of time: 48 of milliseconds and 12 of a fraction, never twice the same
        _last = max(_last + 1, time.time_ns() * 4096 // 1_000_000)
        stamp = _last
    milliseconds, fraction = stamp >> 12, stamp & 0xFFF
    tail = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    return str(uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (fraction << 64) | (2 << 62) | tail))


def check_instance_id(value: object) -> str:
    """Return `value` when it can be an instance id.

    Raises:
        InvalidInstanceId: it is not 1 to 128 ASCII letters, digits or ``._:@+=~-``, beginning with a letter, digit or ``_``.
    """
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise InvalidInstanceId(
        f"{_shown(value)} cannot be an instance id: use 1 to 128 ASCII letters, digits or . _ : @ + = ~ - , "
        "beginning with a letter, a digit or _"
    )


def check_key(value: object, what: str) -> str:
    """Return `value` when it can be a key of metadata or the name of an event or a signal.

    Raises:
        InvalidInput: it is no text of 1 to 1000 characters that UTF-8 can hold; `what` names it.
    """
    if isinstance(value, str) and 0 < len(value) <= _MAX_KEY and value.encode(errors="replace").decode() == value:
        return value
    raise InvalidInput(f"{what} must be text of 1 to {_MAX_KEY} characters, not {_shown(value)}")


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def check_workflow_name(value: object) -> str:
    """Return `value` when it can name a workflow, an action or a plugin.

    Raises:
        InvalidWorkflow: it is not 1 to 128 letters, digits or ``._:-``.
    """
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise InvalidWorkflow(f"{value!r:.100} cannot name a workflow: use 1 to 128 letters, digits, or . _ : -")


def check_step_name(value: object) -> str:
    """Return `value` when it can name a step.

    Raises:
        InvalidWorkflow: it is empty, longer than 200 characters, or has a ``/``, a ``#`` or a control character, which
            the journal's keys use.
    """
    if (
        isinstance(value, str)
        and 0 < len(value) <= _MAX_STEP_NAME
        and value.isprintable()
        and not {"/", "#"} & set(value)
    ):
        return value
    raise InvalidWorkflow(f"{value!r:.100} cannot name a step: use 1 to 200 printable characters without / and #")
