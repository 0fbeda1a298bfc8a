"""
The MCP Inspector's command line in front of a real relay, over HTTP and through `relay mcp`.

Not for: what a call answers in comparison with its HTTP operation, and messages that no client of repute would send.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import openai
import pytest

from codegen.contract import ACTIONS, Scope, load_contract
from codegen.tools import Tool
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.file_relay import FileRelay, running_file_relay
from tests.support.inspector import CLOSED, NO_ACCESS, TOOL_ERROR, Inspected, Inspector, over_http, over_stdio
from tests.support.servers import ServerThread
from tests.support.tool_calls import TOOLS, call_over_http, tool_call

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),  # said by the SDK, on videos
]

NAMES = [operation.id for operation in load_contract(GENERATED, ACTIONS)]
PROCESSES = 4  # at a time; each spends most of its second on starting
# The Inspector's own choice over HTTP, the newer protocol over the bridge: each is heard on one of the ways.
WAYS: dict[str, tuple[Callable[[str, str], dict[str, Any]], str]] = {
    "http": (over_http, "legacy"),
    "stdio": (over_stdio, "modern"),
}


@dataclass(frozen=True)
class Inspection:
    """
    All tools, called once over one of the ways.

    Args:
        upstream: How often each operation of the upstream was called by them.
    """

    key: str
    listed: Inspected
    called: Mapping[str, Inspected]
    upstream: Counter[str | None]


@pytest.fixture(scope="module")
def office(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """A relay that fetches files from one server on loopback."""
    with running_file_relay(tmp_path_factory.mktemp("inspector"), upstream_server.url) as office:
        yield office


@pytest.fixture(scope="module")
def team(office: FileRelay) -> Iterator[openai.OpenAI]:
    """Makes what the calls name."""
    with openai.OpenAI(base_url=office.relay.base_url, api_key=office.relay.key, max_retries=0, timeout=10) as team:
        yield team


@pytest.fixture(scope="module", params=WAYS)
def inspection(
    request: pytest.FixtureRequest,
    office: FileRelay,
    team: openai.OpenAI,
    upstream_app: SimulatedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Inspection:
    """What the Inspector says after one call of each tool."""
    server, era = WAYS[request.param]
    key = office.keys["assistant"].text
    inspector = Inspector(tmp_path_factory.mktemp("home"), server(office.relay.url, key), era)
    office.files.forget()
    calls = [(tool.name, tool_call(tool, team, office.files)) for tool in TOOLS]
    upstream_app.recorder.clear()
    with ThreadPoolExecutor(PROCESSES) as pool:
        listed = pool.submit(inspector.list_tools)
        called = pool.map(lambda call: (call[0], inspector.call_tool(*call)), calls)
        return Inspection(key, listed.result(), dict(called), _operations(upstream_app))


def test_the_tools_are_those_of_the_contract(inspection: Inspection) -> None:
    """They are listed name for name in the contract's order, with schemas that no client would refuse."""
    assert inspection.listed.exit_code == 0, inspection.listed.printed
    assert [tool["name"] for tool in inspection.listed.result["tools"]] == NAMES


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_each_tool_is_called(inspection: Inspection, tool: Tool) -> None:
    """Called with the contract's example, each tool answers without an error, in the shape that it promises."""
    called = inspection.called[tool.name]
    assert called.exit_code == 0, called.printed[:2000]
    assert not called.result.get("isError")
    assert called.result["content"]
    assert tool.output_schema is not None
    jsonschema_rs.validator_for(dict(tool.output_schema)).validate(called.result["structuredContent"])


def test_the_upstream_hears_what_it_would_hear_over_http(
    inspection: Inspection, office: FileRelay, team: openai.OpenAI, upstream_app: SimulatedUpstream
) -> None:
    """The calls of the tools make as many calls of the upstream as the same requests without MCP."""
    office.files.forget()
    calls = [(tool, tool_call(tool, team, office.files)) for tool in TOOLS]
    upstream_app.recorder.clear()
    with office.client("assistant") as client:
        for tool, arguments in calls:
            call_over_http(tool, arguments, client).raise_for_status()
    assert inspection.upstream == _operations(upstream_app)


def test_no_key_is_printed(inspection: Inspection) -> None:
    """Neither answers nor messages repeat the key."""
    for one in (inspection.listed, *inspection.called.values()):
        assert inspection.key not in one.printed


@pytest.mark.parametrize(("way", "era"), [("http", "modern"), ("stdio", "legacy")])
def test_both_protocols_list_the_same(way: str, era: str, office: FileRelay, tmp_path: Path) -> None:
    """The tools are listed in the other version of the protocol as well."""
    server, _ = WAYS[way]
    listed = Inspector(tmp_path, server(office.relay.url, office.keys["assistant"].text), era).list_tools()
    assert listed.exit_code == 0, listed.printed
    assert [tool["name"] for tool in listed.result["tools"]] == NAMES


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_key_opens_nothing(way: str, office: FileRelay, upstream: SimulatedUpstream, tmp_path: Path) -> None:
    """The Inspector fails, the relay's or the bridge's reason is printed, and the upstream hears nothing."""
    server, era = WAYS[way]
    called = Inspector(tmp_path, server(office.relay.url, "rk_unknown"), era).call_tool("listModels", {})
    assert called.exit_code == (NO_ACCESS if way == "http" else CLOSED)
    assert "The relay key is not valid" in called.printed
    assert called.result == {}
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_beyond_the_scope_is_refused(
    way: str, office: FileRelay, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """A key without the scope `proxy` gets the relay's own error as the answer of the proxy's tool."""
    server, era = WAYS[way]
    inspector = Inspector(tmp_path, server(office.relay.url, office.keys[Scope.ACTIONS.value].text), era)
    called = inspector.call_tool("forwardRequest", {"method": "GET", "path": "/v1/batches"})
    assert called.exit_code == TOOL_ERROR, called.printed
    assert called.result["isError"]
    assert "insufficient_scope" in called.result["content"][0]["text"]
    assert upstream.recorder.count == 0


def _operations(upstream: SimulatedUpstream) -> Counter[str | None]:
    return Counter(record.operation_id for record in upstream.recorder.requests)
