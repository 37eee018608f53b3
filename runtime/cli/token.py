"""The token of `paddock serve`: where it comes from, and that it stays secret."""

from __future__ import annotations

import contextlib
import os
import stat

from ..base.errors import UsageError
from .output import say

__all__ = ["find_token"]

_WEAK = 16


def find_token(given: str | None, file: str | None) -> str | None:
    """Return the token: of the option, the file, or the environment, from which it is taken away, so that no child inherits it.

    Raises:
        UsageError: it is empty, given twice, or its file cannot be read.
    """
    from_environment = os.environ.pop("PADDOCK_TOKEN", None)
    if given is not None and file is not None:
        raise UsageError("--token and --token-file exclude each other")
    if given is not None:
        say(
            "anybody on this machine can read --token in the list of processes; PADDOCK_TOKEN or --token-file keep it secret"
        )
        found, source = given, "--token"
    elif file is not None:
        found, source = _read_token(file), file
    elif from_environment is not None:
        found, source = from_environment, "PADDOCK_TOKEN"
    else:
        return None
    if not found.strip():
        raise UsageError(f"{source} holds no token")
    if len(found.strip()) < _WEAK:
        say(
            "the token is short; python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one that nobody guesses"
        )
    return found.strip()


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(10_000)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file {path} cannot be read: {error}") from None
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        with contextlib.suppress(OSError):
            say(f"others can read {path}; chmod 600 keeps the token secret")
    return text
