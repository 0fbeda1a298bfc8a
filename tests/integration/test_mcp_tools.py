"""The tools that a running relay offers are the operations of the Actions document: none more, none less."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import openai
import pytest
from mcp_types import Tool

from codegen.contract import ACTIONS, FULL, read_contract
from codegen.openapi_json import render_openapi_json
from codegen.reader import read_yaml
from handlers.runtime.app import create_app, create_services
from handlers.runtime.settings import Settings
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.covered_checkout import replace_once
from tests.support.documents import ROOT
from tests.support.file_relay import FileRelay
from tests.support.servers import RELAY_KEY, UPSTREAM_KEY, ServerThread
from tests.support.tool_calls import TOOLS, tool_call
from tests.support.tool_clients import ERAS, Era, status_of, tool_client

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),  # said by the SDK, on videos
]

DOCUMENT = read_yaml(ROOT / "spec" / f"{ACTIONS}.yaml")
# Read without the project's own model of a document: that is what the tools are made with.
OPERATIONS: dict[str, dict[str, Any]] = {
    node["operationId"]: {"method": method, **node}
    for item in DOCUMENT["paths"].values()
    for method, node in item.items()
    if isinstance(node, dict) and "operationId" in node
}
ADDED = "retrieveModel"
_ADDED_TO_FULL = """
      operationId: retrieveModel
      x-policy-bucket: ACTIONS_DIRECT
      summary: Get a model.
      tags: [Models]
      responses:
        "200": {$ref: "#/components/responses/Model"}
        default: {$ref: "#/components/responses/Error"}
      security:
        - relayBearer: [canonical]
        - relayKey: [canonical]
        - relayBearer: [actions]
        - relayKey: [actions]
"""
_ADDED_TO_ACTIONS = """
  /v1/models/{model}:
    get:
      operationId: retrieveModel
      x-policy-bucket: ACTIONS_DIRECT
      x-openai-isConsequential: false
      summary: Get one model.
      description: Call it when the user names a model.
      tags: [Models]
      parameters:
        - name: model
          in: path
          required: true
          description: Its id.
          schema: {type: string}
      responses:
        "200":
          description: The model.
          content:
            application/json:
              schema: {type: object, required: [id], properties: {id: {type: string}}}
  # ── Files ──"""


async def listed(relay_url: str, headers: dict[str, str], era: Era = "modern") -> dict[str, Tool]:
    """The tools of a relay by name, in their order."""
    async with tool_client(relay_url, headers, era) as client:
        return {tool.name: tool for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize("era", ERAS)
async def test_the_tools_are_the_operations_of_the_actions_document(era: Era, running: FileRelay) -> None:
    """Name for name, in the document's order, described in its words, in both versions of the protocol."""
    tools = await listed(running.relay.url, running.relay.headers, era)
    assert list(tools) == list(OPERATIONS)
    for name, node in OPERATIONS.items():
        assert tools[name].description == f"{node['summary']} {node.get('description', '')}".strip()
        assert tools[name].title == node["summary"].rstrip(".")


@pytest.mark.parametrize("key", ["actions", "proxy", "canonical", "assistant"])
async def test_every_key_that_opens_the_tools_is_shown_all(key: str, running: FileRelay) -> None:
    """What each key may call is decided when it calls; the list is the same, so that it may be kept."""
    assert list(await listed(running.relay.url, running.keys[key].headers)) == list(OPERATIONS)


@pytest.mark.parametrize("era", ERAS)
async def test_every_tool_says_what_it_takes_and_gives(era: Era, running: FileRelay) -> None:
    """Schemas are valid JSON Schema 2020-12: a closed object goes in, an object comes out."""
    for tool in (await listed(running.relay.url, running.relay.headers, era)).values():
        jsonschema_rs.meta.validate(tool.input_schema)
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert set(tool.input_schema["required"]) <= set(tool.input_schema["properties"])
        assert tool.output_schema is not None
        jsonschema_rs.meta.validate(tool.output_schema)
        assert tool.output_schema["type"] == "object"


@pytest.mark.parametrize("era", ERAS)
async def test_every_tool_says_what_it_may_do(era: Era, running: FileRelay) -> None:
    """Nothing is left to a client's guess: each hint is there, and none calls a change harmless."""
    for name, tool in (await listed(running.relay.url, running.relay.headers, era)).items():
        hints = tool.annotations
        assert hints is not None
        for hint in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint):
            assert isinstance(hint, bool), name
        assert hints.read_only_hint is (OPERATIONS[name]["method"] == "get"), name
        assert not (hints.read_only_hint and hints.destructive_hint), name
        if OPERATIONS[name]["method"] == "delete":
            assert hints.destructive_hint, name


@pytest.mark.parametrize("era", ERAS)
async def test_every_tool_can_be_called(era: Era, offered: FileRelay) -> None:
    """The official client calls each of them, with an assistant's key, and takes what it is answered."""
    relay = offered.relay
    with openai.OpenAI(base_url=relay.base_url, api_key=relay.key, max_retries=0, timeout=10) as team:
        async with tool_client(relay.url, offered.keys["assistant"].headers, era) as client:
            for tool in TOOLS:
                result = await client.call_tool(tool.name, tool_call(tool, team, offered.files))
                assert (status_of(result), result.is_error) == (200, False), tool.name
                assert isinstance(result.structured_content, dict), tool.name


@pytest.fixture
def grown(tmp_path: Path, upstream_server: ServerThread) -> Iterator[ServerThread]:
    """A relay of this very code, on a copy of the contract in which assistants have one operation more."""
    (tmp_path / "spec").mkdir()
    for name in (f"{FULL}.yaml", f"{ACTIONS}.yaml", "policy.schema.yaml"):
        shutil.copyfile(ROOT / "spec" / name, tmp_path / "spec" / name)
    full, actions = (tmp_path / "spec" / f"{name}.yaml" for name in (FULL, ACTIONS))
    start = full.read_text(encoding="utf-8").index(f"      operationId: {ADDED}\n")
    old = full.read_text(encoding="utf-8")[start:]
    replace_once(full, old[: old.index("\n  /")], _ADDED_TO_FULL.strip("\n"))
    replace_once(actions, "\n  # ── Files ──", _ADDED_TO_ACTIONS)
    for name in (FULL, ACTIONS):
        content = render_openapi_json(read_contract(tmp_path, name))
        (tmp_path / f"{name}.json").write_text(content, encoding="utf-8")
    settings = {
        "OPENAI_API_KEY": UPSTREAM_KEY,
        "OPENAI_BASE_URL": f"{upstream_server.url}/v1",
        "RELAY_KEY": RELAY_KEY,
    }
    with ServerThread(create_app(create_services(Settings.model_validate(settings), tmp_path))) as relay:
        yield relay


async def test_an_operation_more_in_the_contract_is_a_tool_more(
    grown: ServerThread, upstream: SimulatedUpstream
) -> None:
    """No line of code knows the tools: who adds an operation for assistants has added its tool."""
    headers = {"Authorization": f"Bearer {RELAY_KEY}"}
    assert ADDED not in OPERATIONS
    tools = await listed(grown.url, headers)
    assert set(tools) == {*OPERATIONS, ADDED}
    assert tools[ADDED].description == "Get one model. Call it when the user names a model."
    async with tool_client(grown.url, headers) as client:
        result = await client.call_tool(ADDED, {"model": "gpt-6-luna"})
    assert (status_of(result), result.is_error) == (200, False)
    assert result.structured_content is not None
    assert result.structured_content["object"] == "model"
    assert [record.operation_id for record in upstream.recorder.requests] == [ADDED]
