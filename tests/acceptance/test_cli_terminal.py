"""What people see: the command on a terminal of its own, a pty, in several widths."""

import codecs
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pytest
from clikit import LIMIT, MODULE, Command, DetachedServer, environment, wait_for_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("terminal")


@pytest.fixture(scope="module")
def server(folder):
    running = DetachedServer(folder)
    yield running
    running.stop()


@pytest.fixture
def paddock(folder, server, zygote):
    return Command(folder, zygote)


class Terminal:
    """A program on a pty."""

    def __init__(self, folder, *arguments, columns=100, lines=30):
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.settings = termios.tcgetattr(other)
        self._other = other  # held open: its settings are looked at after the end
        self.program = subprocess.Popen(
            [*MODULE, *arguments],
            cwd=folder,
            env=environment(TERM="xterm-256color"),
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character

    def until(self, wanted):
        """Read until a text has come."""
        deadline = time.monotonic() + LIMIT
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            self._read(0.2)
        return self.text

    def _read(self, timeout):
        while select.select([self._own], [], [], timeout)[0]:
            self.text += self._decoder.decode(os.read(self._own, 65536))
            timeout = 0

    def type(self, keys):
        os.write(self._own, keys)

    def end(self):
        """Read what is left; return the exit code."""
        deadline = time.monotonic() + LIMIT
        while self.program.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(0.1)
        self._read(0)
        self.settings_after = termios.tcgetattr(self._other)
        os.close(self._own)
        os.close(self._other)
        return self.program.returncode


def test_top_lives_until_a_key_is_pressed(paddock, folder, tmp_path):
    marker = tmp_path / "marker"
    paddock.ok("start", "hangs", json.dumps(str(marker)), "--id", "busy-1")
    pid = wait_for_text(marker)
    screen = Terminal(folder, "top", "-i", "0.2")
    screen.until("busy-1")
    screen.until(pid)
    assert "\x1b[?1049h" in screen.text  # a screen of its own
    paddock.ok("start", "game", "{}", "--id", "late")
    paddock.until("late", "waiting")
    screen.until("game")
    screen.type(b"q")
    assert screen.end() == 0
    assert "\x1b[?1049l" in screen.text
    assert screen.settings_after == screen.settings
    paddock.ok("cancel", "busy-1")


def test_top_ends_at_ctrl_c(paddock, folder):
    screen = Terminal(folder, "top")
    screen.until("fork-server")
    screen.program.send_signal(2)
    assert screen.end() == 130
    assert "Traceback" not in screen.text
    assert "\x1b[?1049l" in screen.text


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_lists_fit_the_terminal(paddock, folder, columns):
    ident = paddock.ok("start", "game", "{}").strip()
    paddock.until(ident, "waiting")
    screen = Terminal(folder, "list", columns=columns)
    assert screen.end() == 0
    assert "\x1b[" in screen.text  # colours
    shown = ident if columns >= 120 else ident[:18]
    assert f"{shown} " in screen.text
    assert paddock.json("show", shown)["id"] == ident
    screen = Terminal(folder, "events", "-n", "3", columns=columns)
    assert screen.end() == 0
    assert screen.text.count("\r\n") == 3  # one line each, whatever they hold


def test_start_and_wait_shows_progress(folder, server):
    screen = Terminal(folder, "start", "nap", "0.01", "--wait")
    assert screen.end() == 0
    assert "nap" in screen.text
    assert '"rested"' in screen.text


def test_no_color(folder, server):
    program = subprocess.run(
        [*MODULE, "list"], cwd=folder, env=environment(NO_COLOR="1"), capture_output=True, check=False, timeout=LIMIT
    )
    assert b"\x1b" not in program.stdout


def test_cleaning_up_asks_first(paddock, folder):
    paddock.ok("start", "nap", "0.01", "--id", "kept", "--wait")
    screen = Terminal(folder, "cleanup", "--older-than", "0s")
    screen.until("for good?")
    screen.type(b"n\n")
    assert screen.end() == 0
    assert paddock.json("show", "kept")["status"] == "completed"
