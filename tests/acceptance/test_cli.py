"""The command line, driven as a user drives it: the real program, its output, its exit code."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from clikit import LIMIT, MODULE, SUPPORT, Command, environment, wait_for_text
from ledger import starts

SCRIPT = [str(Path(sys.executable).parent / "paddock")]


@pytest.fixture
def paddock(tmp_path, zygote):
    return Command(tmp_path, zygote)


def hanging(marker, *more, **options):
    """Start the program as a process of its own, with a workflow that writes its pid to a file and then hangs."""
    command = [*MODULE, "run", "cli_flows:hangs", json.dumps(str(marker)), "--db", "app.db", *more]
    return subprocess.Popen(command, env=environment(), text=True, **{"stderr": subprocess.DEVNULL, **options})


def said(*arguments, program):
    """Return what the program prints, started as a process of its own."""
    found = subprocess.run(
        [*program, *arguments], env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "script"])
def test_version(program):
    import paddock as package

    assert said("--version", program=program) == f"paddock {package.__version__}\n"


def test_help(paddock):
    whole = paddock.clean("--help")
    for command in ("run", "list", "show", "demo"):
        assert command in whole
        assert "Usage:" in paddock.clean(command, "--help")


# --- run ---


@pytest.mark.parametrize(("program", "launcher"), [(MODULE, "spawn"), (SCRIPT, "fork")], ids=["module", "script"])
def test_run_prints_the_result(program, launcher):
    assert said("run", "cli_flows:greet", '"Zoë ☃"', "--launcher", launcher, program=program) == '"Hello, Zoë ☃"\n'


def test_run_inline_keeps_what_handlers_print_from_the_result(paddock):
    found = paddock("run", "cli_flows:greet", '"Zoë ☃"', "--launcher", "inline")
    assert (found.returncode, found.stdout, found.stderr) == (0, '"Hello, Zoë ☃"\n', "greeting Zoë ☃\n")


def test_run_leaves_no_database(paddock):
    paddock.clean("run", "cli_flows:greet", '"Ada"')
    assert os.listdir() == []


def test_run_takes_the_input_from_stdin(paddock):
    assert paddock.clean("run", "cli_flows:greet", "-", stdin='"Ada"') == '"Hello, Ada"\n'


def test_run_streams_events(paddock):
    first, last = paddock.clean("run", "cli_flows:greet", '"Ada"', "-s").splitlines()
    assert json.loads(first) == {"event": "greeted", "data": {"name": "Ada"}}
    assert json.loads(last) == "Hello, Ada"


def test_run_prints_the_instance_as_json(paddock):
    instance = json.loads(paddock.clean("run", "cli_flows:greet", '"Ada"', "--json"))
    assert (instance["status"], instance["output"], instance["input"]) == ("completed", "Hello, Ada", "Ada")
    assert list(instance["step_results"]) == ["announce", "hello"]


def test_run_takes_a_file_of_the_current_directory(paddock, tmp_path):
    Path("shop.py").write_text((SUPPORT / "cli_flows.py").read_text())
    assert paddock.clean("run", "shop.py:greet", '"Ada"') == '"Hello, Ada"\n'
    assert paddock.clean("run", "shop:greet", '"Ada"') == '"Hello, Ada"\n'
    package = tmp_path / "elsewhere" / "store"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "flows.py").write_text(
        "from .steps import hello\nfrom paddock import workflow\ngreet = workflow('g').task('hello', hello).build()\n"
    )
    (package / "steps.py").write_text("def hello(name):\n    return name\n")
    assert paddock.clean("run", "elsewhere/store/flows.py:greet", '"Ada"', "--launcher", "spawn") == '"Ada"\n'


def test_run_with_plugins(paddock):
    examples = "paddock.examples.onboarding"
    plugins = [text for name in ("Users", "Accounts") for text in ("--plugin", f"{examples}:{name}")]
    found = paddock("run", f"{examples}:onboarding", '{"email": "a@b", "name": "A", "plan": "gold"}', *plugins)
    assert found.returncode == 2
    assert "plan" in found.stderr


def test_a_failed_workflow_exits_with_1_and_says_why(paddock):
    found = paddock("run", "cli_flows:fails", '"Ada"')
    assert (found.returncode, found.stdout) == (1, "")
    assert "failed at step 'boom': ValueError: no such [name]: Ada" in found.stderr
    assert 'raise ValueError(f"no such [name]: {name}")' in found.stderr
    assert "engine" not in found.stderr  # the user's frames, not ours
    found = paddock("run", "cli_flows:fails", '"Ada"', "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["error"]["type"] == "ValueError"


def test_a_timeout_cancels(paddock, tmp_path):
    marker = tmp_path / "marker"
    found = paddock("run", "cli_flows:hangs", json.dumps(str(marker)), "--timeout", "1s", "--db", "app.db")
    assert (found.returncode, found.stdout) == (1, "")
    assert "longer than 1s" in found.stderr
    assert [row["status"] for row in listed(paddock, "app.db")] == ["cancelled"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_cleanly(paddock, tmp_path, number):
    marker = tmp_path / "marker"
    program = hanging(marker, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pid = wait_for_text(marker)
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    assert (program.returncode, out) == (130, "")
    assert "interrupted" in err
    assert "was cancelled" in err
    assert "Traceback" not in err
    assert starts(int(pid)) is None
    assert [row["status"] for row in listed(paddock, "app.db")] == ["cancelled"]


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
def test_a_bad_target_is_refused(paddock, target, sentence):
    Path("broken.py").write_text("\n1 / 0\n")
    Path("syntax.py").write_text("def (\n")
    Path("needs.py").write_text("import no_such_dependency\n")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    assert sentence in paddock.refused("run", target, "1")


def test_bad_input_and_options_are_refused(paddock):
    assert "'Ada' is no JSON" in paddock.refused("run", "cli_flows:greet", "Ada")
    assert "NaN is no JSON" in paddock.refused("run", "cli_flows:greet", "NaN")
    assert "is no JSON" in paddock.refused("run", "cli_flows:greet", "-", stdin="")
    assert "does not fit" in paddock.refused("run", "cli_flows:greet", "[1]")
    assert "duration" in paddock.refused("run", "cli_flows:greet", "1", "--timeout", "soon")
    assert "instance id" in paddock.refused("run", "cli_flows:greet", '"x"', "--id", "a/b")
    assert "cannot be imported" in paddock.refused("run", "cli_flows:greet", '"x"', "--plugin", "no.such:Plugin")
    assert "launcher" in paddock.misused("run", "cli_flows:greet", '"x"', "--launcher", "rocket")
    assert "nonsense" in paddock.misused("nonsense")
    assert "there is no folder" in paddock.refused("run", "cli_flows:greet", '"x"', "--db", "no/such/folder/app.db")


def test_an_id_runs_once(paddock):
    for _ in range(2):
        assert paddock.clean("run", "cli_flows:greet", '"Ada"', "--db", "app.db", "--id", "one") == '"Hello, Ada"\n'
    assert "another input" in paddock.refused("run", "cli_flows:greet", '"Bob"', "--db", "app.db", "--id", "one")
    assert [row["id"] for row in listed(paddock, "app.db")] == ["one"]
    assert listed(paddock, "app.db")[0]["executions"] == 1


def test_run_leaves_other_unfinished_instances_alone(paddock, tmp_path):
    marker = tmp_path / "marker"
    other = hanging(marker, "--id", "other")
    wait_for_text(marker)
    other.kill()
    other.wait()
    paddock.clean("run", "cli_flows:greet", '"Ada"', "--db", "app.db", "--id", "mine")
    assert [(row["id"], row["status"]) for row in listed(paddock, "app.db")] == [
        ("mine", "completed"),
        ("other", "pending"),
    ]
    marker.unlink()
    again = hanging(marker, "--id", "other")
    wait_for_text(marker)  # the id goes on
    again.send_signal(signal.SIGINT)
    assert again.wait(30) == 130
    assert [(row["id"], row["status"], row["executions"]) for row in listed(paddock, "app.db")][1] == (
        "other",
        "cancelled",
        2,
    )


# --- list and show ---


def listed(paddock, database, *options):
    return paddock.json("list", "--db", database, *options)


@pytest.fixture
def database(paddock):
    paddock.clean("run", "cli_flows:greet", '"Ada"', "--db", "app.db", "--id", "good")
    paddock("run", "cli_flows:fails", '"Bob"', "--db", "app.db", "--id", "bad")
    return "app.db"


def test_list(paddock, database):
    files = sorted(os.listdir())
    assert [row["id"] for row in listed(paddock, database)] == ["bad", "good"]  # the newest first
    assert [row["id"] for row in listed(paddock, database, "--status", "failed")] == ["bad"]
    assert [row["id"] for row in listed(paddock, database, "--name", "greet")] == ["good"]
    assert [row["id"] for row in listed(paddock, database, "--limit", "1")] == ["bad"]
    assert listed(paddock, database, "--name", "nobody") == []
    text = paddock.clean("list", "--db", database)
    assert [line.split()[:3] for line in text.splitlines()[1:]] == [
        ["bad", "fails", "failed"],
        ["good", "greet", "completed"],
    ]
    assert text.splitlines()[1].rstrip().endswith("ValueError: no such [name]: Bob")  # why
    assert sorted(os.listdir()) == files  # a look leaves nothing


def test_the_database_may_stand_in_the_environment(paddock, database):
    assert "good" in paddock.clean("list", PADDOCK_DB=database)
    assert "completed" in paddock.clean("show", "good", PADDOCK_DB=database)


def test_a_shell_completes(paddock, database):
    for words, found in {
        "paddock sh": ["show"],
        "paddock show g": ["good"],
        "paddock list --status fai": ["failed"],
        "paddock list --name ": ["fails", "greet"],
        "paddock signal good ": [],
    }.items():
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "PADDOCK_DB": database}
        assert paddock.ok(_PADDOCK_COMPLETE="complete_bash", **asked).split() == found


def test_show(paddock, database):
    text = paddock.clean("show", "good", "--db", database)
    assert "completed" in text
    assert "Hello, Ada" in text
    assert ["announce", "task", "completed", "1"] in [line.split()[:4] for line in text.splitlines()]
    text = paddock.clean("show", "bad", "--db", database)
    assert "ValueError at step boom: no such [name]: Bob" in text
    assert 'raise ValueError(f"no such [name]: {name}")' in text
    assert text.rstrip().endswith("paddock retry bad")
    instance = json.loads(paddock.clean("show", "bad", "--db", database, "--json"))
    assert instance["step_results"]["boom"]["status"] == "failed"
    assert instance["error"]["traceback"]


def test_list_and_show_beside_a_living_server(paddock, tmp_path):
    marker = tmp_path / "marker"
    program = hanging(marker, "--id", "long")
    try:
        pid = wait_for_text(marker)
        assert [(row["id"], row["status"], row["pid"]) for row in listed(paddock, "app.db")] == [
            ("long", "running", int(pid))
        ]
        assert f"(process {pid})" in paddock.clean("show", "long", "--db", "app.db")
        sentence = paddock.refused("run", "cli_flows:greet", '"x"', "--db", "app.db")
        assert f"a server with pid {program.pid} runs on" in sentence
    finally:
        program.send_signal(signal.SIGINT)
        program.wait(30)


def test_what_is_no_database_is_refused_and_left_alone(paddock):
    assert "there is no database" in paddock.refused("list", "--db", "none.db")
    assert "there is no database" in paddock.refused("show", "x", "--db", "none.db")
    assert "there is no database" in paddock.refused("list", "--db", ".")
    Path("text.db").write_text("this is no database, but long enough to look like a file of one\n" * 20)
    assert "is not a database" in paddock.refused("list", "--db", "text.db")
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    assert "is no database of Paddock's" in paddock.refused("list", "--db", "other.db")
    assert sorted(os.listdir()) == ["other.db", "text.db"]


def test_bad_questions_are_refused(paddock, database, tmp_path, zygote):
    assert "has the id 'nobody'" in paddock.refused("show", "nobody", "--db", database)
    assert "there is no status 'broken'" in paddock.refused("list", "--db", database, "--status", "broken")
    assert "--limit" in paddock.misused("list", "--db", database, "--limit", "0")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "ID" in paddock.misused("show", "--db", database)
    assert "--db" in Command(empty, zygote).misused("list")  # where no database lies that could be meant


def test_a_reader_that_goes_away_is_no_error(database):
    pipe = f"{' '.join(MODULE)} list --db {database} --json | true"
    found = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in found.stderr
