"""What PostgreSQL and the way to it have against us, in our errors; and no word of a password in any of them."""

from __future__ import annotations

import re

import psycopg

from ...base.errors import DatabaseDamaged, DatabaseUnavailable, PaddockError

__all__ = ["explain", "is_lost", "is_passing", "is_refusal", "redacted"]

_SECRETS = (
    (re.compile(r"(\w://[^\s:/@]*):[^\s@]*@"), r"\1:***@"),
    (re.compile(r"\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)"), r"\1***"),
)

#: What is refused because of what was asked, not because of the state of the database: an error of one caller.
_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.NotSupportedError)

_DAMAGED = frozenset({"42P01", "42703", "XX001", "XX002"})
_RESTORE = "stop the server, restore a backup and start it again"

#: What a person can do about it, by SQLSTATE.
_ADVICE = {
    "28P01": "the password is wrong, or none was given",
    "28000": "this user may not connect; see pg_hba.conf",
    "3D000": "make the database first: createdb",
    "3F000": "make the schema that search_path names first: CREATE SCHEMA",
    "42501": "the user needs the right to make and use tables here: GRANT CREATE, USAGE ON SCHEMA … TO …",
    "25006": "it is read-only: a standby, perhaps; all goes on when it can be written",
    "53100": "make room on its disk; all goes on by itself then",
    "53300": "raise max_connections: every child takes one, the server three",
    "57P03": "it is starting or stopping; all goes on by itself",
}
_PASSING = frozenset({"25006", "40001", "40P01", "53000", "53100", "53200", "53300", "55P03", "57014", "58030"})


def redacted(text: str) -> str:
    """Return a text without the passwords that stand in it as a URL or a connection string would have them."""
    for pattern, put in _SECRETS:
        text = pattern.sub(put, text)
    return text


def is_refusal(error: BaseException) -> bool:
    """Tell whether PostgreSQL refused what one caller asked, and is well otherwise."""
    return isinstance(error, _REFUSALS) and getattr(error, "sqlstate", None) not in (*_DAMAGED, "42501")


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection is gone, or never was."""
    state = getattr(error, "sqlstate", None) or "08000"
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and (
        state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05", "25P03")
    )


def is_passing(error: BaseException) -> bool:
    """Tell whether waiting may help, and nothing of the transaction is there."""
    return is_lost(error) or getattr(error, "sqlstate", None) in _PASSING


def explain(error: psycopg.Error, name: str) -> PaddockError:
    """Return our error for one of psycopg's; `name` is the database's, without a password."""
    said = redacted(" ".join(str(error).split())) or type(error).__name__
    if error.sqlstate in _DAMAGED:
        return DatabaseDamaged(f"{name} is damaged, or not as Paddock made it ({said}): {_RESTORE}.")
    advice = _ADVICE.get(error.sqlstate or "")
    return DatabaseUnavailable(f"{name} cannot be used now: {said}" + (f" ({advice})" if advice else ""))
