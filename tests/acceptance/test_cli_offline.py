"""The command line where no server runs: the rows are changed by the same rules, and the next server goes on from there."""

import json
import os

import pytest
from clikit import Command, ServerProcess, wait_for_text
from ledger import starts

from paddock.runtime.cli.offline import ServerCame, do_offline
from paddock.runtime.store.turn import LockFile, read_note

TOLD = "no server runs on this database: it takes effect when one starts\n"


@pytest.fixture
def paddock(tmp_path, zygote):
    return Command(tmp_path, zygote)


@pytest.fixture
def server(tmp_path):
    running: list[ServerProcess] = []

    def start():
        running.append(ServerProcess(tmp_path))
        return running[-1]

    yield start
    for one in running:
        if not one.process.stdout.closed:
            one.stop()


def test_what_is_done_meanwhile_takes_effect_at_the_next_start(paddock, server, tmp_path):
    first = server()
    for ident in ("answered", "held", "doomed"):
        paddock.ok("start", "game", "{}", "--id", ident)
        paddock.until(ident, "waiting")
    first.stop()
    files = sorted(os.listdir(tmp_path))
    found = paddock("signal", "answered", "guess", "3")
    assert (found.returncode, found.stderr) == (0, f"answered has the signal 'guess'\n{TOLD}")
    assert "valid integer" in paddock.refused("signal", "held", "guess", '"three"')
    assert paddock("pause", "held").stderr.endswith(TOLD)
    assert paddock("cancel", "doomed").stderr == "doomed is cancelled\n"
    assert "only a failed or a blocked one" in paddock.refused("retry", "doomed")
    found = paddock("start", "game", '{"answer": 4}', "--id", "queued")
    assert (found.returncode, found.stdout, found.stderr) == (0, "queued\n", TOLD)
    assert paddock.ok("start", "cli_server:order", '"Ada"', "--id", "checked") == "checked\n"
    assert "does not fit" in paddock.refused("start", "cli_server:order", "[1]")
    assert "did you mean game?" in paddock.refused("start", "gamer", "{}")
    assert "name it module:workflow" in paddock.refused("start", "zebra", "{}")
    assert "no server runs" in paddock.refused("start", "game", "{}", "--wait")
    assert paddock.ok("fork", "doomed", "--id", "copy") == "copy\n"
    paddock.ok("cleanup", "doomed")
    assert [one["id"] for one in paddock.json("list")] == ["copy", "checked", "queued", "held", "answered"]
    assert paddock.json("top")["server_pid"] is None
    assert sorted(os.listdir(tmp_path)) == files  # no lock file is left, and nothing else
    server()
    paddock.until("answered", "completed")
    paddock.until("queued", "waiting")
    paddock.until("copy", "waiting")
    paddock.until("checked", "waiting")
    assert paddock.json("show", "held")["status"] == "paused"


def test_a_process_that_outlived_its_server_is_seen_and_ended(paddock, server, tmp_path):
    first = server()
    marker = tmp_path / "marker"
    paddock.ok("start", "hangs", json.dumps(str(marker)), "--id", "orphan")
    pid = int(wait_for_text(marker))
    first.kill()
    assert "in hang" in paddock.ok("stack", "orphan")
    assert [(one["pid"], one["step"]) for one in paddock.json("top")["processes"]] == [(pid, "hang")]
    assert paddock("cancel", "orphan").stderr == "orphan is cancelled\n"
    assert starts(pid) is None
    paddock.ok("cleanup", "orphan")
    second = server()
    assert paddock.json("list") == []
    second.stop()


def test_a_server_that_comes_meanwhile_is_asked_instead(paddock, server, tmp_path):
    running = server()
    paddock.ok("start", "game", "{}", "--id", "one")
    database = str(tmp_path / "app.db")
    assert read_note(database).pid == running.pid
    with pytest.raises(ServerCame):
        do_offline(database, "cancel", {"id": "one"})
    LockFile.of(database).tidy()  # the server's: it stays
    assert read_note(database).pid == running.pid
    assert paddock.until("one", "waiting")


def test_which_database(paddock, server, tmp_path):
    assert "there is none of Paddock's named *.db here; name one with --db" in paddock.refused("list")
    assert "there is no database" in paddock.refused("cancel", "x", "--db", "app.db")
    assert os.listdir(tmp_path) == []
    server().stop()
    (tmp_path / "notes.db").write_text("not ours")
    assert paddock.json("list") == []
    (tmp_path / "copy.db").write_bytes((tmp_path / "app.db").read_bytes())
    assert "there are app.db, copy.db here" in paddock.refused("list")
    assert paddock.ok("list", "--json", PADDOCK_DB="copy.db") == "[]\n"
