"""Write the reference in docs/command-line.md from the commands' own help: print it, or with --write put it into the page."""

import inspect
import re
from typing import Any

from generated import DOCS, put
from typer.main import get_command

from paddock.runtime.cli.main import app

PAGE = DOCS / "command-line.md"
BLOCK = re.compile(r"(?<=<!-- written by tools/command_line.py -->\n\n).*\Z", re.DOTALL)
_EXAMPLE = re.compile(r"\[dim\](.*)\[/\]")


def commands() -> dict[str, Any]:
    """Return the commands by their names, in the order of the help."""
    return dict(get_command(app).commands)


def examples(command: Any) -> list[str]:
    """Return the examples that a command's help shows."""
    return _EXAMPLE.findall(command.help or "")


def _prose(command: Any) -> str:
    text = inspect.cleandoc(command.help or "")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if not _EXAMPLE.search(part)]
    return "\n\n".join(paragraphs)


def _usage(name: str, command: Any) -> str:
    words = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = (parameter.metavar or parameter.name.upper()) + ("..." if parameter.nargs == -1 else "")
            words.append(word if parameter.required else f"[{word}]")
    return " ".join(["paddock", name, *words, "[OPTIONS]"])


def _rows(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.metavar or parameter.name.upper()}`"
        else:
            metavar = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
            name = ", ".join(f"`{option}{metavar}`" for option in parameter.opts)
        rows.append(f"| {name} | {_told(parameter)} |".replace("\\|", "|"))
    return rows


def _told(parameter: Any) -> str:
    told = (parameter.help or "").replace("|", "\\|")
    default = parameter.default
    if default in (None, False, "", ()) or parameter.show_default is False or callable(default):
        return told
    return f"{told} Default: `{getattr(default, 'value', default)}`."


def reference() -> str:
    """Return a section for each command."""
    sections = []
    for name, command in commands().items():
        shown = "\n".join(examples(command)) or f"paddock {name}"
        sections.append(
            f"### paddock {name}\n\n{_prose(command)}\n\n```sh\n{shown}\n```\n\n`{_usage(name, command)}`\n"
            + "\n".join(["", "| | |", "|---|---|", *_rows(command)] if command.params else [])
        )
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


if __name__ == "__main__":
    put(PAGE, BLOCK, reference())
