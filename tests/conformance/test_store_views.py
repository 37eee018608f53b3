"""What people see of a store: every look, on every store, against the same look at the one in memory."""

import contextlib
from typing import Any

import pytest
from storekit import NOW, began, claimed, crash, ended, new, step

from paddock import ErrorInfo, InstanceNotFound, InvalidInput, Status
from paddock.runtime.store import browse, overview
from paddock.runtime.store.admission import Death, held
from paddock.runtime.store.browse import Filter
from paddock.runtime.store.journal import read
from paddock.runtime.store.ops import (
    ChildStarted,
    Emitted,
    Ended,
    Logged,
    MetadataSet,
    StepBegun,
    StepCompleted,
    StepCounted,
    StepRetrying,
    StepWaiting,
    Suspended,
)
from paddock.runtime.store.sqlite import MemoryStore
from paddock.stores import Window

_BOOM = ErrorInfo(type="ValueError", message="it went 100% wrong_", step="s")


def logged(level: int, name: str) -> Logged:
    return Logged(level, name, f"a {name} line", {"n": 1}, "s", 1, "handler", NOW)


async def filled(store: Any) -> None:
    """Give a store something of everything."""
    await ended(store, "done")
    lease = await claimed(store, "parent", "Tree", metadata=(("kunde", '"Ærø"'),))
    await store.commit(
        lease,
        [
            *step("s", '{"a": 1}'),
            ChildStarted("child", "wf", "7", "call", limit_key="k", metadata=(("m", "1"),)),
            StepWaiting("call", "call", "child", None, child_id="child"),
            StepWaiting("ask", "ask", "wait_event", NOW + 9, "answer", '{"type":"integer"}'),
            StepCompleted("st", "st", "state", '{"data":1,"next":"b"}', begin=True),
            StepCompleted("up", "up", "update", '[{"x":1}]', begin=True, quiet=True),
            MetadataSet("note", '"100%_sure"'),
            Emitted("workflow.event", {"event": "x"}, ("workflow.Tree.event",)),
            *(Emitted("workflow.stream", {"index": n, "chunk": n, "step": "s"}) for n in range(3)),
            logged(20, "info"),
            logged(40, "error"),
            Suspended(Status.WAITING, NOW + 9),
        ],
        NOW,
    )
    await crash(store, lease)
    await store.put_signal("parent", "update", '{"y":2}', NOW)
    lease = await claimed(store, "busy", "wf2", begin=False, priority=3)
    await store.commit(lease, [began(), StepBegun("s", "s", "task", 1, "1", NOW + 3)], NOW)
    await store.commit(lease, [StepRetrying("s", "s", "task", 1, 1, 3, _BOOM, 2.0, NOW + 2)], NOW)
    await store.commit(lease, [StepCounted("p", "p", "poll", 2, 0, NOW + 1)], NOW)
    verdict = ("workflow.watchdog.killed", {"pid": 1, "reason": "silent"})
    failed = await claimed(store, "failed", "Wf")
    await store.commit(failed, [StepBegun("s", "s", "task", 1)], NOW)
    await store.settle(failed, Death(error=_BOOM, verdicts=(verdict,)), 0, NOW)
    for n in range(4):
        await store.create(new(f"q{n}", "queue", priority=n % 2, limit_key="k" if n else None), NOW + n)
    await store.create(new("later", "queue", wake_at=NOW + 99), NOW)
    lease = await claimed(store, "cut", "other")
    await store.commit(lease, [Ended(Status.FAILED, error=_BOOM)], NOW)


def _held(tx: Any) -> list[Any]:
    return sorted(held(tx), key=lambda lease: lease.id)


_LOOKS: list[tuple[Any, ...]] = [
    (browse.current, NOW - 1, 12, 50),
    *((browse.instances_page, wanted, 3) for wanted in (
        Filter(), Filter(names=["queue", "Tree"]), Filter(statuses=["pending"]), Filter(parent_id="parent"), Filter(names=["none"]),
        Filter(text="PAR"), Filter(text="100%_"), Filter(text="ærø"), Filter(text="a"), Filter(text="WRONG_"),
    )),
    (browse.instances_page, Filter(), 3, 6), (browse.instances_page, Filter(), 3, None, 2),
    *((browse.instance, ident) for ident in ("done", "parent", "busy", "failed", "q0", "q1", "later")),
    *((look, seq) for seq in (1, 2, 3, 99) for look in (browse.steps, browse.metadata, read)),
    (browse.step_events, 2, 100), (browse.step_events, 2, 3), (browse.children, "parent", 9), (browse.signals, 2, 9),
    *((browse.payload, "done", kind, key) for kind in ("input", "output") for key in (None, "only", "none")),
    (browse.machine_data, 2, "update"), (browse.machine_data, 1, "update"),
    (browse.kills, 9), (browse.kills, 9, 5), (browse.kills, 9, None, "failed"), (browse.kills, 9, None, "done"),
    (browse.counts,), (browse.names_of, ["done", "child", "none"]), (browse.names_of, []), (browse.reachable,), (browse.queues,),
    (browse.marks, 0, ["workflow.started", "workflow.failed"], 99), (browse.marks, 0, [], 9),
    *((overview.standing, ident) for ident in ("done", "busy", "failed")),
    (overview.counts,), (overview.open_waits, "parent"), (overview.open_waits, "done"), (overview.workflow_names,),
    (overview.ids_like, "", 3), (overview.ids_like, "q", 3), (overview.ids_like, "Q", 3), (overview.is_id, "q1"), (overview.is_id, "x"),
    (overview.kills, 9), (_held,),
]  # fmt: skip
_NAMED = [
    *((overview.cursor_before, 3, {"pattern": pattern, "instance_id": ident})
      for pattern in (None, "*", "workflow.step.*", "workflow.started", "[w]*d") for ident in (None, "parent")),
    *((overview.log_cursor_before, 1, {"level": level, "instance_id": ident}) for level in ("info", "error") for ident in (None, "parent")),
]  # fmt: skip


