"""A child that is killed at any point: the instance goes on, and its result is that of an undisturbed run."""

import pytest
from crashflows import result_of
from crashkit import Faults, Stage, proven, until

from paddock import AppServer

CHILD_POINTS = [
    "child.born",
    "child.leased",
    "child.connect",
    "child.import",
    "child.plugins",
    "child.ready",
    "child.step.begun",
    "child.step.returned",
    "child.commit.inside",
    "child.commit.unsynced",
    "child.commit.after",
    "child.waiting",
    "child.ended",
    "child.teardown",
]


async def sweep(stage: Stage, server: AppServer, faults: Faults, point: str, most: int = 100) -> int:
    """Kill at the first passing of a point, then, in another instance, at the second, and so on; return how many there were."""
    for nth in range(1, most):
        faults.arm(point, nth)
        instance = await server.workflows.start("everything", {"n": nth})
        found = await proven(server, instance, result_of(nth))
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"), "the slot")
        if not faults.fired(point):
            return nth - 1
        assert found.executions <= 2
    return most


@pytest.mark.parametrize("point", CHILD_POINTS)
async def test_a_child_killed_at_every_passing(stage: Stage, monkeypatch: pytest.MonkeyPatch, point: str):
    faults = Faults(stage, monkeypatch, {point: "kill"})
    async with stage.server() as server:
        assert await sweep(stage, server, faults, point) >= 1


@pytest.mark.parametrize("point", ["child.import", "child.step.returned", "child.ended"])
@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_spawned_child_killed_once(stage: Stage, monkeypatch: pytest.MonkeyPatch, point: str, transport: str):
    faults = Faults(stage, monkeypatch, {point: "kill"})
    faults.arm(point)
    async with stage.server(launcher="spawn", transport=transport) as server:
        await proven(server, await server.workflows.start("everything", {"n": 3}), result_of(3))
        await until(lambda: faults.fired(point), point)


async def test_a_child_killed_again_and_again(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """At each seventh commit of a whole run: each execution gets a little further."""
    faults = Faults(stage, monkeypatch, {"child.commit.inside": "kill"}, every=7)
    async with stage.server() as server:
        found = await proven(server, await server.workflows.start("everything", {"n": 4}), result_of(4))
        assert found.executions > 2
        assert faults.count("child.commit.inside") > 20
