"""Scripts run as `__main__`: what they define is found by children, what they guard runs once."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

MODULES = Path(__file__).parents[2] / "support" / "contractscript.py"


async def _run(*command: str, cwd: Path, path: str = "") -> tuple[int, str, str]:
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=cwd,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


EXPECTED = "{'type': 'Order', 'total': '42 EUR', 'at': '%s'}"


@pytest.mark.parametrize(
    ("way", "launcher"),
    [
        ("script", "fork"),
        ("no suffix", "fork"),
        ("module", "fork"),
        ("package", "fork"),
        ("script", "spawn"),
        ("package", "spawn"),
    ],
)
async def test_a_script_with_a_guard(tmp_path: Path, way: str, launcher: str):
    home = tmp_path / "home"
    (home / "pack").mkdir(parents=True)
    (home / "pack" / "__init__.py").touch()
    target, command = {
        "script": (home / "shop_script.py", ["shop_script.py"]),
        "no suffix": (home / "shop-script", ["./shop-script"]),
        "module": (home / "pack" / "shop.py", ["-m", "pack.shop"]),
        "package": (home / "pack" / "__main__.py", ["-m", "pack"]),
    }[way]
    shutil.copy(MODULES, target)
    database = tmp_path / "app.db"
    code, out, err = await _run(*command, str(database), launcher, cwd=home)
    assert (code, out.strip()) == (0, EXPECTED % "__paddock_main__"), err
    assert "warning" not in out + err
    imports = Path(f"{database}.imports").read_text().split()
    assert imports == ["__main__", "__paddock_main__"]
    if way in ("script", "no suffix"):
        assert not (home / "__pycache__").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"home", "app.db", "app.db.imports"}


UNGUARDED = """
import asyncio, sys
from paddock import AppServer, WorkflowsConfig, workflow
flow = workflow("loose").task("one", lambda: 1).build()
async def main():
    server = AppServer(sys.argv[1], workflows=WorkflowsConfig(launcher=sys.argv[2]))
    server.workflows.register(flow)
    async with server:
        await server.workflows.run(flow, timeout=30)
asyncio.run(main())
"""


@pytest.mark.parametrize("launcher", ["fork", "spawn"])
async def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path, launcher: str):
    script = tmp_path / "loose.py"
    script.write_text(UNGUARDED)
    code, _, err = await _run("loose.py", str(tmp_path / "app.db"), launcher, cwd=tmp_path)
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert "WorkflowBlocked: loose" in last, err
    assert 'if __name__ == "__main__":' in last, err


async def test_a_workflow_from_a_shell_is_refused_at_register(tmp_path: Path):
    text = (
        "from paddock import AppServer, workflow\n"
        "flow = workflow('typed').task('a', lambda: 1).build()\n"
        f"AppServer({str(tmp_path / 'app.db')!r}).workflows.register(flow)\n"
    )
    code, _, err = await _run("-c", text, cwd=tmp_path)
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert "WorkflowNotImportable" in last
    assert "'typed'" in last
    assert "file" in last


async def test_a_module_beside_the_script_is_found_by_children(tmp_path: Path):
    (tmp_path / "beside.py").write_text(
        "from paddock import workflow\nflow = workflow('beside').task('a', lambda: 'found').build()\n"
    )
    (tmp_path / "app.py").write_text(
        "import asyncio, sys, beside\nfrom paddock import AppServer\n"
        "async def main():\n"
        "    server = AppServer(sys.argv[1])\n"
        "    server.workflows.register(beside.flow)\n"
        "    async with server:\n"
        "        print(await server.workflows.run('beside', timeout=30))\n"
        "if __name__ == '__main__':\n    asyncio.run(main())\n"
    )
    code, out, err = await _run(str(tmp_path / "app.py"), str(tmp_path / "x.db"), cwd=Path("/"))
    assert (code, out.strip()) == (0, "found"), err


STOPLESS = """
import asyncio, sys
from paddock import AppServer, Plugin, WorkflowsConfig
class Tables(Plugin):
    name = "tables"
    async def setup(self, core):
        await core.db.execute("CREATE TABLE mine (x)")
async def main():
    config = WorkflowsConfig(launcher="inline")
    await AppServer(sys.argv[1], plugins=[Tables()], workflows=config, run_dir=sys.argv[2]).start()
    raise RuntimeError("no stop")
if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_a_script_that_fails_before_its_stop_ends_though_a_plugin_used_its_connection(tmp_path: Path):
    (tmp_path / "stopless.py").write_text(STOPLESS)
    code, _, err = await _run("stopless.py", str(tmp_path / "app.db"), str(tmp_path / "run"), cwd=tmp_path)
    assert code == 1
    assert "RuntimeError: no stop" in err
