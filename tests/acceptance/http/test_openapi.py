"""The OpenAPI description: it holds the workflows' own schemas, and what it promises is kept."""

import asyncio
from pathlib import Path

import jsonschema
import pytest
import schemathesis
from httpkit import client, listening
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

TOKEN = "a token for the description"
JSON = {"Accept": "application/json", "Prefer": "respond-async"}

#: What schemathesis is told of our answers, here as on the command line.
CONFIG = Path(__file__).with_name("schemathesis.toml")


async def test_workflows_have_operations_of_their_own(api):
    found = (await api.get("/openapi.json")).json()
    start = found["paths"]["/api/workflows/order/start"]["post"]
    assert (start["operationId"], start["tags"]) == ("start_order", ["shop"])
    body = start["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["input"]
    schemas = found["components"]["schemas"]
    assert schemas["order.input.Line"]["properties"]["count"]["maximum"] == 100
    assert (
        body["properties"]["input"]["properties"]["lines"]["items"]["$ref"] == "#/components/schemas/order.input.Line"
    )
    done = found["paths"]["/api/workflows/greet/run"]["post"]["responses"]["200"]["content"]
    assert schemas[done["application/json"]["schema"]["$ref"].rpartition("/")[2]]["properties"]["output"] == {
        "type": "string"
    }
    assert "text/event-stream" in done
    assert "securitySchemes" not in found["components"]


def jsonpointer(document, reference):
    for part in reference.removeprefix("#/").split("/"):
        document = document.get(part) or {}
    return document or None


async def test_every_reference_leads_somewhere(api):
    found = (await api.get("/openapi.json")).json()
    todo, references = [found], set()
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            references |= {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    assert len(references) > 30
    for reference in references:
        assert jsonpointer(found, reference) is not None, reference
    operations = {one["operationId"] for path in found["paths"].values() for one in path.values()}
    assert {link["operationId"] for link in found["components"]["links"].values()} <= operations
    for name, schema in found["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert all(char.isalnum() or char in "._-" for char in name)


async def test_a_token_is_described(server):
    async with client(server.asgi(token=TOKEN), headers={"Authorization": f"Bearer {TOKEN}"}) as api:
        found = (await api.get("/openapi.json")).json()
    assert found["security"] == [{"token": []}]
    assert found["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


@pytest.mark.slow
async def test_what_it_promises_is_kept(server):
    """A few calls of each operation, right and wrong ones, made up from the description; each answer is held against it."""
    idle = [await server.workflows.start("approval", "a raise", id=f"waiting-{number}") for number in range(3)]
    async with listening(server.asgi()) as url:
        called = await asyncio.to_thread(_try_all, url)
    assert len(called) == 49
    assert idle


def _try_all(url):
    config = schemathesis.Config.from_path(CONFIG)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=JSON, config=config)
    called = []
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _try(operation, mode)
        called.append(operation.label)
    return called


def _try(operation, mode):
    @settings(max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(headers=JSON, timeout=60)

    try:
        check()
    except Exception as error:
        # nothing to get wrong in an operation without parameters
        if "Unsatisfiable" not in type(error).__name__ and "unsatisfiable" not in str(error).lower():
            raise
