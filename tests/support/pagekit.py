"""What the tests of the page share: a served page, a browser, and a person who presses buttons and remembers which."""

import contextlib
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pageserver
from playwright.sync_api import Browser, Error, Locator, Page, expect

from paddock.runtime.store.migrations import migrate

PATIENCE = 60_000.0
"""Milliseconds until a wait on the page gives up: a safety net for a machine that is slow."""

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """Return where a Chromium is, None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def fill(path: Path, count: int) -> None:
    """Make a database that holds as many completed instances of a workflow that no server knows any more."""
    now = time.time()
    rows = [(f"old-{number:05}", "archive", "completed", now, now, now) for number in range(count)]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, str(path))
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO paddock_instances (id, workflow_name, status, created_at, started_at, completed_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
        connection.execute("COMMIT")
    path.chmod(0o600)


class Served:
    """A server with the page, in another process.

    A socket that never listens holds its port: between two processes nobody else is given it, and connections are refused.
    """

    def __init__(self, path: Path, token: str | None = None) -> None:
        self._path, self._token = path, token
        self._process: subprocess.Popen[str] | None = None
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port = self._place.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def start(self) -> None:
        """Start it, at the port where it was before."""
        extra = [self._token] if self._token else []
        command = [sys.executable, pageserver.__file__, str(self._path), str(self._port), *extra]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        assert line.strip(), "the server did not start"

    def stop(self) -> None:
        """Stop it, and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=60)
            self._process = None

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._place.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url + "api/" + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def begin(self, workflow: str, value: Any = None, **options: Any) -> str:
        """Start an instance and return its id."""
        return self.ask("POST", f"workflows/{workflow}/start", {"input": value, **options})["id"]


class Person:
    """Somebody in front of a page. Whatever the page complains of to its console fails the test."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **context)
        self.context.set_default_timeout(PATIENCE)
        self.page: Page = self.context.new_page()
        self.url = url
        self.complaints: list[str] = []
        self.seen: set[str] = set()
        self.pressed: set[str] = set()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._watch)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location.get('url')})")

    def _watch(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"asked another host: {request.url}")

    def go(self, address: str) -> None:
        """Open an address of the page and wait until its view is there."""
        if self.page.url == "about:blank":
            self.page.goto(self.url + address)
        else:
            self.page.evaluate("address => { location.hash = address }", address)
        self.arrived(address)

    def arrived(self, address: str) -> None:
        """Wait until the view of an address is shown."""
        parts = address.removeprefix("#/").split("?")[0].split("/")
        name = parts[0] if len(parts) < 2 else f"{parts[0].removesuffix('s')}/{parts[1]}"
        try:
            self.page.wait_for_function("name => document.querySelector('main').dataset.ready === name", arg=name)
        except Error as error:
            shown = self.page.locator("main").inner_text()[:1000]
            raise AssertionError(
                f"{address} was not shown, but {self.page.url}:\n{shown}\n{self.complaints}"
            ) from error

    def look(self) -> None:
        """Note the buttons that are there to be pressed."""
        self.seen |= {plain(name) for name in self.page.evaluate(_BUTTONS)}

    def press(self, name: str | re.Pattern[str], within: Locator | None = None) -> None:
        """Press the first button of a name."""
        self.look()
        button = (within or self.page).get_by_role("button", name=name, exact=isinstance(name, str)).first
        expect(button).to_be_enabled(timeout=PATIENCE)
        self.pressed.add(plain(button.evaluate(_NAME)))
        button.click()

    def status(self, word: str) -> None:
        """Wait until the instance that is shown has a status."""
        expect(self.page.locator(".instance-head .badge")).to_have_text(word, timeout=PATIENCE)

    def says(self, text: str | re.Pattern[str]) -> None:
        """Wait until a text is to be read."""
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that the page does not show."""
        while not holds():
            self.page.wait_for_timeout(50)

    def leave(self, *forgiven: str) -> None:
        """Close the window; nothing was complained of but what was provoked."""
        self.context.close()
        self.complaints = [line for line in self.complaints if not any(word in line for word in forgiven)]
        assert not self.complaints, "\n".join(self.complaints)


# the rows of the timeline are alike
_NAME = "node => node.closest('.tl-rows') ? 'a step' : (node.getAttribute('aria-label') ?? node.textContent)"
_BUTTONS = f"""() => [...document.querySelectorAll('button')]
    .filter(node => !node.disabled && node.checkVisibility()).map({_NAME})"""


def plain(name: str) -> str:
    """Return a button's name without what differs from one row to the next: ids, numbers, names of workflows and fields."""
    name = re.sub(r"…?[0-9a-f]{12}|[\d,]+|×", "", name).strip()
    if name.startswith(("Live", "Connecting", "Disconnected")):
        return "the connection"
    for word in (
        "Start",
        "Answer",
        "Retry all",
        "Retry",
        "Fork all",
        "Fork…",
        "Remove",
        "Add to",
        "Delete schedule",
        "Copy",
    ):
        if name.startswith(word):
            return word
    return re.sub(r"\s+", " ", name)
