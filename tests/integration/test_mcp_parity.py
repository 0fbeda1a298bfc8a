"""
A call as a tool is the same call as over HTTP: to the upstream, in what it answers, and in how it is refused.

Two differences are by design, and have tests of their own: the arguments of a tool are closed, while the body of a
mirrored operation lets unknown fields pass; and headers of the client other than its name stay behind.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
from mcp_types import ResourceLink

from codegen.contract import Scope
from codegen.tools import Argument, Place, Tool
from handlers.runtime.tool_results import REQUEST_ID, RETRY_AFTER
from handlers.simulated_upstream import Fault, SimulatedUpstream
from tests.support.file_relay import FileRelay, running_file_relay
from tests.support.servers import ServerThread
from tests.support.tool_calls import FULL_CONTRACT, TOOLS, call_over_http, tool_call
from tests.support.tool_clients import (
    ERAS,
    Era,
    answer_of,
    body_of,
    call,
    status_of,
    tool_client,
)
from tests.support.tool_parity import CLIENT_NAME, Sides, both_sides, heard, links_in, without_the_moment

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),  # said by the SDK, on videos
]

BY_NAME = {tool.name: tool for tool in TOOLS}
IN_PATHS = [tool for tool in TOOLS if any(argument.place is Place.PATH for argument in tool.arguments)]
CANARY = "canary-4f1d"
WRONG_VALUES: tuple[Any, ...] = ("x", 7, True, {"a": 1}, [[7]])

PATH_VALUES = (
    *("..", ".", "a/b", "%2e%2e", "%2F", "a\\b", "a?b=c", "a#b", "a;b", "a b", "ä😀", "a\x00b", "{response_id}"),
    "x" * 300,
)
QUERIES: tuple[dict[str, Any], ...] = (
    {"limit": 20, "order": None},
    {"limit": 20.0},
    {"limit": "20"},
    {"limit": 20, "after": "a b&c=d#e"},
    {"limit": 20, "after": "ä😀"},
    {"limit": 20, "after": ""},
    {"limit": [20, 30]},
    {"limit": 20, "after": ["file-1", "file-2"]},
    {"limit": 20, "after": []},
    {"limit": 20, "after": 7},
    {"limit": 20, "after": True},
    {"limit": 2.5},
    {"limit": -1},
    {"limit": 10**30},
)
BODIES: tuple[dict[str, Any], ...] = (
    {"dimensions": None},
    {"dimensions": 2**70},
    {"dimensions": 8.0},
    {"input": ["ä", "😀"]},
    {"input": ""},
    {},
)

MakeCall = Callable[[Tool], dict[str, Any]]
OpenSides = Callable[..., AbstractAsyncContextManager[Sides]]


@pytest.fixture(scope="module")
def team(running: FileRelay) -> Iterator[openai.OpenAI]:
    """Makes what the calls name."""
    with openai.OpenAI(base_url=running.relay.base_url, api_key=running.relay.key, max_retries=0, timeout=10) as team:
        yield team


@pytest.fixture
def make_call(offered: FileRelay, team: openai.OpenAI) -> MakeCall:
    """Makes the arguments of a valid call and what they name."""
    return lambda tool: tool_call(tool, team, offered.files)


@pytest.fixture
def sides(offered: FileRelay, upstream: SimulatedUpstream) -> OpenSides:
    """Opens both ways, with the key that assistants have where no other is named."""

    def opened(era: Era = "modern", key: str = "assistant") -> AbstractAsyncContextManager[Sides]:
        return both_sides(offered.relay.url, offered.keys[key].headers, upstream, era)

    return opened


def dummy_arguments(tool: Tool) -> dict[str, Any]:
    """What is required, without a thing that it names; enough for what is refused before a body is looked at."""
    return {argument.name: "x" for argument in tool.arguments if argument.required}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
async def test_a_tool_does_what_its_operation_does(
    tool: Tool, era: Era, sides: OpenSides, make_call: MakeCall, upstream: SimulatedUpstream
) -> None:
    """The upstream is asked the same, and the client is answered the same, status and request id included."""
    first, second = make_call(tool), make_call(tool)
    async with sides(era) as both:
        upstream.recorder.clear()
        reply = call_over_http(tool, first, both.over_http)
        asked_over_http = [heard(record) for record in upstream.recorder.requests]
        upstream.recorder.clear()
        result = await both.tools.call_tool(tool.name, second)
        asked_by_the_tool = [heard(record) for record in upstream.recorder.requests]
        links = [block for block in result.content if isinstance(block, ResourceLink)]
        for link in links:
            assert both.over_http.get(link.uri).status_code == 200
    assert asked_over_http
    assert asked_by_the_tool == asked_over_http
    assert reply.status_code == status_of(result) == 200
    assert not result.is_error
    body = reply.json()
    assert without_the_moment(body_of(result)) == without_the_moment(body)
    assert (result.meta or {})[REQUEST_ID]
    assert [(link.name, link.mime_type, link.size) for link in links] == [
        (link["name"], link["mime_type"], link["bytes"]) for link in links_in(body)
    ]


async def test_what_a_client_says_beside_its_arguments_stays_behind(
    offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Of the headers of a message none but the client's name goes on, whatever an HTTP call would pass on."""
    more = {"OpenAI-Beta": CANARY, "Idempotency-Key": CANARY, "X-Client-Request-Id": CANARY, "Cookie": f"a={CANARY}"}
    headers = {**offered.keys["assistant"].headers, "User-Agent": CLIENT_NAME, "Accept-Language": CANARY, **more}
    async with tool_client(offered.relay.url, headers) as tools:
        await tools.call_tool("listModels")
    (record,) = upstream.recorder.requests
    assert {name for name, _ in record.headers} == {"host", "user-agent", "authorization"}
    assert record.header("user-agent") == CLIENT_NAME


