"""The command line on PostgreSQL: with a server over its socket, without one on the rows; the URL from the environment."""

import json

import pytest
from clikit import Command, answered
from crashkit import DATABASE, Stage, line, stage_in
from pgkit import SECRET


@pytest.fixture
async def pg_stage(postgres_url, tmp_path, monkeypatch):
    monkeypatch.setenv(DATABASE, postgres_url)
    async with stage_in(tmp_path) as found:
        yield found


async def test_looks_and_wishes_with_a_server_and_without(pg_stage: Stage, postgres_url, tmp_path, zygote):
    paddock = Command(tmp_path, zygote)

    def ok(*words):
        found = paddock(*words, PADDOCK_DB=postgres_url)
        assert found.returncode == 0, found
        return found.stdout

    server = await pg_stage.process()
    await server.ready()
    assert ok("start", "held", json.dumps({"until": str(pg_stage.flag)}), "--id", "one") == "one\n"
    await line("begin", key="hold", instance="one")
    top = answered(lambda: json.loads(ok("top", "--json")))
    assert (top["server_pid"], top["trouble"]) == (server.pid, {})
    assert "one" in [row["instance_id"] for row in top["processes"]]
    assert "process" in ok("stack", "one")
    ok("cancel", "one")
    server.close_input()
    await server.died()

    assert ok("start", "held", "{}", "--id", "two") == "two\n"
    assert [row["id"] for row in json.loads(ok("list", "--json"))] == ["two", "one"]
    assert json.loads(ok("show", "two", "--json"))["status"] == "pending"
    ok("pause", "two")
    assert "workflow.suspended" in ok("events", "two", "-n", "1")
    ok("cleanup", "one")
    found = paddock("doctor", "--json", PADDOCK_DB=postgres_url)
    assert "1 paused" in str(json.loads(found.stdout)["findings"])
    wrong = f"postgresql://keeper:{SECRET}@127.0.0.1:1/x"
    found = paddock("list", PADDOCK_DB=wrong)
    assert (found.returncode, found.stdout) == (2, "")
    assert "postgresql://keeper@127.0.0.1:1/x cannot be used now" in found.stderr
    assert "pa55" not in found.stderr
