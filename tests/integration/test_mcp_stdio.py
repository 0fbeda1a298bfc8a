"""
`relay mcp` as assistants use it: the official client starts the command and speaks over its input and output.

Behind it a real relay and the simulated upstream; what arrives is compared with what the relay says over HTTP.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from codegen.contract import ACTIONS, Scope, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.file_relay import FileRelay
from tests.support.key_files import make_key, write_keys
from tests.support.mcp_command import TIMEOUT_SECONDS, assistant, environment, started
from tests.support.servers import RelayProcess, ServerThread, running_relay
from tests.support.tool_calls import TOOLS, tool_call
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),  # said by the SDK, on videos
]

ERAS = ("legacy", "auto")
END_SECONDS = 2.0  # then a client kills the command
QUESTION = {"model": "gpt-6-luna", "input": "Say hello."}
LARGE_BYTES = 3 * 2**20


@asynccontextmanager
async def over_http(relay: RelayProcess, mode: str = "auto") -> AsyncIterator[Client]:
    """The official client in front of the relay itself."""
    async with (
        httpx2.AsyncClient(headers=relay.headers, timeout=TIMEOUT_SECONDS, trust_env=False) as http,
        Client(
            streamable_http_client(f"{relay.url}/mcp", http_client=http, terminate_on_close=False),
            mode=mode,
            cache=None,
        ) as client,
    ):
        yield client


async def until_asked(upstream: SimulatedUpstream) -> None:
    """Return when the upstream has got a request."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not upstream.recorder.requests:
            await asyncio.sleep(0.005)


# ── What the relay says ────────────────────────────────


@pytest.mark.parametrize("mode", ERAS)
async def test_the_tools_are_the_operations_of_the_actions_document(
    mode: str, relay: RelayProcess, tmp_path: Path
) -> None:
    """An assistant sees each operation by its name, in order, and not one more; with all that the relay says of it."""
    async with assistant(tmp_path, environment(relay.url, relay.key), mode) as client:
        listed = await client.list_tools()
        introduced = (client.server_info, client.instructions, client.server_capabilities, client.protocol_version)
    assert [tool.name for tool in listed.tools] == [tool.name for tool in TOOLS]
    assert [tool.name for tool in listed.tools] == [operation.id for operation in load_contract(GENERATED, ACTIONS)]
    async with over_http(relay, mode) as client:
        direct = await client.list_tools()
        assert introduced == (
            client.server_info,
            client.instructions,
            client.server_capabilities,
            client.protocol_version,
        )
    assert listed.tools == direct.tools
    assert all(tool.annotations and tool.description for tool in listed.tools)
    assert any(tool.output_schema for tool in listed.tools)


async def test_every_tool_can_be_called(running: FileRelay, upstream: SimulatedUpstream, tmp_path: Path) -> None:
    """Each tool answers the contract's example over standard input and output; its result fits its schema."""
    upstream.recorder.clear()
    running.files.forget()
    key = running.keys["assistant"].text
    failed: dict[str, Any] = {}
    async with assistant(tmp_path, environment(running.relay.url, key)) as client:
        with openai.OpenAI(
            base_url=running.relay.base_url, api_key=running.relay.key, max_retries=0, timeout=10
        ) as team:
            calls = {tool.name: await asyncio.to_thread(tool_call, tool, team, running.files) for tool in TOOLS}
        for name, arguments in calls.items():
            result = await client.call_tool(name, arguments)  # the client holds it against the tool's schema
            if result.is_error or not result.content:
                failed[name] = result
    assert failed == {}
    assert len(calls) == len(TOOLS)


@pytest.mark.parametrize("mode", ERAS)
async def test_results_and_errors_are_those_of_the_relay(mode: str, relay: RelayProcess, tmp_path: Path) -> None:
    """A result, a failed call, a refused one and an error of the protocol are the same as over HTTP."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("listModels", {}),
        ("createModeration", {"input": "A relay passes a message on."}),
        ("getResponse", {"response_id": "resp_unknown"}),
        ("createEmbedding", {"model": "text-embedding-3-small"}),
        ("createEmbedding", {"colour": "blue"}),
        ("noSuchTool", {}),
    ]

    async def answers(client: Client) -> list[Any]:
        return [await answer(client, name, arguments) for name, arguments in calls]

    async with assistant(tmp_path, environment(relay.url, relay.key), mode) as client:
        bridged = await answers(client)
    async with over_http(relay, mode) as client:
        direct = await answers(client)
    assert bridged == direct
    assert [answered.get("isError") for answered in direct] == [False, False, True, True, True, None]
    assert direct[-1]["code"] == -32602


async def answer(client: Client, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a call comes to, without the ids and times that each call has of its own."""
    try:
        result: CallToolResult = await client.call_tool(name, arguments)
    except MCPError as error:
        return error.error.model_dump()
    value = result.model_dump(by_alias=True, mode="json")
    for field in ("chatgpt-team-relay/request-id", "io.modelcontextprotocol/serverInfo"):
        value["_meta"].pop(field, None)
    if name == "createModeration":
        value["content"], value["structuredContent"]["id"] = [], ""
    return value


