"""Charge a customer at intervals, while others change the contract: price, interval, an end.

    python -m paddock.examples.interval_payment

The data of a state class may be changed from outside at any time, checked by their model. The contract takes a change when its wait is
over or at its next state; what it had journaled before stays as it was. The program charges the old price, raises it, sees the new one
charged, tries a change that makes no sense, and ends the contract.
"""

import asyncio
import json
import os
import tempfile
from typing import Any

from pydantic import BaseModel, Field

from paddock import AppServer, Context, InvalidState, StateMachine, WorkflowsConfig, state


class Contract(BaseModel):
    """The data: what outsiders may change, and what was charged."""

    customer: str
    price: int = Field(gt=0)
    interval: str = "30d"
    active: bool = True
    charged: list[int] = []


def charge(customer: str, price: int, ctx: Context) -> int:
    """Charge the customer; the bank gets the same key if this must be tried again."""
    print(f"{customer} pays {price} (key {ctx.idempotency_key.partition(':')[2]})")
    return price


class IntervalPayment(
    StateMachine[Contract], name="interval-payment", start="pay", description="Charges a customer at intervals."
):
    """Pay, rest, pay, … until the contract is not active any more."""

    @state
    async def pay(self) -> Any:
        """Charge once."""
        paid = await self.action("charge", charge, self.data.customer, self.data.price)
        self.data.charged = [*self.data.charged, paid]
        self.log("charged", price=paid)
        return self.rest

    @state
    async def rest(self) -> Any:
        """Wait for the next payment, then look whether there is one."""
        await self.sleep(self.data.interval, "interval")
        return self.pay if self.data.active else self.over

    @state
    async def over(self) -> Any:
        """End: the data are the output."""
        self.log("over", payments=len(self.data.charged))


async def payments(server: AppServer, ident: str, price: int) -> None:
    """Return once the customer has paid this price."""
    async for event in server.events.subscribe("workflow.step.completed", instance_id=ident, after=0):
        if event.data["step_name"] == "charge" and event.data["output"] == price:
            return


async def main() -> None:
    """Live through a contract, with months of half a second."""
    with tempfile.TemporaryDirectory() as folder:
        config = WorkflowsConfig(suspend_after="100ms")  # so that it has no process in its half-second months either
        async with AppServer(db=os.path.join(folder, "contracts.db"), workflows=config) as server:
            server.workflows.register(IntervalPayment)
            contract = Contract(customer="Ada", price=10, interval="500ms")
            ident = await server.workflows.start(IntervalPayment, contract)
            await payments(server, ident, 10)
            await server.workflows.update_state(ident, {"price": 12})
            await payments(server, ident, 12)
            try:
                await server.workflows.update_state(ident, {"price": -1})
            except InvalidState as error:
                print(f"refused: {error}")
            await server.workflows.update_state(ident, {"active": False})
            final = await server.workflows.result(ident, timeout="1min")
            print(json.dumps(final.charged))
            for record in await server.logs.query(instance_id=ident):
                if record.source == "handler":
                    print(f"  {record.message} {record.data}")


if __name__ == "__main__":
    asyncio.run(main())
