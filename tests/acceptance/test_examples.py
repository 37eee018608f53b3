"""Every example runs, as the program that a user would start."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from paddock.examples.audit.measure import find_modules


def example(name, *arguments, timeout=200):
    command = [sys.executable, "-P", "-m", f"paddock.examples.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_process_order():
    found = example("process_order")
    assert (found.returncode, found.stderr) == (0, "")
    first, second = (json.loads(line) for line in found.stdout.splitlines() if line.startswith("{"))
    assert first["order"] == {"order_id": "ORD-123", "in_stock": True, "total": 42.5}
    assert first["result"]["notification"] == {"sent": True}
    assert "for ORD-123" in first["result"]["shipping"]["tracking"]
    assert second["result"] == {"backorder": "ORD-456"}
    assert "your order ORD-123 over 42.50 is on its way" in found.stdout
    assert os.listdir() == []


def test_onboarding():
    found = example("onboarding")
    assert (found.returncode, found.stderr) == (0, "")
    ada, bob = (json.loads(line) for line in found.stdout.splitlines() if line.startswith("{"))
    assert (ada["plan"], bob["plan"], ada["setup_complete"]) == ("enterprise", "free", True)
    assert ada["user_id"] != bob["user_id"]
    assert found.stdout.count("workflow.step.retry") == 2
    assert "sso, audit-logs, dedicated-support" in found.stdout
    assert "refused:" in found.stdout
    assert os.listdir() == []


@pytest.fixture
def small_tree(tmp_path):
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "good.py").write_text(
        'import os\n\n\nclass A:\n    def f(self, x):\n        """Say."""\n        return 1 if x and os else 2\n'
    )
    (tree / "undocumented.py").write_text("def g():\n    for i in []:\n        pass\n\n\ndef _h(): ...\n")
    (tree / "broken.py").write_text("def (\n")
    return tree


def test_code_audit_of_a_small_tree(small_tree):
    found = example("code_audit", "--source", str(small_tree), "--out", "out")
    assert found.returncode == 0, found
    report = json.loads(Path("out/report.json").read_text())
    figures = report["figures"]
    assert (figures["modules"], figures["functions"], figures["classes"], figures["undocumented"]) == (3, 3, 1, 1)
    by_path = {module["path"]: module for module in report["modules"]}
    assert by_path["inner/good.py"]["worst"] == {"name": "f", "line": 5, "lines": 3, "complexity": 3}
    assert by_path["inner/good.py"]["imports"] == ["os"]
    assert by_path["broken.py"]["problem"].startswith("SyntaxError")
    index = json.loads(Path("out/index.json").read_text())
    assert index == {
        "A": ["inner/good.py:4"],
        "f": ["inner/good.py:5"],
        "g": ["undocumented.py:1"],
        "_h": ["undocumented.py:6"],
    }
    assert "undocumented.py" in Path("out/report.html").read_text()


def test_code_audit_refuses_a_folder_that_is_not_there():
    found = example("code_audit", "--source", "nowhere")
    assert found.returncode == 2
    assert "there is no folder nowhere" in found.stderr


@pytest.fixture
def demo(tmp_path):
    """Return the command of the demo, on every other module of the standard library."""
    library, tree = sysconfig.get_path("stdlib"), tmp_path / "tree"
    for path, _ in find_modules(library)[::2]:
        copy = tree / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(Path(library, path))
    return [sys.executable, "-P", "-m", "paddock", "demo", "--source", str(tree), "--out", "out"]


@pytest.mark.slow
def test_the_demo_proves_its_point(demo):
    found = subprocess.run(demo, capture_output=True, text=True, timeout=200, check=False)
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert found.stdout.count("kill -9") == 3  # the child, the server, the summary
    assert "no finished step did" in found.stdout
    assert "report.html" in found.stdout
    assert json.loads(Path("out/report.json").read_text())["figures"]["modules"] > 150
    shown = subprocess.run(
        [*demo[:-5], "show", "audit", "--db", "out/audit.db", "--json"], capture_output=True, check=True, timeout=30
    )
    instance = json.loads(shown.stdout)
    assert instance["status"] == "completed"
    assert sorted(os.listdir("out")) == [
        "audit.db",
        "index.json",
        "ledger.txt",
        "report.html",
        "report.json",
        "server.log",
    ]


@pytest.mark.slow
def test_the_demo_fails_where_there_is_no_time_for_the_kills(small_tree):
    found = example("code_audit", "--demo", "--source", str(small_tree), "--out", "out")
    assert found.returncode == 1
    assert "over before both kills" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["finished  measure/", "the server."])
def test_the_demo_can_be_interrupted(demo, moment):
    program = subprocess.Popen(
        demo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    with program:
        for line in program.stdout:
            if moment in line:
                break
        program.send_signal(signal.SIGINT)
        began = time.monotonic()
        rest = program.stdout.read()
        assert program.wait(60) == 130, rest
    assert time.monotonic() - began < 60
