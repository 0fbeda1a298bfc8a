import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from mcp import Client
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.memory import create_client_server_memory_streams
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    Icon,
    ListToolsResult,
    PaginatedRequestParams,
    RequestParamsMeta,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)

from handlers.cli import main
from handlers.mcp_bridge import bridge_server

ERAS = ("legacy", "auto")
KEY = "rk_made-up-canary-0123456789"
TOOLS = [
    Tool(
        name="ask",
        title="Ask",
        description="Asks.",
        input_schema={"type": "object", "properties": {"a": {"type": "string", "default": None}}},
        output_schema={"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
        annotations=ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True),
        _meta={"example/cost": 1},
    ),
    Tool(name="second", input_schema={"type": "object"}),
]
RESULT = CallToolResult(
    content=[
        TextContent(type="text", text='{"a":null}', _meta={"example/part": 1}),
        EmbeddedResource(
            type="resource", resource=TextResourceContents(uri="file:///a.txt", mime_type="text/plain", text="a")
        ),
    ],
    structured_content={"a": None, "b": [None, {"c": None}]},
    _meta={"example/status": 200},
)
FAILED = CallToolResult(content=[TextContent(type="text", text="No.")], is_error=True, _meta={"example/status": 404})


class Relay:
    """
    Stands for the relay; does what the test says.

    Args:
        call: Answers a call.
    """

    def __init__(self, call: Callable[[Any, CallToolRequestParams], Any] | None = None) -> None:
        self.calls: list[CallToolRequestParams] = []
        self.contexts: list[Any] = []
        self.cursors: list[str | None] = []
        self._call = call
        self.server: Server[Any] = Server(
            "the relay itself",
            version="1.2.3",
            title="The relay",
            description="A relay.",
            website_url="https://relay.example.com",
            icons=[Icon(src="https://relay.example.com/icon.png")],
            instructions="Ask politely.",
            on_list_tools=self._list,
            on_call_tool=self._answer,
        )

    async def _list(self, context: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        del context
        cursor = params.cursor if params else None
        self.cursors.append(cursor)
        return ListToolsResult(tools=TOOLS[1:] if cursor else TOOLS[:1], next_cursor=None if cursor else "more")

    async def _answer(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        self.calls.append(params)
        self.contexts.append(context)
        result = self._call(context, params) if self._call else RESULT
        return await result if asyncio.iscoroutine(result) else result


@asynccontextmanager
async def running(server: Server[Any]) -> AsyncIterator[Any]:
    """A server at the other end of two streams in memory, as over standard input and output."""
    async with create_client_server_memory_streams() as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(server.run, *theirs, server.create_initialization_options())
        yield ours
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def through_bridge(relay: Relay, front: str, back: str) -> AsyncIterator[Client]:
    """An assistant that speaks one era, before the bridge, which speaks another with the relay."""
    async with (
        Client(running(relay.server), mode=back, cache=None) as inner,
        Client(running(bridge_server(inner)), mode=front, cache=None) as assistant,
    ):
        yield assistant


@pytest.mark.parametrize("back", ERAS)
@pytest.mark.parametrize("front", ERAS)
class TestBothEras:
    async def test_the_relay_introduces_itself(self, front: str, back: str) -> None:
        """Name, version, instructions and all else that a server says about itself are the relay's."""
        relay = Relay()
        async with through_bridge(relay, front, back) as assistant:
            assert assistant.server_info == relay.server.server_info
            assert assistant.instructions == "Ask politely."
            assert assistant.server_capabilities.tools is not None
            assert assistant.server_capabilities.prompts is None
            assert assistant.server_capabilities.resources is None

    async def test_the_list_of_tools_is_the_relay_s_own(self, front: str, back: str) -> None:
        """Descriptions, schemas, hints and metadata arrive whole, page by page, and every time anew."""
        relay = Relay()
        async with through_bridge(relay, front, back) as assistant:
            first = await assistant.list_tools()
            second = await assistant.list_tools(cursor=first.next_cursor)
            assert [*first.tools, *second.tools] == TOOLS
            assert second.next_cursor is None
            await assistant.list_tools()
        assert relay.cursors == [None, "more", None]

    async def test_a_result_passes_unchanged(self, front: str, back: str) -> None:
        """Texts, resources, structured content with its nulls, and metadata are those of the relay."""
        relay = Relay()
        async with through_bridge(relay, front, back) as assistant:
            result = await assistant.session.call_tool("ask", {"a": None, "b": [None], "ü": 1.5})
        assert (result.content, result.structured_content) == (RESULT.content, RESULT.structured_content)
        assert result.is_error is False
        assert (result.meta or {})["example/status"] == 200
        assert relay.calls[0].name == "ask"
        assert relay.calls[0].arguments == {"a": None, "b": [None], "ü": 1.5}

    async def test_a_failed_call_passes_unchanged(self, front: str, back: str) -> None:
        """A tool's error is the tool's, not the bridge's."""
        async with through_bridge(Relay(lambda *_: FAILED), front, back) as assistant:
            result = await assistant.call_tool("second", {})
        assert (result.content, result.is_error) == (FAILED.content, True)
        assert (result.meta or {})["example/status"] == 404

    async def test_an_error_of_the_protocol_passes_unchanged(self, front: str, back: str) -> None:
        """Code, message and data are those that the relay has chosen."""

        def refuse(*_: Any) -> CallToolResult:
            raise MCPError(-32602, "Unknown tool.", {"known": ["ask"]})

        async with through_bridge(Relay(refuse), front, back) as assistant:
            with pytest.raises(MCPError) as caught:
                await assistant.call_tool("third", {})
        assert caught.value.error.model_dump() == {
            "code": -32602,
            "message": "Unknown tool.",
            "data": {"known": ["ask"]},
        }

    async def test_progress_passes_as_it_comes(self, front: str, back: str) -> None:
        """Each report arrives before the result, in order, while the call still runs."""
        arrived = asyncio.Event()
        reports: list[tuple[float, float | None, str | None]] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            reports.append((progress, total, message))
            arrived.set()

        async def report(context: Any, _: CallToolRequestParams) -> CallToolResult:
            await context.session.report_progress(1, 3, "a third")
            async with asyncio.timeout(5):
                await arrived.wait()  # the call cannot end before its first report has arrived
            await context.session.report_progress(2.5, message="nearly")
            return FAILED

        async with through_bridge(Relay(report), front, back) as assistant:
            await assistant.call_tool("second", {}, progress_callback=note)
        assert reports == [(1, 3, "a third"), (2.5, None, "nearly")]

    async def test_progress_is_asked_for_only_where_it_was(self, front: str, back: str) -> None:
        """A relay that is not asked for reports can answer in one piece."""
        relay = Relay()
        async with through_bridge(relay, front, back) as assistant:
            await assistant.session.call_tool("ask", {})
        assert "progress_token" not in (relay.contexts[0].meta or {})

    async def test_metadata_of_a_call_passes_without_what_the_eras_put_there(self, front: str, back: str) -> None:
        """What an assistant says beside its arguments reaches the relay, who sees the bridge as its client."""
        relay, said = Relay(), cast("RequestParamsMeta", {"example/trace": "abc"})
        async with through_bridge(relay, front, back) as assistant:
            await assistant.session.call_tool("ask", {}, meta=said)
        meta: Any = relay.contexts[0].meta
        assert meta["example/trace"] == "abc"
        assert ("io.modelcontextprotocol/clientInfo" in meta) == (back == "auto")

    async def test_a_cancelled_call_cancels_the_relay_s(self, front: str, back: str) -> None:
        """Whoever gives up takes the relay's call along."""
        running, ended = asyncio.Event(), asyncio.Event()

        async def wait(*_: Any) -> CallToolResult:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError("nobody sets this event")

        async with through_bridge(Relay(wait), front, back) as assistant, asyncio.timeout(5):
            call = asyncio.create_task(assistant.call_tool("second", {}))
            await running.wait()
            call.cancel()
            await ended.wait()
            await asyncio.gather(call, return_exceptions=True)
            assert (await assistant.list_tools()).tools == TOOLS[:1]


async def test_a_relay_that_went_away_is_said_in_words() -> None:
    """An assistant learns that its call may have been done, and what the SDK knows about the reason."""

    def close(*_: Any) -> CallToolResult:
        raise MCPError(CONNECTION_CLOSED, "SSE stream ended without a response")

    async with through_bridge(Relay(close), "auto", "auto") as assistant:
        with pytest.raises(MCPError, match=r"went away before the answer \(SSE stream.* may have been done") as caught:
            await assistant.call_tool("second", {})
    assert caught.value.code == CONNECTION_CLOSED


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `relay` inside this process where it asks nobody: exit code, what it printed, what it complained about."""
    for name in [name for name in os.environ if name.startswith("RELAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["relay", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        code = caught.value.code
        return code if isinstance(code, int) else 0, printed.out, printed.err

    return run


def test_the_command_explains_itself(relay: Callable[..., tuple[int, str, str]]) -> None:
    """`relay mcp --help` names the settings, the scope, and that the key is no argument."""
    code, shown, complaints = relay("mcp", "--help")
    assert (code, complaints) == (0, "")
    for word in ("RELAY_MCP_URL", "RELAY_MCP_KEY", "--url", "--key-file", "--ca-file", "`actions`", "never from an"):
        assert word in " ".join(shown.split())


@pytest.mark.parametrize(
    "arguments, environment, words",
    [
        ((), {"RELAY_MCP_KEY": KEY}, "no address"),
        ((), {"RELAY_MCP_KEY": KEY, "RELAY_MCP_URL": ""}, "no address"),
        (("--url", "relay"), {"RELAY_MCP_KEY": KEY}, "https address"),
        (("--url", "http://relay.example.com"), {"RELAY_MCP_KEY": KEY}, "must begin with https://"),
        (("--url", "https://relay.example.com"), {}, "no key"),
        (("--url", "https://relay.example.com"), {"RELAY_MCP_KEY": ""}, "no key"),
        (("--url", "https://relay.example.com"), {"RELAY_MCP_KEY": f"{KEY} {KEY}"}, "RELAY_MCP_KEY: must hold"),
        (("--url", "https://relay.example.com", "--key-file", "absent"), {}, "absent: cannot be read"),
        (("--url", "https://relay.example.com", "--ca-file", "absent"), {"RELAY_MCP_KEY": KEY}, "--ca-file"),
        (("--url", "https://relay.example.com", "--ca-file", "pyproject.toml"), {"RELAY_MCP_KEY": KEY}, "PEM"),
    ],
)
def test_a_start_that_cannot_work_ends_with_one_line(
    relay: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    """What is missing or malformed is said on standard error in one line, with exit code 2, and nobody is asked."""
    code, shown, complaints = relay("mcp", *arguments, **environment)
    assert (code, shown) == (2, "")
    assert complaints.startswith("relay: ")
    assert complaints.count("\n") == 1
    assert words in complaints
    assert KEY not in complaints


def test_the_key_is_no_argument(relay: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Others on the machine can see the arguments of a command, so there is none for the key."""
    del tmp_path
    code, shown, complaints = relay("mcp", "--key", KEY)
    assert (code, shown) == (2, "")
    assert "No such option" in complaints
    assert KEY not in complaints
