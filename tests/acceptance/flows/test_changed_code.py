"""Code that changes while instances are on their way: what fits goes on, what does not is blocked and says why."""

import pytest
from flowkit import ended, outputs, suspended
from pydantic import BaseModel

import paddock.testing
from paddock import StateMachine, WorkflowBlocked, WorkflowsConfig, branch, flow, state, workflow
from paddock.runtime.store.sqlite import MemoryStore
from paddock.runtime.testing.server import MemoryServer


def value(x):
    return x


async def through(before, after, *, then=None):
    """Run `before` up to a signal, go on with `after` as the code, and with `then` after a retry; return the instances."""
    code = [before]

    @flow("changing")
    async def changing(ctx):
        return await code[0](ctx)

    found = []
    async with paddock.testing.server(register=[changing]) as server:
        ident = await server.workflows.start(changing)
        await suspended(server, ident, "waiting")
        code[0] = after
        await server.workflows.signal(ident, "go", 1)
        found.append(await ended(server, ident))
        if then is not None:
            code[0] = then
            await server.workflows.retry(ident)
            found.append(await ended(server, ident))
        if found[0].status == "blocked" and then is None:
            with pytest.raises(WorkflowBlocked):
                await server.workflows.result(ident)
    return found


async def original(ctx):
    a = await ctx.step("a", value, "a")
    b = await ctx.step("b", value, "b")
    await ctx.wait_event("go")
    return [a, b, await ctx.step("c", value, "c")]


async def test_another_kind_under_the_same_key_blocks_and_names_both():
    async def changed(ctx):
        a = await ctx.step("a", value, "a")
        await ctx.sleep("b", "1s")
        await ctx.wait_event("go")
        return a

    (instance,) = await through(original, changed)
    assert instance.status == "blocked"
    assert instance.error.type == "NonDeterminismError"
    assert "'b'" in instance.error.message
    assert "sleep" in instance.error.message
    assert "step" in instance.error.message


async def test_a_removed_step_before_a_new_one_blocks_and_names_both_and_goes_on_once_it_is_back():
    async def changed(ctx):
        a = await ctx.step("a", value, "a")
        await ctx.wait_event("go")
        return [a, await ctx.step("new", value, "new")]

    blocked, done = await through(original, changed, then=original)
    assert blocked.status == "blocked"
    assert blocked.error.type == "NonDeterminismError"
    assert "'new'" in blocked.error.message
    assert "'b'" in blocked.error.message
    assert outputs(blocked) == {"a": "a", "b": "b", "go": 1}
    assert done.status == "completed"
    assert done.output == ["a", "b", "c"]


async def test_code_that_swallows_exceptions_is_blocked_all_the_same():
    later = []

    async def changed(ctx):
        try:
            await ctx.step("a", value, "a")
            await ctx.sleep("b", "1s")
        except Exception:  # noqa: BLE001
            try:
                await ctx.step("instead", later.append, 1)
            except Exception:  # noqa: BLE001
                return "swallowed"
        return "swallowed too"

    (instance,) = await through(original, changed)
    assert instance.status == "blocked"
    assert "'b'" in instance.error.message
    assert later == []


async def test_a_new_step_before_recorded_ones_blocks():
    async def changed(ctx):
        await ctx.step("new", value, "new")
        return await original(ctx)

    (instance,) = await through(original, changed)
    assert instance.status == "blocked"
    assert "'new'" in instance.error.message
    assert "'a'" in instance.error.message


async def test_adding_removing_and_reordering_what_lies_ahead_is_fine():
    async def before(ctx):
        await ctx.step("a", value, "a")
        await ctx.wait_event("go")
        return [await ctx.step(name, value, name) for name in ("x", "y", "z")]

    async def changed(ctx):
        await ctx.step("a", value, "other arguments are no matter: it is done")
        await ctx.wait_event("go")
        return [await ctx.step(name, value, name) for name in ("new", "z", "x")]

    (instance,) = await through(before, changed)
    assert instance.output == ["new", "z", "x"]
    assert outputs(instance) == {"a": "a", "go": 1, "new": "new", "z": "z", "x": "x"}


async def test_steps_that_were_done_may_change_their_places():
    async def changed(ctx):
        b = await ctx.step("b", value, "b")
        a = await ctx.step("a", value, "a")
        await ctx.wait_event("go")
        return [a, b]

    (instance,) = await through(original, changed)
    assert instance.output == ["a", "b"]


async def test_patched_is_false_for_those_that_have_passed_and_true_for_those_that_come():
    def with_patch(new_before: bool):
        async def code(ctx):
            a = await ctx.step("a", value, "a")
            found = [a]
            if ctx.patched("step b2"):
                found.append(await ctx.step("b2", value, "b2"))
            else:
                found.append(await ctx.step("b", value, "b"))
            await ctx.wait_event("go")
            if ctx.patched("step c2"):
                found.append(await ctx.step("c2", value, "c2"))
            return found

        return code

    (passed,) = await through(original, with_patch(True))
    assert passed.output == ["a", "b", "c2"]
    assert passed.status == "completed"
    (fresh,) = await through(with_patch(True), with_patch(True))
    assert fresh.output == ["a", "b2", "c2"]


