"""Workflows that ask their plugins; children import this module."""

import asyncio
import os
from typing import Any

from contractnotes import gate, note
from contractplugins import Tables, Vault

from paddock import Context, flow, workflow


async def open_vault(value: Any, ctx: Context) -> str:
    print("opening", ctx.plugin(Vault).config)
    ctx.logger.info("opening", config=repr(ctx.plugin(Vault).config))
    if value:
        note(value["began"], "began")
        await gate(value["gate"])
    return ctx.plugins.vault.digest()


async def add_row(value: str, ctx: Context) -> list[Any]:
    await ctx.plugin(Tables).add(value)
    await asyncio.gather(*(ctx.plugins.tables.add(f"{value}{n}") for n in range(3)))
    return [os.getpid(), await ctx.plugins.tables.rows()]


@flow("open-transaction")
async def open_transaction(value: str, ctx: Context) -> str:
    db, held = ctx.plugin(Tables).core.db, asyncio.Event()

    async def hold() -> None:
        await db.execute("INSERT INTO tables_rows VALUES (?, ?)", (value, os.getpid()))
        held.set()
        await asyncio.sleep(0.05)  # the step's beginning is to be committed meanwhile
        await db.commit()

    holder = asyncio.create_task(hold())
    await held.wait()
    done: str = await ctx.step("beside it", str.upper, value)
    await holder
    return done


def plugin_names(ctx: Context) -> list[str]:
    return [plugin.name for plugin in ctx.plugins]


vault_flow = workflow("vault").task("open", open_vault).build()
rows_flow = workflow("rows").task("add", add_row).build()
names_flow = workflow("plugin-names").task("names", plugin_names).build()
configs_flow = (
    workflow("configs").task("all", lambda ctx: {plugin.name: repr(plugin.config) for plugin in ctx.plugins}).build()
)
