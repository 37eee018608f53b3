"""What must not be copied by a fork is not: a thread that an imported module has left makes children fresh interpreters."""

import sys

import pytest
from crashkit import Stage, finished


async def test_a_thread_that_an_import_has_left(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """A copy of the fork server would not have the thread: the child has it, so it is no copy."""
    (stage.folder / "threaded_module.py").write_text(
        "import os, threading, time\nfrom paddock import workflow\n"
        "def do() -> list[str]: return [thread.name for thread in threading.enumerate() if thread.name == 'left-behind']\n"
        "threaded = workflow('threaded').task('do', do).build()\n"
        "if os.environ.get('THREADED'):\n"
        "    threading.Thread(target=time.sleep, args=(600,), name='left-behind', daemon=True).start()\n"
    )
    monkeypatch.syspath_prepend(str(stage.folder))
    import threaded_module

    try:
        monkeypatch.setenv("THREADED", "yes")
        server = stage.server()
        server.workflows.register(threaded_module.threaded)
        async with server:
            found = await finished(server, await server.workflows.start("threaded"))
            assert (found.status, found.output) == ("completed", ["left-behind"])
            assert "left-behind" in str(await server.health())
    finally:
        del sys.modules["threaded_module"]