async def test_a_large_result_arrives_whole(relay: RelayProcess, upstream: SimulatedUpstream, tmp_path: Path) -> None:
    """Three mebibytes pass in one piece and as an event after reports of progress, which the SDK stops at one."""
    reports: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        del total, message
        reports.append(progress)

    async with assistant(tmp_path, environment(relay.url, relay.key)) as client:
        for fault in (
            Fault(repeat_body_to_bytes=LARGE_BYTES, times=1),
            Fault(repeat_body_to_bytes=LARGE_BYTES, times=1, delay_seconds=4),  # the relay reports every two
        ):
            upstream.faults.add(fault)
            result = await client.call_tool("createResponse", QUESTION, progress_callback=note)
            assert result.is_error is False
            (text,) = (part.text for part in result.content if part.type == "text")
            assert len(text) == LARGE_BYTES
            assert json.loads(text) == result.structured_content
    assert reports


# ── While a call runs ──────────────────────────────────


@pytest.mark.parametrize("mode", ERAS)
async def test_progress_arrives_and_a_cancelled_call_is_cancelled_upstream(
    mode: str, relay: RelayProcess, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """While the upstream is silent the assistant hears from the relay; when it gives up the upstream sees it leave."""
    upstream.faults.add(Fault(operation_id="createResponse", silent=True, times=1))
    arrived = asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        assert progress > 0
        assert total is None
        assert "createResponse" in (message or "")
        arrived.set()

    async with assistant(tmp_path, environment(relay.url, relay.key), mode) as client:
        call = asyncio.create_task(client.call_tool("createResponse", QUESTION, progress_callback=note))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await arrived.wait()
        (record,) = upstream.recorder.requests
        assert record.disconnected_at is None
        call.cancel()
        await asyncio.to_thread(wait_until, lambda: record.disconnected_at)
        assert (await client.call_tool("listModels", {})).is_error is False
    await asyncio.gather(call, return_exceptions=True)


async def test_calls_run_side_by_side(relay: RelayProcess, upstream: SimulatedUpstream, tmp_path: Path) -> None:
    """A call that waits holds up no other."""
    upstream.faults.add(Fault(operation_id="createResponse", silent=True, times=1))
    async with assistant(tmp_path, environment(relay.url, relay.key)) as client:
        waiting = asyncio.create_task(client.call_tool("createResponse", QUESTION))
        await until_asked(upstream)
        results = await asyncio.gather(*(client.call_tool("listModels", {}) for _ in range(20)))
        assert [result.is_error for result in results] == [False] * 20
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_the_bridge_outlives_its_relay(
    upstream: SimulatedUpstream, upstream_server: ServerThread, tmp_path: Path
) -> None:
    """Calls fail in words while the relay is away, a running one at once; when it is back the next one works."""
    with running_relay(tmp_path, upstream_server.url) as first:
        variables = environment(first.url, first.key)
        port = first.url.rpartition(":")[2]
        async with assistant(tmp_path, variables) as client:
            assert (await client.call_tool("listModels", {})).is_error is False
            upstream.recorder.clear()
            upstream.faults.add(Fault(operation_id="createResponse", silent=True, times=2))
            plain = asyncio.create_task(client.call_tool("createResponse", QUESTION))
            await until_asked(upstream)
            arrived = asyncio.Event()

            async def note(progress: float, total: float | None, message: str | None) -> None:
                del progress, total, message
                arrived.set()

            streamed = asyncio.create_task(client.call_tool("createResponse", QUESTION, progress_callback=note))
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await arrived.wait()
            first.process.kill()
            with pytest.raises(MCPError, match=r"broke off before the answer .* may have been done"):
                await plain
            with pytest.raises(MCPError, match=r"went away before the answer .* may have been done"):
                await streamed
            await asyncio.to_thread(first.process.wait)
            for _ in range(2):
                with pytest.raises(MCPError, match=r"nobody can be reached at .* Is the relay running"):
                    await client.call_tool("listModels", {})
            with running_relay(tmp_path, upstream_server.url, {"RELAY_PORT": port}):
                assert (await client.call_tool("listModels", {})).is_error is False
                assert len((await client.list_tools()).tools) == len(TOOLS)


async def test_a_key_that_ends_is_said_in_words(upstream_server: ServerThread, tmp_path: Path) -> None:
    """When the relay comes back without the key, calls say so and the bridge does not give up."""
    key = make_key("desk", Scope.ACTIONS)
    write_keys(tmp_path / "keys.yaml", [key])
    settings = {"RELAY_KEY_FILE": str(tmp_path / "keys.yaml")}
    with running_relay(tmp_path, upstream_server.url, settings) as first:
        settings |= {"RELAY_PORT": first.url.rpartition(":")[2]}
        variables = environment(first.url, key.text)
        async with assistant(tmp_path, variables) as client:
            assert (await client.call_tool("listModels", {})).is_error is False
            first.process.terminate()
            await asyncio.to_thread(first.process.wait)
            write_keys(tmp_path / "keys.yaml", [])
            refused = pytest.raises(MCPError, match=r"does not take the key \(401\).*RELAY_MCP_KEY")
            with running_relay(tmp_path, upstream_server.url, settings), refused:
                await client.call_tool("listModels", {})
            write_keys(tmp_path / "keys.yaml", [key])
            with running_relay(tmp_path, upstream_server.url, settings):
                assert (await client.call_tool("listModels", {})).is_error is False


# ── The end ────────────────────────────────────────────


@pytest.mark.parametrize("way", ["end of input", signal.SIGTERM, signal.SIGINT], ids=str)
def test_the_end_comes_at_once_and_cancels_what_runs(
    way: str | signal.Signals, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """When input ends, or at a signal, the command ends with 0 within two seconds, and takes running calls along."""
    upstream.faults.add(Fault(operation_id="createResponse", silent=True, times=1))
    with started(relay) as command:
        command.call("createResponse", QUESTION)
        wait_until(lambda: upstream.recorder.requests)
        if isinstance(way, signal.Signals):
            command.process.send_signal(way)
        else:
            command.input.close()
        code, seconds, messages = command.end()
    assert code == 0
    assert seconds < END_SECONDS
    assert all(message["jsonrpc"] == "2.0" for message in messages)
    (record,) = upstream.recorder.requests
    wait_until(lambda: record.disconnected_at)


def test_an_idle_bridge_ends_with_its_input(relay: RelayProcess) -> None:
    """When nobody writes any more there is nothing left to do, and nothing to complain about."""
    with started(relay) as command:
        command.input.close()
        code, seconds, messages = command.end()
    assert (code, messages) == (0, [])
    assert seconds < END_SECONDS


@pytest.mark.parametrize("all_gone", [False, True], ids=["output", "output and input"])
def test_a_bridge_that_nobody_hears_ends(all_gone: bool, relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """When the client's end of the output is gone the command ends by itself, and takes running calls along."""
    upstream.faults.add(Fault(operation_id="createResponse", silent=True, times=1))
    with started(relay) as command:
        command.call("createResponse", QUESTION)
        wait_until(lambda: upstream.recorder.requests)
        command.output.close()
        command.send({"id": 3, "method": "ping"})
        if all_gone:
            command.input.close()
        assert command.process.wait(TIMEOUT_SECONDS) in ({0, 1} if all_gone else {1})  # by what it sees first
        assert b"Traceback" not in command.complaints.read()
    (record,) = upstream.recorder.requests
    wait_until(lambda: record.disconnected_at)


def test_output_that_nobody_takes_holds_up_no_end(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """A client that closes the input and reads no more gets rid of the command all the same."""
    upstream.faults.add(Fault(repeat_body_to_bytes=LARGE_BYTES, times=1))
    with started(relay) as command:
        command.call("createResponse", QUESTION)
        assert command.output.read(1) == b"{"  # the rest fills the pipe
        command.input.close()
        began = time.monotonic()
        assert command.process.wait(TIMEOUT_SECONDS) == 0
        assert time.monotonic() - began < END_SECONDS


def test_lines_that_are_no_messages_are_passed_over(relay: RelayProcess) -> None:
    """A line that is not JSON-RPC gets no answer on standard output and does not stop the next one."""
    with started(relay) as command:
        command.input.write(b"hello\n{}\n[]\n\xff\xfe\n\n")
        command.send({"id": 2, "method": "ping"})
        assert json.loads(command.output.readline()) == {"jsonrpc": "2.0", "id": 2, "result": {}}
        command.input.close()
        assert command.end()[0] == 0
