"""The command line, driven as a user drives it: the real program, its output, its exit code."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"
MODULE = [sys.executable, "-P", "-m", "paddock"]
SCRIPT = [str(Path(sys.executable).parent / "paddock")]


@pytest.fixture(autouse=True)
def _flows(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.delenv("PADDOCK_DB", raising=False)


def paddock(*arguments, program=MODULE, stdin=None):
    return subprocess.run([*program, *arguments], capture_output=True, text=True, input=stdin, timeout=60, check=False)


def ok(*arguments, **options):
    found = paddock(*arguments, **options)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


def refused(*arguments, **options):
    """Return the sentence with which a call is refused."""
    found = paddock(*arguments, **options)
    assert found.returncode == 2, found
    assert not found.stdout
    assert "Traceback" not in found.stderr
    return found.stderr


def complaint(*arguments, **options):
    """Return the one sentence of an error that is ours, not the option parser's."""
    text = refused(*arguments, **options)
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "script"])
def test_version_and_help(program):
    import paddock as package

    assert ok("--version", program=program) == f"paddock {package.__version__}\n"
    for command in ("run", "list", "show", "demo"):
        assert command in ok("--help", program=program)
        assert "Usage:" in ok(command, "--help", program=program)


# --- run ---


@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("launcher", ["fork", "spawn"])
def test_run_prints_the_result(program, launcher):
    assert ok("run", "cli_flows:greet", '"Zoë ☃"', "--launcher", launcher, program=program) == '"Hello, Zoë ☃"\n'


def test_run_inline_keeps_what_handlers_print_from_the_result():
    found = paddock("run", "cli_flows:greet", '"Zoë ☃"', "--launcher", "inline")
    assert (found.returncode, found.stdout, found.stderr) == (0, '"Hello, Zoë ☃"\n', "greeting Zoë ☃\n")


def test_run_leaves_no_database():
    ok("run", "cli_flows:greet", '"Ada"')
    assert os.listdir() == []


def test_run_takes_the_input_from_stdin():
    assert ok("run", "cli_flows:greet", "-", stdin='"Ada"') == '"Hello, Ada"\n'


def test_run_streams_events():
    first, last = ok("run", "cli_flows:greet", '"Ada"', "-s").splitlines()
    assert json.loads(first) == {"event": "greeted", "data": {"name": "Ada"}}
    assert json.loads(last) == "Hello, Ada"


def test_run_prints_the_instance_as_json():
    instance = json.loads(ok("run", "cli_flows:greet", '"Ada"', "--json"))
    assert (instance["status"], instance["output"], instance["input"]) == ("completed", "Hello, Ada", "Ada")
    assert list(instance["step_results"]) == ["announce", "hello"]


def test_run_takes_a_file_of_the_current_directory(tmp_path):
    Path("shop.py").write_text((SUPPORT / "cli_flows.py").read_text())
    assert ok("run", "shop.py:greet", '"Ada"') == '"Hello, Ada"\n'
    assert ok("run", "shop:greet", '"Ada"') == '"Hello, Ada"\n'
    package = tmp_path / "elsewhere" / "store"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "flows.py").write_text(
        "from .steps import hello\nfrom paddock import workflow\ngreet = workflow('g').task('hello', hello).build()\n"
    )
    (package / "steps.py").write_text("def hello(name):\n    return name\n")
    assert ok("run", "elsewhere/store/flows.py:greet", '"Ada"', "--launcher", "spawn") == '"Ada"\n'


def test_run_with_plugins():
    examples = "paddock.examples.onboarding"
    plugins = [text for name in ("Users", "Accounts") for text in ("--plugin", f"{examples}:{name}")]
    found = paddock("run", f"{examples}:onboarding", '{"email": "a@b", "name": "A", "plan": "gold"}', *plugins)
    assert found.returncode == 2
    assert "plan" in found.stderr


