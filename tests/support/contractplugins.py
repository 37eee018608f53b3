"""The plugins of the contract's tests; children rebuild them from here."""

from pydantic import BaseModel

from paddock import Core, Plugin


class StampConfig(BaseModel):
    text: str


class Stamp(Plugin[StampConfig]):
    """A plugin that every shared server has."""

    name = "stamp"

    async def setup(self, core: Core) -> None:
        self.core = core

    async def press(self, thing: str) -> str:
        return f"{thing} in {self.config.text}"
