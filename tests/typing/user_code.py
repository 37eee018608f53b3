"""A user's code, as a type checker reads it: `make check` runs it through the strict one."""

from datetime import timedelta
from typing import assert_type

from pydantic import BaseModel

from paddock import (
    AppServer,
    BlockingContext,
    Context,
    Event,
    Instance,
    LogRecord,
    Plugin,
    Poll,
    Retry,
    SqlitePragmas,
    Status,
    StepResult,
    WatchdogConfig,
    WorkflowFailed,
    WorkflowsConfig,
    branch,
    workflow,
)
from paddock.runtime.engine.plugins import Core


class Order(BaseModel):
    """What is bought."""

    id: int


class Validated(BaseModel):
    """An order that can be fulfilled."""

    order: Order
    in_stock: bool


class ReportsConfig(BaseModel):
    """Where reports go."""

    region: str


class Reports(Plugin[ReportsConfig]):
    """A plugin with a config."""

    name = "reports"
    requires = ()

    async def setup(self, core: Core) -> None:
        """Look at the config: it has its type."""
        assert_type(self.config.region, str)

    async def generate(self, ident: int) -> str:
        """Return a report."""
        return f"{self.config.region}-{ident}"


async def validate(order: Order, ctx: Context) -> Validated:
    """Validate: an async handler, whose context is awaited."""
    await ctx.set_metadata("seen", order.id)
    await ctx.emit("validated", {"id": order.id})
    ctx.log("info", "validated", order=order.id)
    ctx.logger.bind(order=order.id).info("again", n=1)
    ctx.heartbeat({"at": 1})
    reports = ctx.plugin(Reports)
    assert_type(reports, Reports)
    assert_type(await reports.generate(1), str)
    assert_type(ctx.get_step_result("x", Order), Order | None)
    assert_type(ctx.instance, Instance)
    assert_type(ctx.instance.step_results, dict[str, StepResult])
    assert_type(ctx.idempotency_key, str)
    return Validated(order=order, in_stock=True)


def ship(ctx: BlockingContext) -> dict[str, int]:
    """Ship: a plain handler, whose context blocks."""
    ctx.set_metadata("shipped", True)
    ctx.emit("shipped")
    return {"boxes": ctx.attempt}


async def check() -> Poll[int]:
    """Look whether it is there."""
    return Poll.pending() if timedelta(1) > timedelta(2) else Poll.done(7)


process_order = (
    workflow("process-order", input=Order)
    .describe("sell something", tags=["shop"])
    .timeout("1h")
    .default_retry(max_attempts=3, interval="1s", backoff_rate=2, max_interval=timedelta(seconds=30))
    .task("validate", validate, retry=Retry(max_attempts=2, retry_on=[ValueError, "Timeout"]), timeout=5)
    .choice("stock", choices=[(lambda ctx: bool(ctx.steps["validate"].in_stock), "fulfill")], default="backorder")
    .parallel(
        "fulfill",
        branches=[branch("shipping").task("ship", ship).build(), branch("waiting").poll("there", check, interval="5s")],
        on_error="wait-all",
        next="complete",
    )
    .task("backorder", ship, input=lambda prev, workflow_input: {"prev": prev}, next="complete")
    .loop("again", lambda ctx: False, "validate", max_iterations=3)
    .sleep("rest", "30d")
    .pass_("complete", transform=lambda ctx: {"id": ctx.input.id}, end=True)
    .start_at("validate")
)


def heard(event: Event) -> None:
    """Hear an event."""
    assert_type(event.id, int)


async def main() -> None:
    """Run a server."""
    server = AppServer(
        db="app.db",
        plugins=[Reports(ReportsConfig(region="eu"))],
        config={"feature_x": True},
        workflows=WorkflowsConfig(
            concurrent_workflows_by_name={"ingest": 1}, launcher="fork", sqlite_pragmas=SqlitePragmas()
        ),
        watchdog=WatchdogConfig(heartbeat_timeout=30.0),
    )
    definition = process_order.build()
    server.workflows.register(definition, max_concurrent=2, on_limit="reject")
    server.workflows.register(
        definition,
        memory_limit="512MB",
        cpu_limit=timedelta(minutes=10),
        open_files=100,
        processes=20,
        env={"REGION": "eu", "HOME": None},
        cwd="/tmp",
        nice=5,
        python="/usr/bin/python3",
    )
    server.workflows.register(definition, memory_limit=2**29, cpu_limit=60, env=["AWS_*"])
    async with server as running:
        assert_type(running, AppServer)
        unsubscribe = server.events.on("workflow.*", heard)
        ident = await server.workflows.start(definition, Order(id=1), delay="5s", priority=1, metadata={"k": [1]})
        assert_type(ident, str)
        try:
            await server.workflows.run("process-order", {"id": 2}, timeout=timedelta(minutes=1))
        except WorkflowFailed as error:
            assert_type(error.instance_id, str)
        found = await server.workflows.get_instance(ident)
        assert_type(found, Instance | None)
        assert_type(await server.workflows.get_instances("process-order", Status.FAILED, limit=5), list[Instance])
        assert_type(await server.workflows.cancel(ident), bool)
        assert_type(await server.logs.query(instance_id=ident, level="info"), list[LogRecord])
        async for event in server.events.subscribe("workflow.*", instance_id=ident, after=0):
            assert_type(event, Event)
        unsubscribe()
