"""A part of a page that a program writes."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def put(page: Path, place: re.Pattern[str], text: str) -> None:
    """Print the text, or with --write put it into its place in the page."""
    if "--write" not in sys.argv[1:]:
        print(text)
        return
    whole = page.read_text()
    if place.search(whole) is None:
        raise SystemExit(f"{page.name} has no place for what this program writes")
    page.write_text(place.sub(lambda _: text, whole))
