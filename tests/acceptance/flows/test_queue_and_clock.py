"""Who runs when: delays, priorities, limits per key, rates, schedules, thousands that sleep, a long queue."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from contractkit import DEADLINE
from flowflows import ticks
from flowkit import ended, suspended

import paddock.testing
from paddock import AppServer, ConfigError, InvalidInput, WorkflowNotFound, WorkflowsConfig, flow


class Gauge:
    """A flow whose instances hold on until they are let go, and which knows how many run, and in which order they began."""

    def __init__(self, name="gauged"):
        self.order, self.running, self.most, self.gate = [], {}, {}, asyncio.Event()

        async def hold(item):
            key = item["key"]
            self.order.append(item["n"])
            self.running[key] = self.running.get(key, 0) + 1
            self.most[key] = max(self.most.get(key, 0), self.running[key])
            await self.gate.wait()
            self.running[key] -= 1

        @flow(name)
        async def gauged(item, ctx):
            await ctx.step("hold", hold, item)
            return item["n"]

        self.flow = gauged

    async def began(self, count):
        async with asyncio.timeout(DEADLINE):
            while len(self.order) < count:
                await asyncio.sleep(0.001)


async def test_a_delayed_start_is_pending_with_its_time_and_runs_then():
    @flow("late")
    async def late(ctx):
        return (ctx.now() - ctx.instance.created_at).total_seconds()

    @flow("waits")
    async def waits(ctx):
        await ctx.step("hold", asyncio.Event().wait)

    async with paddock.testing.server(register=[late, waits]) as server:
        holder = await server.workflows.start(waits)  # as long as something runs, the clock does not jump
        await server.workflows.start(late, id="later", delay=timedelta(days=3))
        instance = await server.workflows.get_instance("later")
        assert instance.status == "pending"
        assert instance.wake_at - instance.created_at == pytest.approx(timedelta(days=3), abs=timedelta(seconds=1))
        await server.workflows.cancel(holder)
        instance = await ended(server, "later")
    assert instance.output == pytest.approx(3 * 86400, abs=DEADLINE)


async def test_priorities_then_first_in_first_out():
    gauge = Gauge()
    async with paddock.testing.server() as server:
        server.workflows.register(gauge.flow, max_concurrent=1)
        first = await server.workflows.start(gauge.flow, {"key": "", "n": 0})
        await gauge.began(1)
        rest = [
            await server.workflows.start(gauge.flow, {"key": "", "n": n}, priority=priority)
            for n, priority in ((1, -1), (2, 0), (3, 0), (4, 9), (5, 0), (6, 5))
        ]
        gauge.gate.set()
        for ident in (first, *rest):
            await ended(server, ident)
    assert gauge.order == [0, 4, 6, 2, 3, 5, 1]
    assert gauge.most == {"": 1}


async def test_who_wakes_comes_before_younger_ones():
    order = []

    @flow("sleepy")
    async def sleepy(n, ctx):
        order.append((n, "begins"))
        if n == 0:
            await ctx.wait_event("wake")
        await ctx.step("work", gates[n].wait)
        order.append((n, "ends"))

    gates = [asyncio.Event() for _ in range(4)]
    async with paddock.testing.server() as server:
        server.workflows.register(sleepy, max_concurrent=1)
        ids = [await server.workflows.start(sleepy, 0)]
        await suspended(server, ids[0], "waiting")
        ids += [await server.workflows.start(sleepy, n) for n in (1, 2, 3)]
        await server.workflows.signal(ids[0], "wake")
        for gate in gates:
            gate.set()
        for ident in ids:
            await ended(server, ident)
    begun = [n for n, what in order if what == "begins"]
    assert begun == [0, 1, 0, 2, 3] or begun == [0, 0, 1, 2, 3]


async def test_a_limit_counts_for_each_key():
    gauge = Gauge()
    async with paddock.testing.server() as server:
        server.workflows.register(gauge.flow, max_concurrent=2, key=lambda item: item["key"])
        ids = [await server.workflows.start(gauge.flow, {"key": "abc"[n % 3], "n": n}) for n in range(12)]
        await gauge.began(6)
        assert sorted(gauge.order) == [0, 1, 2, 3, 4, 5]
        gauge.gate.set()
        for ident in ids:
            await ended(server, ident)
    assert gauge.most == {"a": 2, "b": 2, "c": 2}


async def test_children_and_forks_count_for_their_key_too():
    gauge = Gauge("keyed-child")

    @flow("many-children")
    async def many(ctx):
        handles = [await ctx.start("keyed-child", {"key": "ab"[n % 2], "n": n}) for n in range(6)]
        return await ctx.wait_for(handles)

    async with paddock.testing.server() as server:
        server.workflows.register(gauge.flow, max_concurrent=1, key=lambda item: item["key"])
        server.workflows.register(many)
        ident = await server.workflows.start(many)
        await gauge.began(2)
        gauge.gate.set()
        instance = await ended(server, ident)
        first = (await server.workflows.get_instances("keyed-child"))[0]
        gauge.gate.clear()
        gauge.most.clear()
        forks = [await server.workflows.fork(first.id, input={"key": "z", "n": 9}) for _ in range(2)]
        forks.append(await server.workflows.fork(first.id))
        await gauge.began(8)
        gauge.gate.set()
        for fork in forks:
            await ended(server, fork)
    assert instance.output == list(range(6)), instance.error
    assert gauge.most == {"z": 1, first.input["key"]: 1}


async def test_a_rate_is_a_number_of_starts_in_a_time():
    @flow("rated")
    async def rated(n, ctx):
        await ctx.sleep("a wake-up is no start", "2s")
        return n

    async with paddock.testing.server() as server:
        server.workflows.register(rated, rate="3/1h")
        ids = [await server.workflows.start(rated, n) for n in range(7)]
        async with asyncio.timeout(DEADLINE):
            for ident in ids:  # the clock jumps by itself, to where somebody may start
                await server.workflows.wait(ident)
        starts = [(await server.workflows.get_instance(ident)).started_at for ident in ids]
    assert starts == sorted(starts)
    for first, fourth in zip(starts, starts[3:], strict=False):
        assert fourth - first >= timedelta(minutes=59)


async def test_two_thousand_sleepers_wake_rightly():
    @flow("dreamer")
    async def dreamer(n, ctx):
        await ctx.sleep("dream", f"{n % 5 + 1}h")
        return n

    @flow("keeps-awake")
    async def keeps_awake(ctx):
        await ctx.step("hold", gate.wait)

    gate = asyncio.Event()
    count = 2000
    async with paddock.testing.server(register=[dreamer, keeps_awake]) as server:
        holder = await server.workflows.start(keeps_awake)  # so that the clock stands until all of them sleep
        ids = [await server.workflows.start(dreamer, n) for n in range(count)]
        async with asyncio.timeout(60):
            seen = 0
            async for event in server.events.subscribe("workflow.suspended", after=0):
                seen += event.data["reason"] == "sleeping"
                if seen == count:
                    break
        running = await server.workflows.get_all_instances("running", limit=1000)
        assert [one.id for one in running] == [holder]
        gate.set()
        for ident in ids:
            instance = await server.workflows.wait(ident, timeout=60)
            assert instance.output == int(instance.input)
            slept = instance.completed_at - instance.started_at
            assert slept >= timedelta(hours=instance.input % 5 + 1) - timedelta(seconds=1)
            assert instance.executions == 2


async def test_a_queue_of_a_thousand_runs_in_order_at_its_limit():
    order, running, most = [], [0], [0]

    async def work(n):
        running[0] += 1
        most[0] = max(most[0], running[0])
        order.append(n)
        await asyncio.sleep(0)
        running[0] -= 1

    @flow("queued")
    async def queued(n, ctx):
        await ctx.step("work", work, n)

    async with paddock.testing.server() as server:
        server.workflows.register(queued, max_concurrent=4)
        ids = [await server.workflows.start(queued, n) for n in range(1000)]
        for ident in ids:
            assert (await server.workflows.wait(ident, timeout=60)).status == "completed"
        instances = await server.workflows.get_instances("queued", limit=1000)
    assert sorted(order) == list(range(1000))
    assert most[0] <= 4
    assert max(abs(place - n) for place, n in enumerate(order)) < 4, "at a limit of four nobody overtakes by more"
    starts = [one.started_at for one in instances]
    assert [one.input for one in instances] == list(range(1000))
    assert sum(b < a for a, b in zip(starts, starts[1:], strict=False)) < 100


# --- schedules ---


def evening(server):
    """Go to six in the evening, UTC: the cron times of these tests are hours away, whatever the time and however slow the machine."""
    now = datetime.fromtimestamp(server.clock.now(), UTC)
    server.clock.advance((now.replace(hour=18, minute=0, second=0) - now) % timedelta(days=1))


async def test_every_and_cron_and_their_ids_and_inputs():
    async with paddock.testing.server(register=[ticks]) as server:
        evening(server)
        every = await server.workflows.schedule(ticks, every="6h", input=1, catch_up="all")
        nightly = await server.workflows.schedule("ticks", cron="30 2 * * *", input=2, id="nightly", catch_up="all")
        assert (every, nightly) == ("ticks", "nightly")
        begin = server.clock.now()
        server.clock.advance("48h1s")
        instances = await everything(server, 10)
        assert [one.input for one in instances].count(1) == 8
        for one in (one for one in instances if one.input == 2):
            stamp = datetime.strptime(one.id, "nightly@%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            assert (stamp.hour, stamp.minute, stamp.second) == (2, 30, 0)
            assert begin < stamp.timestamp() <= server.clock.now()
        schedules = {one.id: one for one in await server.workflows.get_schedules()}
        assert schedules["ticks"].every == 21600
        assert schedules["nightly"].cron == "30 2 * * *"
        assert schedules["ticks"].next_at.timestamp() > server.clock.now()
        assert schedules["ticks"].last_instance_id in {one.id for one in instances}
        assert await server.workflows.unschedule("ticks") is True
        assert await server.workflows.unschedule("ticks") is False
        await server.workflows.unschedule("nightly")
        server.clock.advance("48h")
        holder = await server.workflows.start(ticks, 0)
        await ended(server, holder)
        assert len(await server.workflows.get_instances("ticks", limit=1000)) == 11


async def everything(server, count):
    """Return the instances of "ticks" once there are so many and all have ended."""
    async with asyncio.timeout(DEADLINE * 2):
        while True:
            found = await server.workflows.get_instances("ticks", limit=1000)
            assert len(found) <= count
            if len(found) == count and all(one.status == "completed" for one in found):
                return found
            await asyncio.sleep(0.1)  # each look costs those who run


@pytest.mark.parametrize(("catch_up", "expected"), [("all", 5), ("one", 1), ("skip", 0)])
async def test_what_was_missed_is_caught_up_as_asked(catch_up, expected):
    async with paddock.testing.server(register=[ticks]) as server:
        await server.workflows.schedule(ticks, every="1h", input=1, catch_up=catch_up)
        server.clock.advance("5h30min")
        await everything(server, expected)
        (schedule,) = await fired(server)
        assert schedule.next_at.timestamp() - server.clock.now() == pytest.approx(1800, abs=DEADLINE)
        server.clock.advance(schedule.next_at.timestamp() - server.clock.now())  # this one is on time
        await everything(server, expected + 1)


async def fired(server):
    """Return the schedules once none is due."""
    async with asyncio.timeout(DEADLINE):
        while True:
            schedules = await server.workflows.get_schedules()
            if all(one.next_at.timestamp() > server.clock.now() for one in schedules):
                return schedules
            await asyncio.sleep(0.005)


async def test_cron_in_a_time_zone_follows_its_summer_time():
    async with paddock.testing.server(register=[ticks]) as server:
        evening(server)
        await server.workflows.schedule(ticks, cron="0 12 * * *", tz="Europe/Berlin", input=1, catch_up="all")
        await server.workflows.schedule(ticks, cron="0 12 * * *", input=2, id="utc", catch_up="all")
        server.clock.advance("364d")
        instances = await everything(server, 728)
        hours = {one.input: set() for one in instances}
        for one in instances:
            hours[one.input].add(datetime.strptime(one.id.split("@")[1], "%Y%m%dT%H%M%S").hour)
    assert hours == {1: {10, 11}, 2: {12}}


async def test_schedules_that_cannot_work_are_refused_and_leave_nothing():
    async with paddock.testing.server(register=[ticks]) as server:
        await server.workflows.schedule(ticks, every="1h", input=1, id="there")
        for bad, told in (
            ({}, "exactly one"),
            ({"cron": "* * * * *", "every": 1}, "exactly one"),
            ({"cron": "* * * *"}, "cron"),
            ({"cron": "61 * * * *"}, "cron"),
            ({"cron": "0 0 30 2 *"}, "30 2"),
            ({"cron": "0 0 * * *", "tz": "Mars/Olympus"}, "Mars"),
            ({"every": 0}, "0"),
            ({"every": "soon"}, "soon"),
            ({"every": "1h", "catch_up": "some"}, "catch_up"),
            ({"every": "1h", "id": "there"}, "there"),
        ):
            with pytest.raises(ConfigError, match=told):
                await server.workflows.schedule(ticks, **{"input": 1, "id": "bad", **bad})
        with pytest.raises(InvalidInput):
            await server.workflows.schedule(ticks, every="1h", input="no number", id="bad")
        with pytest.raises(WorkflowNotFound):
            await server.workflows.schedule("nothing", every="1h")
        assert [one.id for one in await server.workflows.get_schedules()] == ["there"]


async def test_a_schedule_outlives_its_server_and_catches_up(tmp_path):
    config = WorkflowsConfig(launcher="inline")
    server = AppServer(tmp_path / "app.db", workflows=config)
    server.workflows.register(ticks)
    async with server:
        await server.workflows.schedule(ticks, every="300ms", input=5, id="often", catch_up="one")
        (schedule,) = await server.workflows.get_schedules()
    async with asyncio.timeout(DEADLINE):
        while datetime.now(UTC) < schedule.next_at:  # it is due while no server runs
            await asyncio.sleep(0.02)
    server = AppServer(tmp_path / "app.db", workflows=config)
    server.workflows.register(ticks)
    async with server:
        assert [one.id for one in await server.workflows.get_schedules()] == ["often"]
        async for event in server.events.subscribe("workflow.completed", after=0):
            if event.instance_id.startswith("often@"):
                break
        await server.workflows.unschedule("often")


async def test_the_clock_jumps_to_a_timeout_and_to_where_a_rate_lets_in():
    @flow("too-long", timeout="2h")
    async def too_long(ctx):
        await ctx.sleep("night", "8h")

    @flow("at-a-rate")
    async def at_a_rate(n: int):
        return n

    async with paddock.testing.server(register=[too_long]) as server:
        server.workflows.register(at_a_rate, rate="2/1h")
        late = await ended(server, await server.workflows.start(too_long, delay="5d"))
        assert late.status == "timed_out"
        assert timedelta(hours=2) <= late.completed_at - late.started_at < timedelta(hours=3)
        several = [await server.workflows.start(at_a_rate, n) for n in range(5)]
        begun = [(await ended(server, ident)).started_at for ident in several]
    assert [round((at - begun[0]) / timedelta(hours=1)) for at in begun] == [0, 0, 1, 1, 2]