@pytest.mark.parametrize("scope", [Scope.ACTIONS, Scope.PROXY, Scope.CANONICAL])
async def test_a_key_opens_the_same_tools_as_operations(scope: Scope, sides: OpenSides) -> None:
    """What a key's scope does not open is refused in the same words, and the upstream hears nothing."""
    closed = [tool for tool in TOOLS if scope not in FULL_CONTRACT.operations[tool.operation_id].scopes]
    assert closed
    async with sides(key=scope) as both:
        for tool in closed:
            refused = await both.tool_refusal(tool.name, dummy_arguments(tool))
            assert refused == both.http_refusal(tool, dummy_arguments(tool)), tool.name
            assert (refused.status, refused.code, refused.upstream) == (403, "insufficient_scope", [])


async def test_a_missing_argument_is_refused_alike(sides: OpenSides, make_call: MakeCall) -> None:
    """
    Without each of a tool's required arguments in turn, both ways say the same.

    Over HTTP a missing value of the path is another path; a tool names it. What only the Actions document requires of a
    mirrored operation is not asked for, over HTTP neither.
    """
    required = [(tool, argument) for tool in TOOLS for argument in tool.arguments if argument.required]
    async with sides() as both:
        for tool, missing in required:
            rest = {name: value for name, value in make_call(tool).items() if name != missing.name}
            refused = await both.tool_refusal(tool.name, rest)
            if missing.place is Place.PATH:
                assert (refused.status, refused.code) == (400, "invalid_parameter"), tool.name
                assert refused.error["param"] == missing.name
            else:
                assert refused == both.http_refusal(tool, rest), (tool.name, missing.name)
            assert refused.upstream == [] or FULL_CONTRACT.operations[tool.operation_id].mirrored


async def test_a_value_of_the_wrong_kind_is_refused_alike(sides: OpenSides, make_call: MakeCall) -> None:
    """Two values of each argument that do not fit end the same on both ways, with the argument's name."""
    calls = [(tool, make_call(tool)) for tool in TOOLS]
    async with sides() as both:
        both.upstream.faults.add(Fault(status=418))  # what gets through on both ways does nothing
        for tool, arguments in calls:
            for argument in tool.arguments:
                for value in wrong_values(tool, argument):
                    wrong = {**arguments, argument.name: value}
                    refused = await both.tool_refusal(tool.name, wrong)
                    assert refused == both.http_refusal(tool, wrong), (tool.name, argument.name, value)


def wrong_values(tool: Tool, argument: Argument) -> list[Any]:
    """Two values that the tool's schema does not allow, and that an HTTP request can say."""
    validator = jsonschema_rs.validator_for({**tool.input_schema, "required": []})
    values = [v for v in WRONG_VALUES if argument.place is Place.BODY or isinstance(v, str | int)]
    if argument.place is Place.PATH:
        return []
    return [value for value in values if not validator.is_valid({argument.name: value})][:2]