async def test_every_look_sees_the_same_on_every_store(store):
    memory = MemoryStore()
    try:
        for each in (memory, store):
            await filled(each)
        for look, *values in _LOOKS:
            named = values.pop() if values and isinstance(values[-1], dict) else {}
            assert await store.view(look, *values, **named) == await memory.view(look, *values, **named), (look, values)
        for look, count, named in _NAMED:
            assert await store.view(look, count, **named) == await memory.view(look, count, **named), (look, named)
        for options in (
            {},
            {"pattern": "workflow.step.*"},
            {"pattern": "WORKFLOW.*"},
            {"pattern": "*.stream", "instance_id": "parent"},
        ):
            assert await store.events(Window(0, 99), **options) == await memory.events(Window(0, 99), **options)
        for options in ({}, {"level": "error"}, {"instance_id": "parent", "level": "info"}):
            assert await store.logs(Window(0, 99), **options) == await memory.logs(Window(0, 99), **options)
        assert await store.view(browse.database_size) > 0
    finally:
        memory.close()


@pytest.mark.parametrize("look", [browse.instance, overview.standing, browse.payload])
async def test_a_look_at_what_is_not_there_says_so(store, look):
    with pytest.raises(InstanceNotFound, match="nobody"):
        await store.view(look, "nobody", *(["input"] if look is browse.payload else []))
    assert await store.view(browse.counts) == []  # and the next look is as good as any


async def test_a_name_with_a_nul_is_kept_or_refused_and_harms_nothing(store):
    lease = await claimed(store)
    with contextlib.suppress(InvalidInput):  # PostgreSQL's texts hold none
        await store.commit(lease, [MetadataSet("a\0b", "1")], NOW)
        assert (await store.get("a")).metadata == {"a\0b": 1}
    await store.commit(lease, step("s"), NOW)
    assert (await store.get("a")).step_results.keys() == {"s"}


async def test_what_is_looked_at_first(store):
    """Whatever else is queued or asleep: what begins again, each once, and what has ended badly and was not forked since."""
    leases = {name: await claimed(store, name, name) for name in ("crashed", "tried", "cut", "late", "old")}
    for n in range(600):
        await store.create(new(f"queued-{n}", "queue"), NOW)
    sleeper = await claimed(store, "asleep", "asleep")
    await store.commit(sleeper, [StepWaiting("z", "z", "sleep", NOW + 1), Suspended(Status.SLEEPING, NOW + 1)], NOW)
    for key, at in (("a", 9), ("b", 5), ("c", 5)):
        begun, failed = StepBegun(key, key, "task", 1), StepRetrying(key, key, "task", 1, 1, 3, _BOOM, at, NOW + at)
        await store.commit(leases["tried"], [begun, failed], NOW)
    await store.commit(leases["tried"], [Suspended(Status.SLEEPING, NOW + 5)], NOW)
    for lease in (sleeper, leases["tried"]):
        await store.settle(lease, Death(), 3, NOW)
    await crash(store, leases["crashed"])
    for n, (name, status) in enumerate((("old", Status.FAILED), ("cut", Status.TIMED_OUT), ("late", Status.FAILED))):
        await store.commit(leases[name], [Ended(status, error=_BOOM)], NOW + n)
        await store.settle(leases[name], Death(), 3, NOW + n)

    async def seen(few: int = 9, many: int = 9) -> tuple[list[str], list[str], list[str]]:
        found = await store.view(browse.current, NOW, few, many)
        return tuple([row["id"] for row in rows] for rows in (found.running, found.again, found.broken))

    assert await seen() == ([], ["crashed", "tried"], ["late", "cut"])
    assert await seen(1, 1) == ([], ["crashed"], ["late"])
    assert await store.fork("cut", "cut-again", None, None, NOW) == "cut"
    assert (await seen())[2] == ["late"]
    await store.fork("late", "late-again", None, None, NOW)
    assert (await seen())[2] == []
    await store.end("late-again", Status.CANCELLED, NOW)
    await store.remove("late-again")
    assert (await seen())[2] == ["late"]
