"""Process an order: check it, then ship and notify side by side, or put it on backorder.

    python -m paddock.examples.process_order

Each order runs in a process of its own. Kill it, or this program, at any moment: a step whose end was recorded never runs again.
"""

import asyncio
import json
import os
import tempfile
from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from paddock import AppServer, Context, Core, Event, Plugin, branch, workflow

# Plugins: your services. They are set up in the server and again in each order's process, from their class and their configuration.


@dataclass
class Warehouse:
    """What is in stock, and what it costs: order id → total."""

    in_stock: dict[str, float] = field(default_factory=dict)


class Orders(Plugin[Warehouse]):
    """Orders and backorders."""

    name = "orders"

    async def setup(self, core: Core) -> None:
        """Make a table of this plugin's own, in the database that Paddock uses too."""
        self._db = core.db
        await self._db.execute(
            "CREATE TABLE IF NOT EXISTS backorders (key TEXT PRIMARY KEY, order_id TEXT, total REAL)"
        )
        await self._db.commit()

    async def validate(self, order_id: str) -> tuple[bool, float]:
        """Return whether an order is in stock, and its total."""
        total = self.config.in_stock.get(order_id)
        return total is not None, total if total is not None else 99.0

    async def create_backorder(self, order_id: str, total: float, key: str) -> None:
        """Put an order on backorder; the same key again changes nothing."""
        await self._db.execute("INSERT OR IGNORE INTO backorders VALUES (?, ?, ?)", (key, order_id, total))
        await self._db.commit()


@dataclass
class Carrier:
    """Who brings the parcels."""

    name: str = "Turtle Express"


class Shipping(Plugin[Carrier]):
    """Shipments."""

    name = "shipping"

    async def create_shipment(self, order_id: str, key: str) -> str:
        """Return the tracking number; the same key again gives the same shipment."""
        return f"{self.config.name} {uuid5(NAMESPACE_URL, key).hex[:8]} for {order_id}"


class Email(Plugin[None]):
    """Mail to customers."""

    name = "email"

    async def send_confirmation(self, to: str, order_id: str, total: float) -> None:
        """Send a confirmation."""
        print(f"mail to {to}: your order {order_id} over {total:.2f} is on its way")


# What goes in and out of the steps. The annotations of the handlers are the schema.


@dataclass
class Order:
    """The input."""

    order_id: str
    customer_id: str


@dataclass
class Validated:
    """An order that has been looked at."""

    order_id: str
    in_stock: bool
    total: float


@dataclass
class Notice:
    """Whom to tell what."""

    order_id: str
    customer_id: str
    total: float


async def validate(order: Order, ctx: Context) -> Validated:
    """Look at the order."""
    in_stock, total = await ctx.plugin(Orders).validate(order.order_id)
    return Validated(order.order_id, in_stock, total)


async def ship(order: Validated, ctx: Context) -> dict[str, str]:
    """Send the parcel. Tried again after a crash, it passes the same key, so there is one shipment."""
    return {"tracking": await ctx.plugin(Shipping).create_shipment(order.order_id, key=ctx.idempotency_key)}


async def notify(notice: Notice, ctx: Context) -> dict[str, bool]:
    """Tell the customer."""
    await ctx.plugin(Email).send_confirmation(notice.customer_id, notice.order_id, notice.total)
    return {"sent": True}


async def backorder(order: Validated, ctx: Context) -> dict[str, str]:
    """Put the order on backorder."""
    await ctx.plugin(Orders).create_backorder(order.order_id, order.total, key=ctx.idempotency_key)
    return {"backorder": order.order_id}


process_order = (
    workflow("process-order")
    .timeout("1h")
    .default_retry(max_attempts=3, interval="1s", backoff_rate=2, max_interval="30s")
    .task("validate", validate)
    .choice("check-inventory", choices=[(lambda ctx: ctx.steps["validate"].in_stock, "fulfill")], default="backorder")
    .parallel(
        "fulfill",
        branches=[
            branch("shipping").task("ship", ship, input=lambda prev: prev).build(),
            branch("notification")
            .task("notify", notify, input=lambda prev, order: {**order, "total": prev.total})
            .build(),
        ],
        next="complete",
    )
    .task("backorder", backorder, input=lambda prev: prev, next="complete")
    .pass_("complete", transform=lambda ctx: {"order": ctx.steps["validate"], "result": ctx.prev}, end=True)
    .build()
)


def show(event: Event) -> None:
    """Print what happens; what a handler prints or logs comes as an event too."""
    print(f"  {event.name:<26} {event.data.get('step') or event.data.get('message')}")


async def main() -> None:
    """Process an order that is in stock, and one that is not."""
    with tempfile.TemporaryDirectory() as folder:  # your application names a file that stays
        server = AppServer(
            db=os.path.join(folder, "orders.db"),
            plugins=[Orders(Warehouse(in_stock={"ORD-123": 42.5})), Shipping(Carrier()), Email()],
        )
        server.workflows.register(process_order)
        server.events.on("workflow.step.*", show)
        server.events.on("log.workflow", show)
        async with server:
            for order_id in ("ORD-123", "ORD-456"):
                print(f"{order_id}:")
                order = {"order_id": order_id, "customer_id": "CUST-456"}
                result = await server.workflows.run(process_order, order, timeout="1min")
                print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
