"""Programs tried out before they take over, each in a process of its own."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from paddock.runtime.server.trial import try_command

UNGUARDED = """
import asyncio, paddock
asyncio.run(paddock.AppServer("app.db").start())
"""


async def verdict(path: Path | str | None, module: str | None = None, patience: float = 60.0) -> str | None:
    program = {"path": path and str(path), "module": module, "sys_path": [os.getcwd(), *sys.path], "argv": ["x"]}
    command = [sys.executable, "-P", "-m", "paddock.runtime.child.trial"]
    return await try_command(command, given=json.dumps(program).encode(), patience=patience)


@pytest.mark.parametrize(
    "text",
    [
        "import sys; assert sys.argv == ['x']",
        "if __name__ == '__main__': raise ValueError('it runs')",
        "raise SystemExit(0)",
        pytest.param(UNGUARDED, id="a server that is started without a guard"),
    ],
)
async def test_what_can_be_loaded(text: str, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(text)
    assert await verdict(script) is None
    assert not (tmp_path / "app.db").exists()


async def test_what_cannot_is_named_with_its_place(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('on the way', file=sys.stderr)\nimport other\n")
    (tmp_path / "other.py").write_text("\nraise LookupError('no key')\n")
    fault = await verdict(script)
    assert fault is not None
    assert fault.startswith("on the way\n")
    assert fault.endswith(f"cannot be imported: LookupError: no key ({tmp_path}/other.py, line 2)")
    (tmp_path / "other.py").write_text("a = (\n")
    assert f"SyntaxError: '(' was never closed ({tmp_path}/other.py, line 1)" in str(await verdict(None, "script"))
    script.write_text("import sys; sys.exit('no configuration')")
    assert await verdict(script) == "the program ended with 'no configuration' as it was imported"
    assert "the main module gone cannot be found" in str(await verdict(None, "gone"))


async def test_one_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path):
    script = tmp_path / "script.py"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script.write_text(f"import subprocess\nsubprocess.run(['sleep', '600'], stdout=open({str(fifo)!r}, 'w'))\n")
    assert await verdict(script, patience=2) == "it was not loaded within 2s"
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # nobody holds its other end any more
    os.close(reader)
    waiting = asyncio.create_task(verdict(script))
    await asyncio.sleep(0)
    waiting.cancel()
    assert (await asyncio.wait({waiting}))[0].pop().cancelled()


async def test_one_that_is_killed_or_cannot_be_started():
    assert await try_command(["/bin/sh", "-c", "kill -9 $$"]) == "it ended with exit code -9 as it was loaded"
    assert await try_command(["/nowhere/python"]) == "/nowhere/python cannot be executed: No such file or directory"
