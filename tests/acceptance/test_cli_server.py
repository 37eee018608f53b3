"""The command line beside a running server that has no HTTP: every command, as a user types it."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from clikit import LIMIT, MODULE, Command, DetachedServer, answered, wait_for_text
from ledger import starts

from paddock import InvalidTransition, MachineError, PaddockError, SqlitePragmas, UsageError
from paddock.ipc.address import parse_address
from paddock.ipc.channel import connect_sync
from paddock.ipc.errors import HandshakeRefused, PeerGone
from paddock.ipc.handshake import PROTOCOL_VERSION
from paddock.ipc.messages import Hello, Nudge
from paddock.runtime.cli.line import Line
from paddock.runtime.store.sqlite import SqliteStore
from paddock.runtime.store.turn import read_note


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def server(folder):
    running = DetachedServer(folder)
    yield running
    running.stop()
    assert not (folder / "app.db-paddock").exists()


@pytest.fixture
def paddock(folder, server, zygote):
    return Command(folder, zygote)


@pytest.fixture
def line(folder, server):
    with Line.to(read_note(str(folder / "app.db"))) as found:
        yield found


# --- start, signal, wait ---


def test_an_order_from_start_to_end(paddock):
    assert paddock.ok("start", "order", '"Zoë"', "--id", "a-1", "--meta", 'who="Ada"', "--priority", "2") == "a-1\n"
    assert paddock.ok("start", "order", '"Zoë"', "--id", "a-1") == "a-1\n"  # the same one again starts nothing
    assert "another input" in paddock.refused("start", "order", '"Bob"', "--id", "a-1")
    instance = paddock.until("a-1", "waiting")
    assert (instance.metadata, instance.priority) == ({"who": "Ada"}, 2)
    shown = paddock.ok("show", "a-")  # a beginning is enough
    assert "paddock signal a-1 approve JSON" in shown
    assert "approved: Field required" in paddock.refused("signal", "a-1", "approve", '{"x": 1}')
    assert "is no JSON" in paddock.refused("signal", "a-1", "approve", "yes")
    found = paddock("signal", "a-1", "approve", '{"approved": true}')
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "a-1 has the signal 'approve'\n")
    assert paddock.until("a-1", "completed").output == {"approved": True}
    assert "has ended as completed" in paddock.refused("signal", "a-1", "approve", '{"approved": true}')


def test_start_and_wait(paddock, tmp_path):
    assert paddock.ok("start", "nap", "0.01", "--wait") == '"rested"\n'
    found = paddock("start", "cli_server:needy", json.dumps(str(tmp_path / "missing")), "-w", "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["error"]["type"] == "FileNotFoundError"
    assert "failed at step 'needs': FileNotFoundError" in found.stderr


def test_a_wrong_start_is_refused(paddock):
    assert "there are: game, hangs, nap, needy, order" in paddock.refused("start", "nope")
    assert "does not fit" in paddock.refused("start", "nap", '"long"')
    assert "KEY=JSON" in paddock.refused("start", "nap", "1", "--meta", "x")
    assert "duration" in paddock.refused("start", "nap", "1", "--delay", "soon")
    assert "its workflows are" in paddock.refused("start", "cli_server:nope", "1")


# --- cancel, retry, fork, pause, cleanup ---


def test_cancel_ends_the_process(paddock, tmp_path):
    marker = tmp_path / "marker"
    paddock.ok("start", "hangs", json.dumps(str(marker)), "--id", "doomed")
    pid = wait_for_text(marker)
    found = paddock("cancel", "doomed")
    assert (found.returncode, found.stderr) == (0, "doomed is cancelled\n")
    assert starts(int(pid)) is None
    found = paddock("cancel", "doomed")
    assert (found.returncode, found.stderr) == (0, "doomed had ended before, as cancelled\n")
    assert paddock.json("cancel", "doomed") == {"id": "doomed", "cancelled": False, "live": True}


def test_a_failed_one_is_retried_and_forked(paddock, tmp_path):
    path = tmp_path / "file"
    paddock("start", "needy", json.dumps(str(path)), "--id", "needy-1", "--wait")
    path.touch()
    assert "is queued again" in paddock("retry", "needy-1").stderr
    assert paddock.until("needy-1", "completed").output == "found"
    assert "only a failed or a blocked one can be retried" in paddock.refused("retry", "needy-1")
    assert paddock.ok("fork", "needy-1", "--from", "needs", "--id", "needy-2") == "needy-2\n"
    forked = paddock.until("needy-2", "completed")
    assert forked.step_results["hello"] == paddock.until("needy-1", "completed").step_results["hello"]
    assert "never came to a step 'nope'" in paddock.refused("fork", "needy-1", "--from", "nope")
    assert "does not fit" in paddock.refused("fork", "needy-1", "--input", "1")


def test_pause_and_unpause(paddock):
    for ident in ("nap-1", "nap-2"):
        paddock.ok("start", "nap", "1000", "--id", ident)
        paddock.until(ident, "sleeping")
    assert paddock.ok("pause", "nap-1", "nap-2") == ""
    assert [row["id"] for row in paddock.json("list", "--status", "paused")] == ["nap-2", "nap-1"]
    assert "did you mean" in paddock.refused("unpause", "nap-1", "nap-3")  # one wrong id leaves all as they are
    assert paddock.json("show", "nap-1")["status"] == "paused"
    (row,) = paddock.lines("unpause", "nap-1")
    assert (row["id"], row["live"]) == ("nap-1", True)
    assert "not paused" in paddock.refused("unpause", paddock.until("nap-1", "sleeping").id)
    assert paddock.json("cancel", "--all", "--name", "nap") == {"count": 2, "live": True}
    assert "only one that has ended" not in paddock("cleanup", "nap-1").stderr
    assert "'nap-1'" in paddock.refused("show", "nap-1")
    found = paddock("cleanup", "--older-than", "0s", "--name", "nap", "--status", "cancelled")
    assert (found.returncode, found.stderr) == (0, "1 deleted\n")


def test_what_is_meant_must_be_clear(paddock):
    assert "Give ids, or --all" in paddock.refused("cancel")
    assert "not both" in paddock.refused("cancel", "x", "--all")
    assert "narrow --all" in paddock.refused("cancel", "x", "--name", "nap")
    assert "either ids or --older-than" in paddock.refused("cleanup")
    assert "narrow --older-than" in paddock.refused("cleanup", "x", "--status", "failed")
    paddock.ok("start", "game", "{}", "--id", "twin-1")
    paddock.ok("start", "game", "{}", "--id", "twin-2")
    assert "several instances have an id that begins with 'twin': twin-2, twin-1" in paddock.refused("show", "twin")
    assert "only one that has ended can be cleaned up" in paddock.refused("cleanup", "twin-1")


# --- looking ---


def test_events_and_logs_are_followed_to_the_end(paddock):
    paddock.ok("start", "game", "{}", "--id", "game-1")
    paddock.until("game-1", "waiting")
    events = paddock.popen("events", "game-1", "-f", "--json")
    logs = paddock.popen("logs", "game-1", "-f", "--json")
    first = [json.loads(events.stdout.readline()) for _ in range(2)]
    paddock.ok("signal", "game-1", "guess", "3")
    found = first + [json.loads(text) for text in events.stdout]
    events.communicate(timeout=LIMIT)
    assert [found[0]["name"], found[-1]["name"]] == ["workflow.started", "workflow.completed"]
    assert [event["id"] for event in found] == sorted({event["id"] for event in found})
    assert found == paddock.lines("events", "game-1")
    assert paddock.lines("events", "game-1", "--after", str(found[1]["id"])) == found[2:]
    assert paddock.lines("events", "game-1", "--tail", "1") == found[-1:]
    assert {event["name"] for event in paddock.lines("events", "--name", "workflow.comp*")} == {"workflow.completed"}
    assert (logs.communicate(timeout=LIMIT)[0], events.returncode, logs.returncode) == ("", 0, 0)
    assert "no instance has the id" in paddock.refused("events", "nobody", "-f")


def test_events_and_logs_for_people(paddock, tmp_path):
    paddock("start", "needy", json.dumps(str(tmp_path / "no")), "--id", "talk", "--wait")
    text = paddock.ok("events", "talk")
    assert "needs: FileNotFoundError" in text
    assert "log.workflow.talk" not in text
    assert "log.workflow.talk" in paddock.ok("events", "talk", "--name", "log.*")
    text = paddock.ok("logs", "talk")
    assert "stdout   hello: greeting" in text
    assert "warning  needs: looking path=" in text
    assert "greeting" not in paddock.ok("logs", "talk", "--level", "warning")
    assert "warning" in paddock.ok("logs", "-n", "1", "--level", "warning")
    assert "no log level 'loud'" in paddock.refused("logs", "--level", "loud")


def test_stack_and_top_of_a_running_one(paddock, server, tmp_path):
    marker = tmp_path / "marker"
    paddock.ok("start", "hangs", json.dumps(str(marker)), "--id", "busy")
    pid = int(wait_for_text(marker))
    text = paddock.ok("stack", "busy")
    assert f"process {pid}, hangs, step hang" in text
    assert "in hang" in text
    found = answered(lambda: paddock.json("top"))
    assert (found["server_pid"], found["trouble"]) == (server.pid, {})
    roles = {process["role"]: process for process in found["processes"]}
    assert set(roles) == {"server", "watchdog", "fork-server", "child"}
    child = next(process for process in found["processes"] if process["instance_id"] == "busy")
    assert (child["pid"], child["step"], child["workflow"]) == (pid, "hang", "hangs")
    assert child["rss"] > 0
    assert found["counts"]["hangs"]["running"] == 1
    assert "busy" in paddock.ok("top", "--once")
    paddock.ok("cancel", "busy")
    assert "no process and no stack" in paddock.refused("stack", "busy")


def test_top_without_an_answer_shows_what_the_kernel_knows(paddock, server, tmp_path):
    marker = tmp_path / "marker"
    paddock.ok("start", "hangs", json.dumps(str(marker)), "--id", "orphan")
    pid = int(wait_for_text(marker))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        found = paddock.json("top")
        assert "in hang" in paddock.ok("stack", "orphan")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert "does not answer" in found["trouble"]["server"]
    child = next(process for process in found["processes"] if process["instance_id"] == "orphan")
    assert (child["pid"], child["step"]) == (pid, "hang")
    paddock.ok("cancel", "orphan")


def test_schedules(paddock):
    assert [row["id"] for row in paddock.json("schedules")] == ["nightly"]
    assert "0 3 * * * Europe/Berlin" in paddock.ok("schedules")
    assert "there are: nightly" in paddock.refused("schedules", "--remove", "daily")
    assert paddock.json("schedules", "--remove", "nightly") == {"id": "nightly", "removed": True, "live": True}
    assert paddock.json("schedules") == []


def test_an_instance_is_drawn_with_the_path_it_took(paddock):
    paddock.ok("start", "order", '"Ada"', "--id", "drawn")
    paddock.until("drawn", "waiting")
    drawn = paddock.json("graph", "drawn")
    boxes = {box["key"]: box["status"] for box in drawn["boxes"]}
    assert boxes["fulfill/shipping/ship"] == "completed"
    assert (boxes["approve"], boxes["done"]) == ("waiting", None)
    taken = {(arrow["source"], arrow["target"]) for arrow in drawn["arrows"] if arrow["taken"]}
    assert ("check", "fulfill") in taken
    assert ("check", "approve") not in taken
    assert paddock.ok("graph", "cli_server:order", "--instance", "drawn") == paddock.ok("graph", "drawn")
    assert paddock.ok("graph", "order", "--instance", "drawn") == paddock.ok("graph", "drawn")
    assert paddock.ok("graph", "order") == paddock.ok("graph", "cli_server:order")
    assert "is of workflow 'order', not of 'game'" in paddock.refused("graph", "cli_server:Game", "--instance", "drawn")


def test_a_reader_that_goes_away_ends_it_quietly(paddock, folder):
    found = subprocess.run(
        ["bash", "-c", f"{' '.join(MODULE)} events -n 100000 | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=LIMIT,
        check=False,
    )
    assert (found.stdout, found.stderr) == ("0\n", "")


def test_an_interrupted_follower_says_nothing(paddock):
    paddock.until(paddock.ok("start", "game", "{}").strip(), "waiting")
    following = paddock.popen("events", "-f", "-n", "1", "--json", stderr=subprocess.PIPE)
    following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=LIMIT)
    assert (following.returncode, err) == (130, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_question_marks(paddock, encoding):
    ident = paddock.ok("start", "order", '"☃"').strip()
    paddock.until(ident, "waiting")
    found = subprocess.run(
        [*MODULE, "events", ident],
        capture_output=True,
        cwd=paddock.folder,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=LIMIT,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, b"")
    assert b'hello ? "Hello, ?"' in found.stdout


# --- the line itself ---


def test_the_server_answers_what_it_cannot_do(line):
    with pytest.raises(UsageError, match="same release"):
        line.ask("format_disk", {}, LIMIT)
    with pytest.raises(PaddockError, match="the server failed: TypeError"):
        line.ask("start", {"nonsense": 1}, LIMIT)
    with pytest.raises(InvalidTransition):
        line.ask("cleanup", {"id": line.ask("start", {"name_or_definition": "nap", "input": 1000}, LIMIT)}, LIMIT)
    assert line.ask("cancel_all", {"name": "nap"}, LIMIT) >= 1
    assert "nap" in [row["name"] for row in line.ask("workflows", {}, LIMIT)]


def test_a_stranger_is_refused(folder, server):
    note = read_note(str(folder / "app.db"))
    address = parse_address(note.address)
    hello = Hello(version=PROTOCOL_VERSION, role="control", token="guessed", pid=1, start_time=1)
    with pytest.raises(HandshakeRefused, match="wrong token"):
        connect_sync(address, hello)
    hello = hello.model_copy(update={"token": (Path(note.run_dir) / "token").read_text()})
    channel = connect_sync(address, hello)
    channel.send(Nudge())  # no wish: hung up on
    with pytest.raises(PeerGone):
        while channel.wait(LIMIT) == []:
            pass
    channel.close()


def test_a_server_that_is_gone_is_no_line(tmp_path):
    from paddock.runtime.store.turn import ServerNote

    with pytest.raises(MachineError, match="does not listen yet"):
        Line.to(ServerNote(1))
    with pytest.raises(MachineError, match="does not answer"):
        Line.to(ServerNote(1, str(tmp_path), f"unix:{tmp_path}/hub.sock"))


def test_of_several_databases_the_one_that_is_served(paddock, folder):
    other = folder / "other.db"
    SqliteStore.open(str(other), SqlitePragmas()).close()
    try:
        assert answered(lambda: paddock.json("top"))["trouble"] == {}
    finally:
        other.unlink()
