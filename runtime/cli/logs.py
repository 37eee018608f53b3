"""`paddock logs`."""

from __future__ import annotations

import json as json_
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.text import Text

from ..base.errors import UsageError
from ..base.records import LEVELS, LogRecord
from ..store import events as rows
from ..store import instances
from ..store.overview import log_cursor_before
from ..store.reading import Reader
from ..store.window import Window
from .arguments import After, Db, Follow, Last, OptionalIdent, find_id, reading
from .follow import follow
from .output import LEVEL_STYLES, LineWriter, print_json_line, short_id, when

__all__ = ["logs"]


def _levels(incomplete: str) -> list[str]:
    return [level for level in LEVELS if level.startswith(incomplete)]


def logs(
    id: OptionalIdent = None,
    *,
    live: Follow = False,
    level: Annotated[
        str, typer.Option("--level", metavar="LEVEL", help="The lowest level wanted.", autocompletion=_levels)
    ] = "debug",
    after: After = None,
    last: Last = 200,
    db: Db = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print what handlers logged and processes printed.

    With -f it goes on as it comes; for one instance until that has ended.

    [dim]paddock logs 0199c3d2 -f[/]
    [dim]paddock logs --level warning -n 50[/]
    """
    if level not in LEVELS:
        raise UsageError(f"there is no log level {level!r:.100}; there are {', '.join(LEVELS)}")
    with reading(db) as (reader, path):
        ident = find_id(reader, id) if id is not None else None
        begin = after
        if begin is None:
            begin = reader.read(log_cursor_before, last, level=level, instance_id=ident)
    writer = LineWriter()
    for record in follow(path, _reader(ident, level), after=begin, instance_id=ident, live=live):
        if json:
            print_json_line(record.model_dump(mode="json"))
        else:
            writer.print(_line(record, alone=ident is not None, narrow=writer.narrow), fold=True)


def _reader(ident: str | None, level: str) -> Callable[[Reader, int, int], list[LogRecord]]:
    def read(reader: Reader, after: int, limit: int) -> list[LogRecord]:
        def rows_of(tx: Any) -> list[LogRecord]:
            seq = instances.find(tx, ident)[0] if ident is not None else None
            return rows.read_logs(tx, Window(after, limit), level=level, instance=seq)

        return reader.read(rows_of)

    return read


def _line(record: LogRecord, *, alone: bool, narrow: bool) -> Text:
    line = Text.assemble((f"{when(record.created_at)} ", "dim"))
    if not alone:
        line.append(f"{short_id(record.instance_id) if narrow else record.instance_id} ", "dim")
    style = LEVEL_STYLES.get(record.level, "")
    label = record.source if record.source in ("stdout", "stderr") else record.level
    line.append(f"{label:<8} ", style or "dim")
    if record.step_name:
        line.append(f"{record.step_name}: ", "dim")
    line.append(record.message, style if record.source != "stdout" else "")
    for key, value in record.data.items():
        line.append(f" {key}={json_.dumps(value, ensure_ascii=False)}", "dim")
    return line