async def test_values_that_the_code_no_longer_asks_for_hold_nothing_up():
    async def before(ctx):
        told = [ctx.random(), ctx.now(), ctx.uuid4()]
        await ctx.set_metadata("told", len(told))
        await ctx.emit("told")
        await ctx.wait_event("go")
        return "before"

    async def changed(ctx):
        await ctx.wait_event("go")
        return await ctx.step("new", value, "new")

    (instance,) = await through(before, changed)
    assert instance.output == "new", instance.error


async def test_a_caught_failure_in_a_gather_may_be_followed_by_new_code():
    async def before(ctx):
        try:
            await ctx.gather(ctx.step("bad", lambda: 1 / 0), ctx.wait_event("never"), ctx.sleep("long", "9d"))
        except Exception:  # noqa: BLE001
            pass
        await ctx.wait_event("go")
        return "before"

    async def changed(ctx):
        await ctx.step("bad", value, "a caught failure stays one") if False else None
        try:
            await ctx.gather(ctx.step("bad", lambda: 1), ctx.wait_event("never"))  # "long" is gone: it was only stopped
        except Exception:  # noqa: BLE001
            pass
        await ctx.wait_event("go")
        return await ctx.step("new", value, "new")

    (instance,) = await through(before, changed)
    assert instance.output == "new", instance.error


class Narrow(BaseModel):
    name: str


class Wide(Narrow):
    since: int


async def test_a_recorded_result_that_no_longer_fits_its_type_blocks_and_goes_on_once_it_does():
    def code(kind):
        async def changing(ctx):
            found = await ctx.step("found", lambda: {"name": "ada"}, output=kind)
            await ctx.wait_event("go")
            return found.name

        return changing

    blocked, done = await through(code(Narrow), code(Wide), then=code(Narrow))
    assert (blocked.status, blocked.error.type, blocked.error.step) == ("blocked", "NonDeterminismError", "found")
    assert "since" in blocked.error.message
    assert done.output == "ada"


async def between(before, after, input=None):
    """Run a workflow up to a wait, register another definition under its name, and go on."""
    store = MemoryStore()
    ident = None
    for definition in (before, after):
        server = MemoryServer((), {}, WorkflowsConfig(), store)
        server.workflows.register(definition)
        store.close, close = lambda: None, store.close
        async with server:
            if ident is None:
                ident = await server.workflows.start(definition, input)
                await suspended(server, ident, "waiting")
            else:
                await server.workflows.signal(ident, "go", 1)
                instance = await ended(server, ident)
        store.close = close
    store.close()
    return instance


def graph(*, target="one", parallel=False):
    built = workflow("shape").choice("which", [(lambda ctx: True, target)], default="two")
    for name in dict.fromkeys([target, "two"]):
        built = built.task(name, lambda: 1, next="go")
    if parallel:
        return (
            workflow("shape")
            .parallel("new", branches=[branch("b").task("t", lambda: 1).build()])
            .choice("which", [(lambda ctx: True, "go")])
            .wait_event("go")
            .build()
        )
    return built.wait_event("go").build()


async def test_a_choice_whose_target_is_gone_blocks():
    instance = await between(graph(), graph(target="other"))
    assert (instance.status, instance.error.step) == ("blocked", "which")
    assert "'one'" in instance.error.message


async def test_a_new_parallel_before_recorded_steps_blocks_and_leaves_no_row():
    instance = await between(graph(), graph(parallel=True))
    assert instance.status == "blocked", instance
    assert "'new'" in instance.error.message
    assert "new" not in instance.step_results


class Counted(BaseModel):
    n: int = 0


def machine(last):
    class Moving(StateMachine[Counted], name="moving", start="first", isolated=False):
        @state
        async def first(self):
            self.data.n += 1
            return last

        async def stop(self):
            await self.wait_event("go")

        vars()[last] = state(stop)

    return Moving


async def test_a_state_that_is_gone_blocks():
    instance = await between(machine("second"), machine("third"), {"n": 1})
    assert (instance.status, instance.error.step) == ("blocked", "first")
    assert "'second'" in instance.error.message


async def test_an_input_that_no_longer_fits_blocks_what_has_begun():
    def typed(kind):
        @flow("typed")
        async def typed_flow(given: kind, ctx):
            await ctx.step("a", value, 1)
            await ctx.wait_event("go")
            return given.name

        return typed_flow

    instance = await between(typed(Narrow), typed(Wide), {"name": "ada"})
    assert instance.status == "blocked"
    assert "since" in instance.error.message


async def test_a_definition_that_is_gone_blocks_and_goes_on_when_it_is_back(tmp_path):
    """On a real server: what is not registered any more holds no slot and says so."""
    from paddock import AppServer, WorkflowsConfig

    calls = []

    @flow("vanishing")
    async def vanishing(ctx):
        await ctx.step("a", calls.append, 1)
        await ctx.wait_event("go")
        return "back"

    config = WorkflowsConfig(launcher="inline")
    server = AppServer(tmp_path / "app.db", workflows=config)
    server.workflows.register(vanishing)
    async with server:
        ident = await server.workflows.start(vanishing)
        await suspended(server, ident, "waiting")
    server = AppServer(tmp_path / "app.db", workflows=config)
    async with server:
        await server.workflows.signal(ident, "go", 1)
        instance = await ended(server, ident)
        assert instance.status == "blocked"
        assert "vanishing" in instance.error.message
    server = AppServer(tmp_path / "app.db", workflows=config)
    server.workflows.register(vanishing)
    async with server:
        instance = await ended(server, ident)
    assert instance.output == "back", instance
    assert calls == [1]
