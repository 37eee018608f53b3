"""The plugins of the contract's tests; children rebuild them from here."""

import asyncio
import hashlib
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from contractnotes import note
from pydantic import BaseModel, SecretStr

from paddock import Context, Core, Plugin, workflow


class StampConfig(BaseModel):
    text: str


class Stamp(Plugin[StampConfig]):
    """A plugin that every shared server has."""

    name = "stamp"

    async def setup(self, core: Core) -> None:
        self.core = core

    async def press(self, thing: str) -> str:
        return f"{thing} in {self.config.text}"


# --- order ------------------------------------------------------------------------------------------------------------


class LogConfig(BaseModel):
    log: str
    every: timedelta = timedelta(seconds=1)


class _Noting(Plugin[LogConfig]):
    async def setup(self, core: Core) -> None:
        self.role = core.role
        note(self.config.log, f"{core.role} setup {self.name}")

    async def teardown(self) -> None:
        note(self.config.log, f"{self.role} teardown {self.name}")


class Base(_Noting):
    name = "base"


class Middle(_Noting):
    name = "middle-one"
    requires = ("base",)


class Top(_Noting):
    name = "top"
    requires = ("middle-one", "base")


class BadEnd(_Noting):
    name = "bad-end"

    async def teardown(self) -> None:
        await super().teardown()
        raise RuntimeError("cannot let go")


# --- setups that fail -------------------------------------------------------------------------------------------------


class WhereConfig(BaseModel):
    where: str
    log: str = os.devnull


class Failing(Plugin[WhereConfig]):
    name = "failing"

    async def setup(self, core: Core) -> None:
        if core.role == self.config.where:
            raise ConnectionError("no way through")


class Hanging(Plugin[WhereConfig]):
    name = "hanging"

    async def setup(self, core: Core) -> None:
        if core.role == self.config.where:
            await asyncio.Event().wait()


class Blocking(Plugin[WhereConfig]):
    name = "blocking"

    async def setup(self, core: Core) -> None:
        if core.role == self.config.where:
            time.sleep(60)


class HangingEnd(_Noting):
    name = "hanging-end"

    async def teardown(self) -> None:
        await super().teardown()
        if self.role == "child":
            await asyncio.Event().wait()


class BlockingEnd(_Noting):
    name = "blocking-end"

    async def teardown(self) -> None:
        await super().teardown()
        if self.role == "child":
            time.sleep(600)


# --- configs ----------------------------------------------------------------------------------------------------------


class AnyConfig(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    good: int = 1
    value: Any = None


class Loose(Plugin[AnyConfig]):
    name = "loose"


@dataclass
class PlainConfig:
    count: int
    wait: timedelta


class Plain(Plugin[PlainConfig]):
    name = "plain"


class Mapped(Plugin[dict[str, Any]]):
    name = "mapped"


class Defaulted(Plugin[AnyConfig]):
    """Made without a config where all of its fields have defaults."""

    name = "defaulted"


class Nameless(Plugin[None]):
    pass


class Uninitialised(Plugin[None]):
    name = "uninitialised"

    def __init__(self) -> None:
        pass


# --- secrets ----------------------------------------------------------------------------------------------------------


class VaultConfig(BaseModel):
    key: SecretStr
    inner: dict[str, SecretStr] = {}
    fail: bool = False
    extra: Any = None


class Vault(Plugin[VaultConfig]):
    name = "vault"

    async def setup(self, core: Core) -> None:
        if self.config.fail and core.role == "child":
            raise RuntimeError(f"cannot open {self.config!r}")

    def digest(self) -> str:
        text = self.config.key.get_secret_value() + "".join(v.get_secret_value() for v in self.config.inner.values())
        return hashlib.sha256(text.encode()).hexdigest()


# --- what core offers -------------------------------------------------------------------------------------------------


class Tables(Plugin[None]):
    name = "tables"

    async def setup(self, core: Core) -> None:
        self.core = core
        await core.db.execute("CREATE TABLE IF NOT EXISTS tables_rows (who TEXT, pid INTEGER)")
        await core.db.commit()

    async def add(self, who: str) -> None:
        await self.core.db.execute("INSERT INTO tables_rows VALUES (?, ?)", (who, os.getpid()))
        await self.core.db.commit()

    async def rows(self) -> list[tuple[str, int]]:
        async with self.core.db.execute("SELECT who, pid FROM tables_rows ORDER BY rowid") as cursor:
            return [(row[0], row[1]) async for row in cursor]


class Clockwork(Plugin[LogConfig]):
    name = "clockwork"

    async def setup(self, core: Core) -> None:
        async def tick() -> None:
            note(self.config.log, f"async {core.role} {os.getpid()}")

        def tock() -> None:
            note(self.config.log, f"sync {core.role} {os.getpid()}")
            raise RuntimeError("a tick that fails")

        core.schedule("tick", tick, every=0.005)
        core.schedule("tock", tock, every=timedelta(milliseconds=5))
        core.schedule("daily", tick, cron="0 4 * * *")


class Cron(Plugin[LogConfig]):
    name = "cron"

    async def setup(self, core: Core) -> None:
        core.schedule("minute", lambda: note(self.config.log, "minute"), cron="* * * * *")


class BadSchedule(Plugin[dict[str, Any]]):
    name = "bad-schedule"

    async def setup(self, core: Core) -> None:
        for options in self.config["calls"]:
            core.schedule("nightly", print, **options)


async def brought(value: Any, ctx: Context) -> list[Any]:
    return [value, ctx.plugins.bringer.config["word"], ctx.core.role]


class Bringer(Plugin[dict[str, str]]):
    """Brings a workflow that stands in no module."""

    name = "bringer"

    async def setup(self, core: Core) -> None:
        flow = workflow("brought").task("one", brought).build()
        core.register(flow, max_concurrent=1)
        core.events.on("workflow.completed", lambda event: note(self.config["log"], f"heard by {core.role}"))
        core.logger.info("set up", role=core.role)
