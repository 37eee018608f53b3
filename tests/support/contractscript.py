"""A program as users write it: workflow, plugin and config stand in the script itself, the server under the guard.

`test_scripts.py` copies this file and runs the copy, as a script and as a module.
"""

import asyncio
import sys
from pathlib import Path

from pydantic import BaseModel

from paddock import AppServer, Context, Plugin, WorkflowsConfig, workflow


class Order(BaseModel):
    qty: int


class ShopConfig(BaseModel):
    currency: str


class Shop(Plugin[ShopConfig]):
    name = "shop"


def total(order: Order, ctx: Context) -> dict[str, object]:
    print("counting", order.qty)
    return {
        "type": type(order).__name__,
        "total": f"{order.qty * 2} {ctx.plugin(Shop).config.currency}",
        "at": __name__,
    }


shop = workflow("shop").task("total", total).build()


server = AppServer(
    sys.argv[1], plugins=[Shop(ShopConfig(currency="EUR"))], workflows=WorkflowsConfig(launcher=sys.argv[2])
)
server.workflows.register(shop)


async def main() -> None:
    async with server:
        print(await server.workflows.run(shop, Order(qty=21), timeout=60))


with Path(f"{sys.argv[1]}.imports").open("a") as file:
    file.write(f"{__name__}\n")
if __name__ == "__main__":
    asyncio.run(main())
