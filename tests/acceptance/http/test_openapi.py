"""The OpenAPI description: it holds the workflows' own schemas, and what it promises is kept."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from httpkit import client, listening

TOKEN = "a token for the description"

#: What schemathesis is told of our answers, here as on the command line.
CONFIG = Path(__file__).with_name("schemathesis.toml")
PROMISES = CONFIG.with_name("promises.py")

#: Of what was answered nothing goes into later calls: ids are new ones each time, and following a known instance has no end.
SAME_CALLS = """
[phases.fuzzing]
extra-data-sources.responses = false
error-feedback.enabled = false
"""


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
async def test_what_it_promises_is_kept(server, tmp_path):
    """A few calls of each operation, right and wrong ones, made up from the description; each answer is held against it.

    In a process of its own: `hypothesis` wants Python's `random` for itself, and the server here draws numbers too.
    """
    idle = [await server.workflows.start("approval", "a raise", id=f"waiting-{number}") for number in range(3)]
    async with client(server.asgi()) as api:
        described = (await api.get("/openapi.json")).json()["paths"]
    every = sum(len(methods) for methods in described.values())
    async with listening(server.asgi()) as url:
        told = await asyncio.to_thread(_schemathesis, f"{url}/openapi.json", tmp_path)
    assert f"Tested: {every}\n" in told
    assert idle


def _schemathesis(url, folder):
    """Run it as on the command line, but each time with the same calls; return what it tells."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG.read_text().replace("wait=1", "respond-async") + SAME_CALLS)
    options = ["--phases", "fuzzing", "--max-examples", "2", "--generation-deterministic", "--request-timeout", "60"]
    ran = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run", url, "--no-color", *options],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(PROMISES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout
