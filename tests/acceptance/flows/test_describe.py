"""What a server tells of its workflows before they run."""

import flowflows
from pydantic import BaseModel

import paddock.testing
from paddock import Retry, action, flow, workflow


class Tick(BaseModel):
    count: int


@action("described", description="says what it is")
def described(n: int) -> str:
    return str(n)


@flow("ticker", description="ticks", tags=["clock"], timeout="1h", stream=Tick)
async def ticker(n: int, ctx) -> bool:
    return await ctx.wait_event("stop", bool)


async def test_every_workflow_is_described_by_name():
    graph = workflow("chores", input=Tick).task("job", job="described", retry=Retry(max_attempts=2)).build()
    async with paddock.testing.server(register=[ticker, flowflows.Guess, graph]) as server:
        found = {one["name"]: one for one in server.workflows.describe()}
        assert list(found) == sorted(found)
        assert found["ticker"] == {
            "name": "ticker",
            "style": "flow",
            "description": "ticks",
            "tags": ["clock"],
            "version": ticker.fingerprint(),
            "isolated": True,
            "timeout": 3600.0,
            "total_steps": None,
            "input": {"type": "integer"},
            "output": {"type": "boolean"},
            "stream": Tick.model_json_schema(mode="serialization"),
            "signals": found["ticker"]["signals"],
        }
        assert [signal["name"] for signal in found["ticker"]["signals"]] == ["stop"]
        assert (found["chores"]["style"], found["chores"]["total_steps"]) == ("graph", 1)
        assert found["chores"]["input"]["properties"] == {"count": {"title": "Count", "type": "integer"}}
        assert (found["guess-game"]["style"], found["guess-game"]["stream"]) == ("machine", {})
        assert found["action:described"]["description"] == "says what it is"
        assert found["action:described"]["output"] == {"type": "string"}
        ident = await server.workflows.start(ticker, 1)
        await server.workflows.signal(ident, "stop", True)
        assert (await server.workflows.wait(ident)).version == found["ticker"]["version"]