def test_a_failed_workflow_exits_with_1_and_says_why():
    found = paddock("run", "cli_flows:fails", '"Ada"')
    assert (found.returncode, found.stdout) == (1, "")
    assert "failed at step 'boom': ValueError: no such [name]: Ada" in found.stderr
    assert 'raise ValueError(f"no such [name]: {name}")' in found.stderr
    assert "engine" not in found.stderr  # the user's frames, not ours
    found = paddock("run", "cli_flows:fails", '"Ada"', "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["error"]["type"] == "ValueError"


def test_a_timeout_cancels(tmp_path):
    marker = tmp_path / "marker"
    found = paddock("run", "cli_flows:hangs", json.dumps(str(marker)), "--timeout", "1s", "--db", "app.db")
    assert (found.returncode, found.stdout) == (1, "")
    assert "longer than 1s" in found.stderr
    assert [row["status"] for row in listed("app.db")] == ["cancelled"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_cleanly(tmp_path, number):
    marker = tmp_path / "marker"
    program = subprocess.Popen(
        [*MODULE, "run", "cli_flows:hangs", json.dumps(str(marker)), "--db", "app.db"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = wait_for_text(marker)
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    assert (program.returncode, out) == (130, "")
    assert "interrupted" in err
    assert "was cancelled" in err
    assert "Traceback" not in err
    assert not Path(f"/proc/{pid}").exists()
    assert [row["status"] for row in listed("app.db")] == ["cancelled"]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("cli_flows", "names no workflow"),
        (":greet", "names no workflow"),
        ("cli_flows:", "names no workflow"),
        ("no.such:greet", "no module 'no.such'"),
        ("missing.py:greet", "no file missing.py"),
        ("cli_flows:nope", "its workflows are: fails, greet, hangs"),
        ("cli_flows:number", "no workflow but of type int"),
        ("cli_flows:hello", "no workflow but of type function"),
        ("broken:greet", "broken.py, line 2"),
        ("syntax.py:greet", "SyntaxError"),
        ("needs:greet", "No module named 'no_such_dependency'"),
        ("leaves:greet", "SystemExit"),
        ("a..b:greet", "a..b"),
    ],
)
def test_a_bad_target_is_refused(target, sentence):
    Path("broken.py").write_text("\n1 / 0\n")
    Path("syntax.py").write_text("def (\n")
    Path("needs.py").write_text("import no_such_dependency\n")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    assert sentence in complaint("run", target, "1")


def test_bad_input_and_options_are_refused():
    assert "'Ada' is no JSON" in complaint("run", "cli_flows:greet", "Ada")
    assert "NaN is no JSON" in complaint("run", "cli_flows:greet", "NaN")
    assert "is no JSON" in complaint("run", "cli_flows:greet", "-", stdin="")
    assert "does not fit" in complaint("run", "cli_flows:greet", "[1]")
    assert "duration" in complaint("run", "cli_flows:greet", "1", "--timeout", "soon")
    assert "instance id" in complaint("run", "cli_flows:greet", '"x"', "--id", "a/b")
    assert "cannot be imported" in complaint("run", "cli_flows:greet", '"x"', "--plugin", "no.such:Plugin")
    assert "launcher" in refused("run", "cli_flows:greet", '"x"', "--launcher", "rocket")
    assert "nonsense" in refused("nonsense")
    assert "there is no folder" in complaint("run", "cli_flows:greet", '"x"', "--db", "no/such/folder/app.db")


def test_an_id_runs_once():
    for _ in range(2):
        assert ok("run", "cli_flows:greet", '"Ada"', "--db", "app.db", "--id", "one") == '"Hello, Ada"\n'
    assert "another input" in complaint("run", "cli_flows:greet", '"Bob"', "--db", "app.db", "--id", "one")
    assert [row["id"] for row in listed("app.db")] == ["one"]
    assert listed("app.db")[0]["executions"] == 1


def test_run_leaves_other_unfinished_instances_alone(tmp_path):
    marker = tmp_path / "marker"
    other = subprocess.Popen(
        [*MODULE, "run", "cli_flows:hangs", json.dumps(str(marker)), "--db", "app.db", "--id", "other"],
        stderr=subprocess.DEVNULL,
    )
    wait_for_text(marker)
    other.kill()
    other.wait()
    ok("run", "cli_flows:greet", '"Ada"', "--db", "app.db", "--id", "mine")
    assert [(row["id"], row["status"]) for row in listed("app.db")] == [("mine", "completed"), ("other", "pending")]
    marker.unlink()
    again = subprocess.Popen(
        [*MODULE, "run", "cli_flows:hangs", json.dumps(str(marker)), "--db", "app.db", "--id", "other"],
        stderr=subprocess.DEVNULL,
    )
    wait_for_text(marker)  # the id goes on
    again.send_signal(signal.SIGINT)
    assert again.wait(30) == 130
    assert [(row["id"], row["status"], row["executions"]) for row in listed("app.db")][1] == ("other", "cancelled", 2)


# --- list and show ---


def listed(database, *options):
    return json.loads(ok("list", "--db", database, "--json", *options))


@pytest.fixture
def database():
    ok("run", "cli_flows:greet", '"Ada"', "--db", "app.db", "--id", "good")
    paddock("run", "cli_flows:fails", '"Bob"', "--db", "app.db", "--id", "bad")
    return "app.db"


def test_list(database):
    files = sorted(os.listdir())
    assert [row["id"] for row in listed(database)] == ["bad", "good"]  # the newest first
    assert [row["id"] for row in listed(database, "--status", "failed")] == ["bad"]
    assert [row["id"] for row in listed(database, "--name", "greet")] == ["good"]
    assert [row["id"] for row in listed(database, "--limit", "1")] == ["bad"]
    assert listed(database, "--name", "nobody") == []
    text = ok("list", "--db", database)
    assert [line.split()[:3] for line in text.splitlines()[1:]] == [
        ["bad", "fails", "failed"],
        ["good", "greet", "completed"],
    ]
    assert sorted(os.listdir()) == files  # a look leaves nothing


def test_the_database_may_stand_in_the_environment(database, monkeypatch):
    monkeypatch.setenv("PADDOCK_DB", database)
    assert "good" in ok("list")
    assert "completed" in ok("show", "good")


def test_show(database):
    text = ok("show", "good", "--db", database)
    assert "completed" in text
    assert "Hello, Ada" in text
    assert ["announce", "task", "completed", "1"] in [line.split()[:4] for line in text.splitlines()]
    text = ok("show", "bad", "--db", database)
    assert "ValueError at step boom: no such [name]: Bob" in text
    assert 'raise ValueError(f"no such [name]: {name}")' in text
    instance = json.loads(ok("show", "bad", "--db", database, "--json"))
    assert instance["step_results"]["boom"]["status"] == "failed"
    assert instance["error"]["traceback"]


def test_list_and_show_beside_a_living_server(tmp_path):
    marker = tmp_path / "marker"
    program = subprocess.Popen(
        [*MODULE, "run", "cli_flows:hangs", json.dumps(str(marker)), "--db", "app.db", "--id", "long"],
        stderr=subprocess.DEVNULL,
    )
    try:
        pid = wait_for_text(marker)
        assert [(row["id"], row["status"], row["pid"]) for row in listed("app.db")] == [("long", "running", int(pid))]
        assert f"(process {pid})" in ok("show", "long", "--db", "app.db")
        sentence = complaint("run", "cli_flows:greet", '"x"', "--db", "app.db")
        assert f"a server with pid {program.pid} runs on" in sentence
    finally:
        program.send_signal(signal.SIGINT)
        program.wait(30)


def test_what_is_no_database_is_refused_and_left_alone():
    assert "there is no database" in complaint("list", "--db", "none.db")
    assert "there is no database" in complaint("show", "x", "--db", "none.db")
    assert "there is no database" in complaint("list", "--db", ".")
    Path("text.db").write_text("this is no database, but long enough to look like a file of one\n" * 20)
    assert "is not a database" in complaint("list", "--db", "text.db")
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    assert "is no database of Paddock's" in complaint("list", "--db", "other.db")
    assert sorted(os.listdir()) == ["other.db", "text.db"]


def test_bad_questions_are_refused(database, tmp_path, monkeypatch):
    assert "has the id 'nobody'" in complaint("show", "nobody", "--db", database)
    assert "there is no status 'broken'" in complaint("list", "--db", database, "--status", "broken")
    assert "--limit" in refused("list", "--db", database, "--limit", "0")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "ID" in refused("show", "--db", database)
    monkeypatch.chdir(empty)  # where no database lies that could be meant
    assert "--db" in refused("list")


def test_a_reader_that_goes_away_is_no_error(database):
    pipe = f"{' '.join(MODULE)} list --db {database} --json | true"
    found = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in found.stderr


def wait_for_text(path, limit=30.0):
    deadline = time.monotonic() + limit
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)
    return path.read_text()
