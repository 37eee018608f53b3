"""A browser for each test. Where there is none the tests are skipped, and say so."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pagekit
import pytest
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture
def browser() -> Iterator[Browser]:
    program = pagekit.chromium()
    if program is None:
        pytest.skip("no Chromium is here; as root on Debian or Ubuntu: bash tools/browser.sh")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=pagekit.FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def serve(tmp_path: Path, browser: Browser) -> Iterator[Callable[..., pagekit.Served]]:
    """Serve the page; the browser comes first, so that nothing is started where there is none."""
    running: list[pagekit.Served] = []

    def begin(token: str | None = None, *, rows: int = 0) -> pagekit.Served:
        path = tmp_path / f"page{len(running)}.db"
        if rows:
            pagekit.fill(path, rows)
        running.append(pagekit.Served(path, token))
        return running[-1]

    yield begin
    for served in running:
        served.close()