async def test_an_unknown_argument_is_refused(sides: OpenSides) -> None:
    """
    The arguments of a tool are closed: its schema says so.

    Over HTTP the relay's own operations refuse an unknown field as well; a mirrored one lets it pass, since upstream
    may know it already.
    """
    async with sides() as both:
        for tool in TOOLS:
            refused = await both.tool_refusal(tool.name, {**dummy_arguments(tool), CANARY: CANARY})
            assert (refused.status, refused.code, refused.upstream) == (400, "invalid_body", []), tool.name
            assert CANARY not in json.dumps(refused.error)


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_an_error_of_the_upstream_is_passed_on_alike(
    status: int, sides: OpenSides, make_call: MakeCall, upstream: SimulatedUpstream
) -> None:
    """Every tool gives the error that its operation gives, and says when to try again where that does."""
    body = {"error": {"message": "no", "type": "of_the_upstream", "param": "a.b", "code": "c"}}
    fault = Fault(status=status, body=body, headers={"retry-after": "17", "x-request-id": "req_1"})
    async with sides() as both:
        for tool in TOOLS:
            first, second = make_call(tool), make_call(tool)
            upstream.faults.add(fault)
            reply = call_over_http(tool, first, both.over_http)
            result = await both.tools.call_tool(tool.name, second)
            upstream.faults.clear()
            assert status_of(result) == reply.status_code, tool.name
            assert body_of(result) == reply.json(), tool.name
            assert result.is_error is (reply.status_code >= 400)
            meta = result.meta or {}
            assert meta.get(RETRY_AFTER) == reply.headers.get("retry-after"), tool.name
            assert meta[REQUEST_ID].partition("_")[0] == reply.headers["x-request-id"].partition("_")[0]


@pytest.fixture(scope="module")
def hasty(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """A relay that waits no longer than a second for a byte of the upstream."""
    with running_file_relay(
        tmp_path_factory.mktemp("hasty"), upstream_server.url, {"RELAY_IDLE_TIMEOUT_SECONDS": "1"}
    ) as relay:
        yield relay


async def test_a_silent_upstream_ends_alike(hasty: FileRelay, team: openai.OpenAI, upstream: SimulatedUpstream) -> None:
    """A tool waits no longer than its operation, and then says the same."""
    calls = [(tool, tool_call(tool, team, hasty.files), tool_call(tool, team, hasty.files)) for tool in TOOLS]
    upstream.faults.add(Fault(silent=True))
    async with both_sides(hasty.relay.url, hasty.keys["assistant"].headers, upstream) as both:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(TOOLS)) as pool:
            replies, results = await asyncio.gather(
                asyncio.gather(
                    *(loop.run_in_executor(pool, call_over_http, t, a, both.over_http) for t, a, _ in calls)
                ),
                asyncio.gather(*(both.tools.call_tool(tool.name, arguments) for tool, _, arguments in calls)),
            )
    for tool, result, reply in zip(TOOLS, results, replies, strict=True):
        assert (status_of(result), body_of(result)) == (reply.status_code, reply.json()), tool.name
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "upstream_timeout"), tool.name


async def test_a_value_in_the_path_ends_alike(sides: OpenSides, make_call: MakeCall) -> None:
    """Whatever the value, a tool reaches its own operation or none, as the same value over HTTP does."""
    calls = [(tool, make_call(tool)) for tool in IN_PATHS]
    async with sides() as both:
        for tool, arguments in calls:
            arguments.pop("idempotency_key", None)  # or the second call would get the first one's reply
            own = FULL_CONTRACT.operations[tool.operation_id]
            for value in PATH_VALUES:
                wrong = {**arguments, path_argument(tool): value}
                by_tool = await both.tool_refusal(tool.name, wrong)
                assert by_tool == both.raw_refusal(tool, wrong), (tool.name, value)
                assert not own.mirrored or {one["operation"] for one in by_tool.upstream} <= {own.id}, value


async def test_a_value_that_spells_another_path_ends_there(sides: OpenSides) -> None:
    """
    The contract's own words, where a tool has its value, lead to no operation.

    Over HTTP such a path is another operation's, with whatever methods that has.
    """
    met = 0
    async with sides() as both:
        for tool in IN_PATHS:
            name = path_argument(tool)
            before, _, after = tool.path.partition(f"{{{name}}}")
            beside = {
                o.path.removeprefix(before).removesuffix(after) for o in FULL_CONTRACT if o.path.startswith(before)
            }
            for word in sorted(word for word in beside if "{" not in word and "/" not in word):
                refused = await both.tool_refusal(tool.name, {**dummy_arguments(tool), name: word})
                assert (refused.status, refused.code, refused.upstream) == (404, "unknown_operation", []), word
                met += 1
    assert met


def path_argument(tool: Tool) -> str:
    """The one argument that stands in the path."""
    (name,) = (argument.name for argument in tool.arguments if argument.place is Place.PATH)
    return name


async def test_what_no_path_can_say_is_refused(sides: OpenSides) -> None:
    """An empty value, null, or one that is no text: over HTTP there is no such request; a tool names the argument."""
    values: tuple[Any, ...] = ("", None, 7, ["a"], {"a": "b"})
    async with sides() as both:
        for tool, value in [(tool, value) for tool in IN_PATHS for value in values]:
            refused = await both.tool_refusal(tool.name, {**dummy_arguments(tool), path_argument(tool): value})
            assert (refused.status, refused.code, refused.upstream) == (400, "invalid_parameter", []), tool.name
            assert refused.error["param"] == path_argument(tool)


