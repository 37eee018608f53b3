"""Events and logs as subscribers see them: patterns, order, cursors, handlers that are slow or raise, pages."""

import asyncio
from datetime import UTC

import pytest
from contractkit import became, past, until

from paddock import AppServer, ConfigError, Event, LogRecord

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _ended(server: AppServer, flow: str = "slim", given=None) -> str:
    ident = await server.workflows.start(flow, given)
    await server.workflows.wait(ident, timeout=30)
    return ident


# --- handlers ---------------------------------------------------------------------------------------------------------


@pytest.mark.modes("inline", "fork", "tcp")
async def test_handlers_sync_and_async_see_every_event_in_order(server: AppServer):
    plain: list[Event] = []
    slow: list[Event] = []

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        slow.append(event)

    ends = [server.events.on("*", plain.append), server.events.on("*", later)]
    idents = {await _ended(server), await _ended(server, "context", 1)}
    told = [e for e in await server.events.history(limit=100_000) if e.instance_id in idents]
    await became(lambda: {e.id for e in told} <= {e.id for e in plain} and {e.id for e in told} <= {e.id for e in slow})
    for end in ends:
        end()
    for seen in (plain, slow):
        assert [e.id for e in seen] == sorted({e.id for e in seen})
        assert [e for e in seen if e.instance_id in idents] == told


async def test_unsubscribe_ends_it_and_may_be_called_again(server: AppServer):
    seen: list[str] = []

    async def note(event: Event) -> None:
        seen.append(event.name)

    ends = [server.events.on("*", lambda e: seen.append(e.name)), server.events.on("*", note)]
    for end in ends:
        end()
        end()
    ident = await _ended(server)
    await until(server, "workflow.completed", ident)
    assert seen == []


async def test_the_same_handler_twice_is_two_subscriptions(server: AppServer):
    seen: list[str] = []

    def note(event: Event) -> None:
        seen.append(event.name)

    first, second = server.events.on("workflow.completed", note), server.events.on("workflow.completed", note)
    await _ended(server)
    await became(lambda: len(seen) == 2)
    first()
    await _ended(server)
    await became(lambda: len(seen) == 3)
    second()


async def test_a_handler_that_raises_stops_nobody_else(server: AppServer, capsys):
    seen: list[str] = []

    def bad(event: Event) -> None:
        raise RuntimeError("sync trouble")

    async def worse(event: Event) -> None:
        raise RuntimeError("async trouble")

    def lazy(event: Event):
        async def inner():
            raise RuntimeError("lazy trouble")

        return inner()

    patterns = [server.events.on("workflow.*", h) for h in (bad, worse, lazy, lambda e: seen.append(e.name))]
    await _ended(server)
    await became(lambda: "workflow.completed" in seen)
    ident = await _ended(server)
    await became(lambda: seen.count("workflow.completed") == 2)
    for end in patterns:
        end()
    assert (await server.workflows.get_instance(ident)).status == "completed"
    said = capsys.readouterr()
    assert all(word in said.out + said.err for word in ("sync trouble", "async trouble", "lazy trouble"))


async def test_a_slow_handler_holds_up_nobody_and_misses_nothing(server: AppServer):
    release = asyncio.Event()
    late: list[int] = []

    async def slow(event: Event) -> None:
        await release.wait()
        late.append(event.id)

    end = server.events.on("workflow.*", slow)
    cursor = (await server.events.history(limit=100_000))[-1].id
    idents = [await _ended(server, "context", n) for n in range(12)]  # far more events than any queue holds
    told = [e.id for e in await server.events.history("workflow.*", after=cursor, limit=100_000)]
    assert len(told) > 150
    assert len(idents) == 12
    release.set()
    await became(lambda: len(late) >= len(told))
    end()
    assert late == told


async def test_handlers_are_held_strongly(server: AppServer):
    import gc

    seen: list[int] = []

    class Owner:
        def handle(self, event: Event) -> None:
            seen.append(event.id)

        async def handle_later(self, event: Event) -> None:
            seen.append(event.id)

    ends = [
        server.events.on("workflow.completed", Owner().handle),
        server.events.on("workflow.completed", Owner().handle_later),
    ]
    gc.collect()
    await _ended(server)
    await became(lambda: len(seen) == 2)
    for end in ends:
        end()


async def test_what_cannot_be_subscribed_to_is_refused(server: AppServer):
    for pattern in (None, 7, ""):
        with pytest.raises(ConfigError, match="pattern"):
            server.events.on(pattern, print)
        with pytest.raises(ConfigError, match="pattern"):
            server.events.subscribe(pattern)
        with pytest.raises(ConfigError, match="pattern"):
            await server.events.history(pattern)
    with pytest.raises(ConfigError, match="function"):
        server.events.on("*", None)


# --- patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("workflow.completed", {"workflow.completed"}),
        ("workflow.step.*", {"workflow.step.started", "workflow.step.completed"}),
        ("*.completed", {"workflow.completed", "workflow.step.completed"}),  # a star matches dots
        ("workflow.c*d", {"workflow.completed"}),
        ("workflow.?tarted", {"workflow.started"}),
        ("workflow.[!s]*event", {"workflow.context.event"}),
        ("WORKFLOW.*", set()),
        ("workflow", set()),
    ],
)
async def test_patterns_are_fnmatch(server: AppServer, pattern: str, expected: set[str]):
    seen: set[str] = set()
    end = server.events.on(pattern, lambda e: seen.add(e.name))
    ident = await _ended(server, "context", 1)
    found = {e.name for e in await past(server, ident, pattern)} - {f"workflow.{ident}.event"}
    await until(server, "workflow.completed", ident)
    end()
    assert found == expected
    assert seen - {f"workflow.{ident}.event"} == expected


