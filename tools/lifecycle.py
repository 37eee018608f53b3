"""Draw the diagram in docs/lifecycle.md from the table of statuses: print it, or with --write put it into the page."""

import re

from generated import DOCS, put

from paddock.runtime.base.records import TERMINAL, Status
from paddock.runtime.store.lifecycle import ENDING_EVENT, TRANSITIONS

PAGE = DOCS / "lifecycle.md"
BLOCK = re.compile(r"(?<=<!-- drawn by tools/lifecycle.py -->\n\n)```mermaid\n.*?^```$", re.DOTALL | re.MULTILINE)


def diagram() -> str:
    """Return the table as a mermaid state diagram; an arrow to an end carries the end's event."""
    lines = ["stateDiagram-v2", "    direction LR", "    [*] --> pending"]
    for source in Status:
        for target in Status:
            if target in TRANSITIONS[source]:
                event = f": {ENDING_EVENT[target]}" if target in TERMINAL else ""
                lines.append(f"    {source.value} --> {target.value}{event}")
    lines += [f"    {status.value} --> [*]" for status in Status if status in TERMINAL]
    return "\n".join(lines)


def block() -> str:
    """Return the diagram as it stands in the page."""
    return f"```mermaid\n{diagram()}\n```"


if __name__ == "__main__":
    put(PAGE, BLOCK, block())
