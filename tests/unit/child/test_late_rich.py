"""structlog as children have it: without rich, until somebody formats with it."""

import json
import subprocess
import sys
from typing import Any

SCRIPT = """
import io, json, sys
from paddock.runtime.child.late_rich import import_structlog

{before}
import_structlog()
before = sorted(name for name in sys.modules if name.partition(".")[0] in ("rich", "pygments"))
import structlog

told = io.StringIO()
try:
    raise ValueError("no such page")
except ValueError:
    structlog.dev.rich_traceback(told, sys.exc_info())
    local = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)(sys.exc_info())
import rich.console

print(json.dumps([before, told.getvalue(), local[0]["exc_type"], rich.console.__file__ is not None]))
"""


def formatted(before: str = "") -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT.format(before=before)], capture_output=True, text=True, check=True
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def test_rich_is_imported_at_its_first_use_and_formats_as_ever():
    loaded, text, kind, real = formatted()
    assert loaded == []
    assert "╭" in text, "that is rich's frame"
    assert "no such page" in text
    assert (kind, real) == ("ValueError", True)


def test_who_has_it_already_keeps_it():
    loaded, text, _, real = formatted("import rich.console")
    assert "rich.console" in loaded
    assert "╭" in text
    assert real


WITHOUT = """
import sys

sys.modules["rich"] = None
from paddock.runtime.child.late_rich import import_structlog

import_structlog()
import structlog

print(structlog.dev.rich)
"""


def test_without_rich_there_is_none():
    done = subprocess.run([sys.executable, "-P", "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
