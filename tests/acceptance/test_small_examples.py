"""The small examples: each as the program that a user would start, and those that sleep for long again with a clock that jumps."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from flowkit import ended, suspended

import paddock.testing
from paddock.examples import approval, mailing, streaming, transcription, welcome


def example(name, *arguments, typed=""):
    command = [sys.executable, "-P", "-m", f"paddock.examples.{name}", *arguments]
    found = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=100, check=False)
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    return found.stdout


# --- as programs ---


@pytest.mark.slow
def test_three_styles_lend_the_same_books():
    out = example("three_styles").splitlines()
    assert [line.split()[0] for line in out[::2]] == ["graph", "graph", "flow", "flow", "states", "states"]
    for precious, plain in ((0, 2), (4, 6), (8, 10)):
        assert out[precious].endswith("First Folio  handed out: True, permitted by Bob")
        assert out[plain].endswith("Atlas        handed out: True, permitted by None")
    assert all("2 tries" in line for line in out[1::2])
    assert out[5].endswith("journal: find, permission, lend")


@pytest.mark.slow
def test_the_counter_streams_and_the_joke_comes_later():
    out = example("streaming", "--count", "2", "--delay", "300ms")
    assert out.startswith("chunk 0\nchunk 1\ncounted to 2\nread again: [0, 1]\n")
    assert out.endswith("a banana? Because nobody else would.\n")


@pytest.mark.slow
def test_a_human_is_asked_while_no_server_runs():
    out = example("approval", "--what", "a bell", typed="perhaps\nyes\n")
    assert "its process has gone" in out
    assert "refused: signal 'approval' does not fit Verdict: approved" in out
    assert out.endswith("a bell for 120: booked, approved by you\n")


@pytest.mark.slow
def test_a_flow_waits_for_others():
    first, *rest = example("waiting_for").splitlines()
    assert json.loads(first) == {"printer": "Aldus", "price": 25.0}
    assert rest[0].startswith("  Aldus        completed")
    assert rest[1] == "  Closed Press failed    null"
    assert rest[3] == "  no offer: Closed Press"


@pytest.mark.slow
def test_a_user_is_welcomed_after_a_wait():
    *told, result = example("welcome", "--wait", "100ms").splitlines()
    assert json.loads(result) == {"profile": "profile-user-123", "delivery": "delivery send-mail"}
    assert [line for line in told if line.startswith("  ")] == [
        "  profile of user-123 created",
        "  mail to ada@example.org: Welcome, ada!",
    ]


@pytest.mark.slow
def test_a_recording_is_transcribed_and_indexed_later():
    out = example("transcription", "--sleep", "100ms", "--text", "sos")
    assert "other: sleeping at 'a month', done: transcribe\nother: cancelled in its sleep: True\n" in out
    assert json.loads(out.splitlines()[2])["text"] == "SOS"
    assert out.endswith("0 left\n")


def test_the_game_is_saved_and_goes_on():
    out = example("guess_game", typed="\nfifty\n")
    assert "----- saved" in out
    assert "A number from 0 to 100, please." in out
    saved = json.loads(Path("guess-game.json").read_text())
    answer = saved["data"]["answer"]
    other = 50 if answer != 50 else 51
    out = example("guess_game", typed=f"{other}\n\n")
    assert "----- saved" in out
    out = example("guess_game", typed=f"{answer}\n")
    assert out.endswith(f"{answer} it is! You needed 2 guesses: [{other}, {answer}]\n")
    assert not Path("guess-game.json").exists()


@pytest.mark.slow
def test_many_users_are_written_to_side_by_side():
    out = example("mailing", "--users", "3", "--pause", "0.2").splitlines()
    mails = "welcome (welcome/send), promotion 1 (promote/send), promotion 2 (promote#2/send)"
    assert out[-3:] == [f"user{number}@example.org: {mails}" for number in range(3)]
    for number in range(3):
        assert out.count(f"  user-{number}   mail to user{number}@example.org: promotion 2") == 1


@pytest.mark.slow
def test_a_contract_is_changed_from_outside():
    out = example("interval_payment").splitlines()
    assert out[0] == "refused: the update does not fit Contract: price: Input should be greater than 0"
    charged = json.loads(out[1])
    assert charged == sorted(charged)
    assert set(charged) == {10, 12}
    assert out[-1] == f"  over {{'payments': {len(charged)}}}"


# --- with a clock that jumps over months ---


async def run(definition, input, *, id=None):
    async with paddock.testing.server(register=[definition]) as server:
        return await ended(server, await server.workflows.start(definition, input, id=id))


async def test_a_joke_waits_for_its_hour():
    async with paddock.testing.server(register=[streaming.joke]) as server:
        ident = await server.workflows.start(streaming.joke, "banana", delay="1h")
        instance = await ended(server, ident)
    assert instance.output.endswith("a banana? Because nobody else would.")
    assert instance.started_at - instance.created_at >= timedelta(hours=1)


async def test_the_counter_sends_each_chunk_once_whatever_crashes():
    report = await paddock.testing.crash_everywhere(streaming.counter, 3)
    assert report, report.differences
    assert report.outcome == "counted to 3"


async def test_nobody_cares_for_a_week():
    async with paddock.testing.server(register=[approval.expense_flow]) as server:
        ident = await server.workflows.start(approval.expense_flow, {"what": "a bell", "amount": 3})
        await suspended(server, ident, "waiting")
        server.clock.advance("7d")
        assert (await ended(server, ident)).output == "a bell: nobody cared for a week"


async def test_five_minutes_pass_before_the_mail():
    user = {"email": "ada@example.org", "user_id": "u-1"}
    instance = await run(welcome.welcome, user)
    assert (instance.status, instance.output["waited"] >= 300) == ("completed", True), instance.error
    assert instance.executions >= 2
    assert {step.step_name: step.attempts for step in instance.step_results.values() if step.kind != "now"} == {
        "create-profile": 1,
        "write welcome message": 1,
        "wait before welcome mail": 1,
        "send-mail": 1,
    }


async def test_a_month_passes_before_the_index(tmp_path):
    path = str(tmp_path / "recording.wav")
    transcription.record(path, "the quick brown fox jumps over a lazy dog")
    instance = await run(transcription.transcription, {"path": path})
    assert instance.output["text"] == "THE QUICK BROWN FOX JUMPS OVER A LAZY DOG"
    assert instance.completed_at - instance.started_at >= timedelta(days=30)
    assert instance.executions == 2


async def test_a_campaign_of_weeks():
    week = timedelta(weeks=1).total_seconds()
    instance = await run(mailing.Mailing, {"email": "a@b", "pauses": [week, 2 * week, week]})
    assert len(instance.output["sent"]) == 4
    assert instance.completed_at - instance.started_at >= timedelta(weeks=4)
    assert instance.executions == 4
