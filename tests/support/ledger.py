"""An external ledger: what handlers really did, whatever the store says.

Each handler appends a line when it begins and one when it ends (O_APPEND, so lines of many processes do not mix). A line of a
beginning also says which other executors were alive at that moment, by /proc: of the same instance, and of the same workflow. The
checker compares all this with the store's events.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATH = "PADDOCK_TEST_LEDGER"
ENDS = frozenset({"workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.timed_out"})


def write(what: str, **facts: Any) -> None:
    """Append one line."""
    data = json.dumps({"what": what, "pid": os.getpid(), **facts}).encode() + b"\n"
    descriptor = os.open(os.environ[PATH], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def read(what: str | None = None, **facts: Any) -> list[dict[str, Any]]:
    """Return the lines with these facts, in their order."""
    try:
        text = Path(os.environ[PATH]).read_text()
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if what is not None:
        facts["what"] = what
    return [line for line in lines if all(line.get(key) == value for key, value in facts.items())]


@contextlib.contextmanager
def noted(ctx: Any, **facts: Any) -> Iterator[None]:
    """Note the beginning and the end of a handler."""
    instance, _, key = ctx.idempotency_key.partition(":")
    who = {"instance": instance, "key": key, "attempt": ctx.attempt, **facts}
    others = {line["pid"]: line for line in read("begin") if line["pid"] != os.getpid()}
    alive = [line for line in others.values() if starts(line["pid"]) == line["start"]]
    twins = [line["pid"] for line in alive if line["instance"] == instance]
    beside = [line["pid"] for line in alive if line["instance"] != instance]
    write("begin", start=starts(os.getpid()), twins=twins, beside=beside, **who)
    yield
    write("end", **who)


def starts(pid: int) -> int | None:
    """Return a living process's start time; a zombie is dead, once its last thread is."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZXx" and int(fields[17]) <= 1 else int(fields[19])


def check(events: list[Any], ended: str = "workflow.completed") -> None:
    """Hold the ledger and all events of one instance against each other."""
    instance = events[0].instance_id
    names = [event.name for event in events]
    assert [name for name in names if name in ENDS] == [ended], names
    begun: set[tuple[str, int]] = set()
    done: set[str] = set()
    for event in events:
        step = event.data.get("step")
        if event.name == "workflow.step.started":
            assert step not in done, f"{step} began again after it was acknowledged"
            begun.add((step, event.data["attempt"]))
        elif event.name == "workflow.step.completed":
            assert step not in done, f"{step} was acknowledged twice"
            done.add(step)
    last: dict[str, int] = {}
    gone: list[int] = []
    for line in read(instance=instance):
        pid, key = line["pid"], line["key"]
        assert pid not in gone[:-1], f"pid {pid} went on after another executor had begun: {gone}"
        if pid not in gone:
            gone.append(pid)
        if line["what"] == "begin":
            assert not line["twins"], f"two executors of {instance}: {line}"
            if line.get("uncounted"):
                continue  # a poll's check: in flight at a crash, it is made again under the same number
            assert (key, line["attempt"]) in begun, f"{line} has no event"
            assert line["attempt"] > last.get(key, 0), f"{key}: attempt {line['attempt']} ran twice"
            last[key] = line["attempt"]