# --- subscribe --------------------------------------------------------------------------------------------------------


async def test_a_subscription_begins_when_it_is_made(server: AppServer):
    subscription = server.events.subscribe("workflow.*")
    ident = await _ended(server)
    first = await asyncio.wait_for(anext(subscription), 30)
    assert (first.name, first.instance_id) == ("workflow.started", ident)
    await subscription.aclose()
    rest = [e.name async for e in subscription]
    assert rest[-1:] in ([], ["workflow.completed"])


async def test_taking_the_next_event_can_time_out_and_go_on(server: AppServer):
    subscription = server.events.subscribe("workflow.*")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(subscription), 0.02)
    ident = await _ended(server)
    async with asyncio.timeout(30):
        names = []
        async for event in subscription:
            names.append(event.name)
            if event.name == "workflow.completed":
                break
    assert event.instance_id == ident
    assert names[0] == "workflow.started"


@pytest.mark.modes("inline", "fork", "tcp")
async def test_a_subscriber_that_comes_back_misses_none_and_sees_none_twice(server: AppServer):
    idents = [await server.workflows.start("context", n) for n in range(4)]
    seen: list[int] = []
    cursor = (await past(server, idents[0], "*"))[0].id - 1 if await past(server, idents[0], "*") else 0
    cursor = 0
    ended: set[str] = set()
    while len(ended) < 4:  # each round reads a few and goes away
        count = 0
        async with asyncio.timeout(30):
            async for event in server.events.subscribe("*", after=cursor):
                assert event.id > cursor
                cursor = event.id
                seen.append(event.id)
                if event.name == "workflow.completed" and event.instance_id in idents:
                    ended.add(event.instance_id)
                count += 1
                if count == 7 or len(ended) == 4:
                    break
    kept = [e.id for e in await server.events.history(limit=100_000) if e.id <= cursor]
    assert seen == kept


async def test_a_subscription_to_one_instance_may_be_made_before_it_starts(server: AppServer):
    live = server.events.subscribe(instance_id="to-come")
    old = server.events.subscribe(instance_id="to-come", after=0)
    taker = asyncio.create_task(anext(old))
    await asyncio.sleep(0)
    await server.workflows.start("slim", id="to-come")
    await server.workflows.wait("to-come", timeout=30)
    assert (await asyncio.wait_for(taker, 30)).name == "workflow.started"
    assert (await asyncio.wait_for(anext(live), 30)).instance_id == "to-come"
    other = await _ended(server)
    assert {e.instance_id for e in await past(server, "to-come", "*")} == {"to-come"} != {other}


# --- history and ids --------------------------------------------------------------------------------------------------


async def test_history_in_pages(server: AppServer):
    ident = await _ended(server, "context", 1)
    whole = await past(server, ident, "*")
    assert len(whole) > 10
    pages: list[Event] = []
    after = 0
    while page := await server.events.history("*", instance_id=ident, after=after, limit=3):
        assert len(page) <= 3
        pages += page
        after = page[-1].id
    assert pages == whole
    assert [e.id for e in whole] == sorted({e.id for e in whole})
    assert await server.events.history("workflow.completed", instance_id=ident, after=whole[-1].id) == []
    assert len(await server.events.history()) == 100


async def test_a_page_of_what_is_rare_looks_as_far_as_it_must(server: AppServer):
    ident = await _ended(server, "failing", 1)
    for _ in range(5):
        await _ended(server, "context", 1)
    found = await server.events.history("workflow.fail*", after=0, limit=1000)
    assert ident in {e.instance_id for e in found}
    assert {e.name for e in found} == {"workflow.failed"}


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.modes("inline", "fork", "tcp")
async def test_logs_are_events_too(server: AppServer):
    ident = await _ended(server, "speak")
    told = list(await past(server, ident, "log.*"))
    assert [e.name for e in told] == ["log.workflow", f"log.workflow.{ident}"] * 5
    assert told[0].data == {
        "instance_id": ident,
        "workflow_name": "speak",
        "level": "debug",
        "message": "one",
        "data": {},
        "step_name": "speak",
        "attempt": 1,
        "source": "handler",
    }
    assert told[1].data == told[0].data
    assert told[0].created_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (None, ["one", "two", "three", "four", "five"]),
        ("debug", ["one", "two", "three", "four", "five"]),
        ("info", ["two", "three", "four", "five"]),
        ("warning", ["three", "four", "five"]),
        ("error", ["four", "five"]),
        ("critical", ["five"]),
    ],
)
async def test_level_is_the_lowest_wanted(server: AppServer, level, expected):
    ident = await _ended(server, "speak")
    found = await server.logs.query(instance_id=ident, level=level)
    assert [r.message for r in found] == expected


async def test_logs_in_pages_and_over_all_instances(server: AppServer):
    idents = [await _ended(server, "speak") for _ in range(2)]
    pages: list[LogRecord] = []
    after = 0
    while page := await server.logs.query(after=after, limit=2, level="info"):
        assert len(page) <= 2
        pages += page
        after = page[-1].id
    assert [r.id for r in pages] == sorted({r.id for r in pages})
    assert [r.message for r in pages if r.instance_id in idents] == ["two", "three", "four", "five"] * 2
    with pytest.raises(ValueError, match="frozen"):
        pages[0].message = "x"