async def test_a_query_says_the_same(sides: OpenSides) -> None:
    """Null is absent, a list is repeated, a number that is whole is written so; the upstream hears the same."""
    async with sides() as both:
        for arguments in QUERIES:
            said = {name: int(v) if v == 20.0 else v for name, v in arguments.items() if v is not None}
            by_tool = await both.tool_refusal("listFiles", arguments)
            assert by_tool == both.http_refusal(BY_NAME["listFiles"], said), arguments


async def test_a_body_says_the_same(sides: OpenSides) -> None:
    """Null stays null in a body, and numbers and texts stay what they are."""
    async with sides() as both:
        for more in BODIES:
            arguments = {"model": "text-embedding-3-small", "input": "x", **more}
            by_tool = await both.tool_refusal("createEmbedding", arguments)
            assert by_tool == both.http_refusal(BY_NAME["createEmbedding"], arguments), more


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (b'{"model":"m","input":"\\ud83d"}', "malformed_json"),
        (b'{"model":"m","input":"x","input":"y"}', "duplicate_key"),
        (b'{"model":"m","input":"' + b"\xff" + b'"}', "malformed_json"),
        (b'{"model":"m","input":' + b"[" * 300 + b"]" * 300 + b"}", "malformed_json"),
        (b'{"model":"m","input":NaN}', "malformed_json"),
    ],
    ids=["half a character", "a name twice", "no UTF-8", "too deep", "no number"],
)
def test_what_is_no_json_for_an_operation_is_none_in_a_message(
    arguments: bytes, code: str, era: Era, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """The message itself is refused as the body would be, before anything is called."""
    written = call("createEmbedding", {"at": 1}, era=era)
    content = json.dumps(written["json"]).encode().replace(b'{"at": 1}', arguments)
    headers = {**written["headers"], "Content-Type": "application/json"}
    as_message = assistant.post("/mcp", content=content, headers=headers)
    as_body = assistant.post("/v1/embeddings", content=arguments, headers={"Content-Type": "application/json"})
    assert as_message.status_code == as_body.status_code == 400
    assert as_message.json() == as_body.json()
    assert as_message.json()["error"]["code"] == code
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("era", ERAS)
def test_a_number_beyond_all_bounds_never_becomes_another(
    era: Era, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """`1e400` is refused: no body that is written anew can say it."""
    written = call("createEmbedding", {"model": "m", "input": "x", "dimensions": 8}, era=era)
    content = json.dumps(written["json"]).replace('"dimensions": 8', '"dimensions": 1e400')
    headers = {**written["headers"], "Content-Type": "application/json"}
    result = answer_of(assistant.post("/mcp", content=content, headers=headers))["result"]
    assert json.loads(result["content"][0]["text"])["error"]["code"] == "invalid_body"
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("era", ERAS)
async def test_the_words_of_an_upstream_make_no_link(era: Era, sides: OpenSides, upstream: SimulatedUpstream) -> None:
    """Metadata that looks like a file of the relay is passed on as it came, and nothing is made of it."""
    looks = {"url": "https://elsewhere.example/", "name": "a", "mime_type": "b", "bytes": "c", "expires_at": "d"}
    body = {"object": "list", "data": [], "metadata": looks, "openaiFileResponse": [looks]}
    upstream.faults.add(Fault("listModels", status=200, body=body))
    async with sides(era) as both:
        result = await both.tools.call_tool("listModels")
    assert result.structured_content == body
    assert len(result.content) == 1


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", ["listModels", "createResponse", "forwardRequest"])
async def test_a_long_answer_is_cut_alike(name: str, era: Era, sides: OpenSides, upstream: SimulatedUpstream) -> None:
    """Two megabytes for a key that opens nothing wider than `actions` or `proxy` come cut, as over HTTP."""
    calls: dict[str, dict[str, Any]] = {
        "createResponse": {"model": "gpt-6-luna", "input": "x"},
        "forwardRequest": {"method": "GET", "path": "/v1/batches"},
    }
    arguments = calls.get(name, {})
    upstream.faults.add(Fault(repeat_body_to_bytes=2_000_000))
    async with sides(era, key=Scope.PROXY if name == "forwardRequest" else Scope.ACTIONS) as both:
        result = await both.tools.call_tool(name, arguments)
        reply = call_over_http(BY_NAME[name], arguments, both.over_http)
    assert without_the_moment(body_of(result)) == without_the_moment(reply.json())
    assert reply.json()["truncated"] is True
