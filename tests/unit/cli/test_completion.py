"""What a shell completes: the words that bash has cut put together again, names read from a module's text, and a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.runtime.cli.completion import _rejoined, complete_server, complete_workflow

MODULE = """
import paddock as p
from paddock import AppServer, StateMachine, action, flow, workflow

@flow
async def plain(): ...
@p.flow("with-a-name")
async def named(): ...
@action("an-action")
def acted(): ...
@property
def other(): ...
class Game(StateMachine[int], name="game", start="a"): ...
class Other(Exception): ...
graph = workflow("graph").task("a", other).build()
noted: object = p.workflow("noted").task("a", other).build()
number, text = 1, "flow".upper()
server = AppServer("app.db")
if True:
    @flow
    async def hidden(): ...
raise SystemExit("it runs")
"""
WORKFLOWS = ["plain", "named", "acted", "Game", "graph", "noted"]


@pytest.mark.parametrize(
    ("words", "current", "whole", "before"),
    [
        ("paddock run app.py : g", 4, "paddock run app.py:g", "app.py:"),
        ("paddock run app.py :", 3, "paddock run app.py:", "app.py:"),
        ("paddock run app.py : ", 4, "paddock run app.py: ", ""),
        ("paddock run app.py : greet 1", 5, "paddock run app.py:greet 1", ""),
        ("paddock show --db = a.db order : 1", 7, "paddock show --db=a.db order:1", "order:"),
        ("paddock show --db = a.d", 4, "paddock show --db=a.d", "--db="),
        ("paddock show me @ home : 1", 6, "paddock show me@home:1", "me@home:"),
        ("paddock show a :: b", 4, "paddock show a::b", "a::"),
        ("paddock sh", 1, "paddock sh", ""),
        ("paddock ", 1, "paddock ", ""),
        ("paddock : x", 2, "paddock :x", ":"),
    ],
)
def test_words_that_bash_has_cut(words: str, current: int, whole: str, before: str):
    joined, place, typed = _rejoined(words.split(" "), current)
    assert (" ".join(joined), place, typed) == (whole, len(joined) - 1, before)


def test_names_are_read_and_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    for file in (tmp_path / "app.py", tmp_path / "shop" / "__init__.py", tmp_path / "shop" / "orders.py"):
        file.write_text(MODULE)
    for where in ("app.py", "app", "shop", "shop.orders", str(tmp_path / "app.py")):
        assert complete_workflow(None, f"{where}:") == [f"{where}:{name}" for name in WORKFLOWS]
    assert complete_workflow(None, "app:n") == ["app:named", "app:noted"]
    assert complete_server(None, "app:s") == ["app:server"]
    (tmp_path / "app.py").write_text("def broken(:")
    for nothing in ("app:", "app", "", ":", "none:", "none.py:x", "a..b:", "\0:", f"{tmp_path}:"):
        assert complete_workflow(None, nothing) == []


@pytest.mark.slow
def test_in_a_bash(tmp_path: Path):
    bash, program = shutil.which("bash"), Path(sys.executable).with_name("paddock")
    if bash is None:
        pytest.skip("there is no bash here")
    (tmp_path / "app.py").write_text(MODULE)
    terminal, theirs = os.openpty()
    environ = {
        **os.environ,
        "PS1": "$ ",
        "TERM": "dumb",
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "INPUTRC": "/dev/null",
    }
    shell = subprocess.Popen(
        [bash, "--norc", "--noprofile", "-i"],
        cwd=tmp_path,
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        script = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 paddock --show-completion bash"
        os.write(terminal, f'eval "$({script})"; echo it is re""ady\n'.encode())
        _until(terminal, b"it is ready")
        os.write(terminal, b"paddock run app.py:gr\t")
        _until(terminal, b"app.py:graph ")
        os.write(terminal, b"\x15paddock run app.py:n\t\t")
        _until(terminal, b"named  noted")
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


def _until(terminal: int, words: bytes) -> None:
    """Read on until these have been written; the timeout of the test bounds it."""
    read = b""
    while words not in read:
        read += os.read(terminal, 4096)
