"""
Calls of tools while they run: what is heard of them, how they end early, and that nothing of them stays behind.

Not for: what a call answers (`test_mcp_parity`) or who may make one (`test_mcp_access`).
"""

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from codegen.contract import Scope
from handlers.runtime import tool_protocol
from handlers.simulated_upstream import Fault, RecordedRequest, SimulatedUpstream
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.raw_http import raw_request
from tests.support.servers import HOST, STOP_TIMEOUT_SECONDS, UPSTREAM_KEY, ServerThread, running_relay
from tests.support.tool_clients import (
    ERAS,
    TIMEOUT_SECONDS,
    Era,
    answer_of,
    call,
    events_of,
    initialize,
    message,
    status_of,
    tool_client,
)
from tests.support.waiting import wait_until
from tests.support.watched_relay import DEADLINE_SECONDS, UpstreamOfTexts, WatchedRelay, connections

pytestmark = pytest.mark.integration

MAX_JSON_BYTES = 2**20
CALLS = 500
LEAVING = 100
OPEN_FILES = 8192  # both ends of all connections are in this process
MODELS, FILES, STORES = "/v1/models", "/v1/files", "/v1/vector_stores"
EMPTY_LIST = b'{"object":"list","data":[]}'
CANARY = "canary-4f1d"
TEAM = make_key("team", Scope.CANONICAL, Scope.ACTIONS, Scope.PROXY)
OTHER = make_key("other", Scope.CANONICAL, Scope.ACTIONS, Scope.PROXY)
NO_MESSAGES: dict[str, object] = {
    "nothing": [],
    "a batch": [call("listModels")["json"]],
    "no version": {"method": "ping", "id": 1},
    "a field more": {**message("ping")["json"], CANARY: 1},
    "a text": "ping",
}
UNKNOWN_TOOL, UNKNOWN_METHOD = -32602, -32601  # JSON-RPC


@dataclass
class Said:
    """What a client was told of its call while it ran."""

    progress: float
    text: str | None


@pytest.fixture(scope="module")
def watched(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRelay]:
    """A relay with two keys that open the same, after a first call in each version of the protocol."""
    keys = tmp_path_factory.mktemp("watched") / "keys.yaml"
    write_keys(keys, [TEAM, OTHER])
    relay = WatchedRelay(
        {
            "OPENAI_API_KEY": UPSTREAM_KEY,
            "OPENAI_BASE_URL": f"{upstream_server.url}/v1",
            "RELAY_KEY_FILE": str(keys),
            "RELAY_MAX_JSON_BYTES": str(MAX_JSON_BYTES),
        }
    )
    with relay.server:
        for era in ERAS:
            reply = httpx.post(f"{relay.url}/mcp", **with_key(call("listModels", era=era)), timeout=TIMEOUT_SECONDS)
            assert "result" in answer_of(reply)
        yield relay


@pytest.fixture
def relay(watched: WatchedRelay, upstream: SimulatedUpstream) -> Iterator[WatchedRelay]:
    """The same, with a fresh recorder behind it; in the end no task of a call is left, and no connection in use."""
    before = watched.tasks()
    yield watched
    upstream.faults.clear()
    wait_until(lambda: watched.clients() == 0)
    wait_until(lambda: watched.tasks() <= before)
    wait_until(lambda: all(record.finished_at is not None for record in upstream.recorder.requests))


@pytest.fixture
async def client(relay: WatchedRelay) -> AsyncIterator[httpx.AsyncClient]:
    """Sends messages with the team's key."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=relay.url, headers=TEAM.headers, timeout=TIMEOUT_SECONDS, limits=limits
    ) as client:
        yield client


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    """Both versions of the protocol, one after the other."""
    found: Era = request.param
    return found


def with_key(options: dict[str, Any], key: MadeKey = TEAM) -> dict[str, Any]:
    """A message with a key of its own."""
    return {**options, "headers": {**options["headers"], **key.headers}}


async def until(condition: Callable[[], object]) -> None:
    """Let others run until the condition holds."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


async def arrived(upstream: SimulatedUpstream) -> RecordedRequest:
    """The one call that the upstream has got."""
    await until(lambda: upstream.recorder.requests)
    (record,) = upstream.recorder.requests
    return record


async def session_of(client: httpx.AsyncClient) -> str:
    """Say hello, as a client of the older protocol does; returns the id that it is to go by."""
    reply = await client.post("/mcp", **initialize())
    assert answer_of(reply)["result"]["serverInfo"]["name"] == "chatgpt-team-relay"
    return reply.headers["mcp-session-id"]


@asynccontextmanager
async def running_call(
    client: httpx.AsyncClient, upstream: SimulatedUpstream, **options: Any
) -> AsyncIterator[tuple[asyncio.Task[httpx.Response], RecordedRequest]]:
    """A call that the upstream never answers, until the block ends."""
    upstream.faults.add(Fault("listModels", silent=True))
    task = asyncio.create_task(client.post("/mcp", **call("listModels", **options)))
    try:
        yield task, await arrived(upstream)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ── Progress ───────────────────────────────────────────


async def test_a_slow_call_tells_that_it_runs(
    era: Era, relay: WatchedRelay, upstream: SimulatedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the upstream is slow, progress arrives, rises, and carries a text; then the answer comes as ever."""
    monkeypatch.setattr(tool_protocol, "PROGRESS_SECONDS", 0.2)
    upstream.faults.add(Fault("listModels", delay_seconds=1.2))
    said: list[Said] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        assert upstream.recorder.requests[-1].finished_at is None
        said.append(Said(progress, message))

    async with tool_client(relay.url, TEAM.headers, era) as tools:
        result = await tools.call_tool("listModels", progress_callback=heard)
    assert status_of(result) == 200
    assert len(said) >= 2
    assert [one.progress for one in said] == sorted({one.progress for one in said})
    assert all(one.text and one.text.startswith("listModels runs since ") for one in said)


async def test_a_wrapper_tells_what_it_has_come_to(
    relay: WatchedRelay, upstream: SimulatedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an operation says how far it is, that is the text."""
    monkeypatch.setattr(tool_protocol, "PROGRESS_SECONDS", 0.1)
    upstream.faults.add(Fault("createResponse", event_interval_seconds=0.2))
    said: list[str] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        del progress, total
        said.append(message or "")

    async with tool_client(relay.url, TEAM.headers) as tools:
        question = {"model": "gpt-6-luna", "input": "x"}
        result = await tools.call_tool("gatherResponseStream", question, progress_callback=heard)
    assert status_of(result) == 200
    assert any(text.endswith(" characters so far") for text in said)


async def test_who_has_not_asked_is_told_nothing(
    era: Era,
    client: httpx.AsyncClient,
    upstream: SimulatedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a token in the call, its answer is the only message."""
    monkeypatch.setattr(tool_protocol, "PROGRESS_SECONDS", 0.2)
    upstream.faults.add(Fault("listModels", delay_seconds=1))
    reply = await client.post("/mcp", **call("listModels", era=era))
    assert "result" in answer_of(reply)
    assert era == "modern" or len(events_of(reply.text)) == 1


# ── Cancellation ───────────────────────────────────────


async def test_a_call_that_the_client_gives_up_is_given_up_upstream(
    era: Era, relay: WatchedRelay, upstream: SimulatedUpstream
) -> None:
    """The official client says so in its version's way, and goes on with its next call."""
    upstream.faults.add(Fault("listModels", silent=True))
    async with tool_client(relay.url, TEAM.headers, era) as tools:
        task = asyncio.create_task(tools.call_tool("listModels"))
        record = await arrived(upstream)
        task.cancel()
        await until(lambda: record.disconnected_at is not None)
        assert status_of(await tools.call_tool("listFiles", {"limit": 1})) == 200


@pytest.mark.parametrize("progress_token", [None, 1], ids=["before the reply", "in mid-reply"])
async def test_a_client_that_leaves_takes_its_call_along(
    progress_token: int | None,
    era: Era,
    client: httpx.AsyncClient,
    upstream: SimulatedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing the connection is enough, whether or not anything has been answered by then."""
    monkeypatch.setattr(tool_protocol, "PROGRESS_SECONDS", 0.2)
    upstream.faults.add(Fault("listModels", silent=True))
    options = call("listModels", era=era, progress_token=progress_token)

    async def answered() -> None:
        async with client.stream("POST", "/mcp", **options) as reply:
            async for line in reply.aiter_lines():
                if "progress" in line:
                    return
            raise AssertionError("the call has ended")

    task = asyncio.create_task(answered())
    record = await arrived(upstream)
    if progress_token is None:
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() is (progress_token is None)
    await until(lambda: record.disconnected_at is not None)


async def test_a_notice_of_the_older_protocol_ends_the_call_that_it_names(
    client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """The call's reply then ends without an answer, and the upstream's work with it."""
    session = await session_of(client)
    async with running_call(client, upstream, era="legacy", session=session, id=7) as (task, record):
        notice = message("notifications/cancelled", {"requestId": 7}, id=None, era="legacy", session=session)
        assert (await client.post("/mcp", **notice)).status_code == 202
        reply = await task
        assert (reply.status_code, events_of(reply.text)) == (200, [])
        await until(lambda: record.disconnected_at is not None)


@pytest.mark.parametrize("why", ["another key", "another session", "no session", "another id", "another kind of id"])
async def test_any_other_notice_ends_nothing(why: str, client: httpx.AsyncClient, upstream: SimulatedUpstream) -> None:
    """Who did not make the call, or names another one, is answered the same, and the call goes on."""
    session = await session_of(client)
    params = {"requestId": {"another id": 8, "another kind of id": "7"}.get(why, 7)}
    other_session = {"another session": await session_of(client), "no session": None}.get(why, session)
    notice = message("notifications/cancelled", params, id=None, era="legacy", session=other_session)
    async with running_call(client, upstream, era="legacy", session=session, id=7) as (task, record):
        sent = with_key(notice, OTHER) if why == "another key" else notice
        assert (await client.post("/mcp", **sent)).status_code == 202
        # Whatever it might end, the next call through the same relay comes after it.
        assert (await client.post("/mcp", **call("listFiles", {"limit": 1}))).status_code == 200
        assert record.disconnected_at is None
        assert not task.done()


async def test_a_notice_of_the_newer_protocol_ends_nothing(
    client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """There a call is ended by closing it; ids are the clients' own and two may have chosen the same."""
    async with running_call(client, upstream, era="modern", id=7) as (task, record):
        notice = message("notifications/cancelled", {"requestId": 7}, id=None, era="modern")
        assert (await client.post("/mcp", **notice)).status_code == 202
        assert (await client.post("/mcp", **call("listFiles", {"limit": 1}))).status_code == 200
        assert record.disconnected_at is None
        assert not task.done()


async def test_a_call_with_an_idempotency_key_goes_on_without_its_client(
    era: Era, client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """It is done once: the repeat is given the first one's reply, and the upstream hears of one call."""
    upstream.faults.add(Fault("createUpload", delay_seconds=1))
    arguments = {"filename": "a.txt", "purpose": "user_data", "bytes": 5, "mime_type": "text/plain"}
    options = call("startUpload", {**arguments, "idempotency_key": f"key-of-{era}"}, era=era)
    task = asyncio.create_task(client.post("/mcp", **options))
    record = await arrived(upstream)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: record.finished_at is not None)
    assert (record.status, record.disconnected_at) == (200, None)

    async def repeated() -> dict[str, Any]:
        result: dict[str, Any] = answer_of(await client.post("/mcp", **options))["result"]
        return result

    async with asyncio.timeout(DEADLINE_SECONDS):
        while (result := await repeated()).get("isError"):  # the reply is being kept
            assert "idempotency_in_progress" in result["content"][0]["text"]
            await asyncio.sleep(0.05)
    assert result["structuredContent"]["status"] == "pending"
    assert upstream.recorder.count == 1


# ── Many at once ───────────────────────────────────────


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for all connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def held_back() -> AsyncIterator[tuple[WatchedRelay, UpstreamOfTexts, str]]:
    """A relay of its own after a first message in each version, its upstream, and where that is."""
    texts = {MODELS: EMPTY_LIST, FILES: b'{"object":"list","data":[],"note":"%b"}' % (b"x" * 6_000_000)}
    upstream = UpstreamOfTexts(texts, held_back=frozenset({MODELS}), silent=frozenset({STORES}))
    with ServerThread(upstream) as server:
        settings = {"OPENAI_BASE_URL": f"{server.url}/v1", "RELAY_KEY": TEAM.text}
        relay = WatchedRelay({**settings, "RELAY_MAX_UPSTREAM_CONNECTIONS": str(2 * CALLS)})
        with relay.server:
            for era in ERAS:
                async with tool_client(relay.url, TEAM.headers, era) as tools:
                    await tools.list_tools()
            await until(lambda: relay.clients() == 0)
            yield relay, upstream, server.url


async def test_many_calls_at_once_leave_nothing_behind(many_files: None) -> None:
    """Hundreds run at the same moment, others are given up, one client never reads: nothing of them remains."""
    del many_files
    async with held_back() as (relay, upstream, upstream_url):
        before = relay.tasks()
        unread = await bare_call(relay.url, call("listFiles", {"limit": 1}, era="legacy"))
        leaving = [await bare_call(relay.url, call("listVectorStores", era=era)) for era in ERAS * (LEAVING // 2)]
        running = [await bare_call(relay.url, call("listModels", era=era)) for era in ERAS * (CALLS // 2)]
        await until(lambda: upstream.arrived == {MODELS: CALLS, FILES: 1, STORES: LEAVING})
        assert relay.tasks() > before + CALLS
        for _, writer in leaving:
            writer.close()
        await until(lambda: upstream.left[STORES] == LEAVING)
        upstream.open()
        answers = await asyncio.gather(*(reader.read() for reader, _ in running))
        assert all(answer.startswith(b"HTTP/1.1 200 ") and b'"structuredContent"' in answer for answer in answers)
        await until(lambda: relay.clients() == 1)
        assert relay.tasks() > before  # of the client that does not read
        for _, writer in (unread, *running):
            writer.close()
        await until(lambda: relay.tasks() <= before)
        await until(lambda: relay.clients() == 0)
        assert upstream.ended == upstream.arrived
        assert upstream.left == {STORES: LEAVING}
        # What stays open waits for other calls: one for each that ran at the same moment to its end.
        await until(lambda: connections(upstream_url) <= CALLS + 1)


async def bare_call(url: str, options: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A call on a connection of its own, which ends with it; who does not read takes hardly anything in."""
    headers = {**options["headers"], **TEAM.headers, "Content-Type": "application/json", "Connection": "close"}
    reader, writer = await asyncio.open_connection(HOST, int(url.rpartition(":")[2]), limit=4096)
    writer.write(raw_request("POST", "/mcp", headers.items(), json.dumps(options["json"]).encode()))
    return reader, writer


# ── Messages that are no calls ─────────────────────────


@pytest.mark.parametrize("method", ["notifications/initialized", "notifications/cancelled", "notifications/of/nobody"])
async def test_a_notification_is_taken(method: str, era: Era, client: httpx.AsyncClient) -> None:
    """202, and not a word."""
    reply = await client.post("/mcp", **message(method, id=None, era=era))
    assert (reply.status_code, reply.content) == (202, b"")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_there_is_nothing_to_fetch_or_to_end(method: str, client: httpx.AsyncClient) -> None:
    """Without sessions there is no stream to open and none to end, and the reply says what there is."""
    reply = await client.request(method, "/mcp", headers={"Accept": "text/event-stream"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("body", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_what_is_no_message_is_refused_by_the_relay(
    body: object, era: Era, client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """400 in the relay's own words, which repeat nothing; a batch is none either."""
    headers = call("listModels", era=era)["headers"]
    reply = await client.post("/mcp", headers=headers, json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_body")
    assert CANARY not in reply.text
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "text/html"])
async def test_a_client_must_take_json_and_events(
    accept: str, era: Era, client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """406 in the relay's own words, before anything is called."""
    options = call("listModels", era=era)
    reply = await client.post("/mcp", **{**options, "headers": {**options["headers"], "Accept": accept}})
    assert (reply.status_code, reply.json()["error"]["code"]) == (406, "not_acceptable")
    assert upstream.recorder.count == 0


async def test_an_unknown_version_is_an_error_of_the_protocol(
    era: Era, client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """400, whatever version the message itself is written in."""
    options = call("listModels", era=era)
    headers = {**options["headers"], "MCP-Protocol-Version": "1999-01-01"}
    reply = await client.post("/mcp", **{**options, "headers": headers})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] < 0
    assert upstream.recorder.count == 0


async def test_a_message_that_is_too_large_is_refused(
    era: Era, client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """413, by the limit of every other body."""
    options = call("createEmbedding", {"model": "m", "input": "x" * MAX_JSON_BYTES}, era=era)
    reply = await client.post("/mcp", **options)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("name", [CANARY, "listmodels", "list-models", "createFile", "sendMcpMessage", ""])
async def test_an_unknown_tool_is_an_error_of_the_protocol(
    name: str, era: Era, client: httpx.AsyncClient, upstream: SimulatedUpstream
) -> None:
    """-32602, as the protocol says; operations that are no tools are unknown like any other name."""
    reply = await client.post("/mcp", **call(name, era=era))
    error = answer_of(reply)["error"]
    assert (reply.status_code, error["code"]) == (200 if era == "legacy" else 400, UNKNOWN_TOOL)
    assert CANARY not in error["message"]
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("method", ["resources/list", "prompts/list", "logging/setLevel", "subscriptions/listen"])
async def test_nothing_but_tools_is_offered(method: str, era: Era, client: httpx.AsyncClient) -> None:
    """What else the protocol knows is unknown here."""
    params: dict[str, object] = {"level": "debug"} if method == "logging/setLevel" else {"notifications": {}}
    reply = await client.post("/mcp", **message(method, params, era=era))
    assert answer_of(reply)["error"]["code"] == UNKNOWN_METHOD


# ── Bad days ───────────────────────────────────────────


async def test_a_defect_is_the_same_as_over_http(
    era: Era, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the relay that tells nothing, with the id that the operator asks for."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(tool_protocol, "arguments_to_call", broken)
    with capture_logs() as lines:
        reply = await client.post("/mcp", **call("listModels", era=era))
        await until(lambda: len(lines) == 2)
    result = answer_of(reply)["result"]
    error = json.loads(result["content"][0]["text"])["error"]
    assert (result["isError"], error["code"], error["type"]) == (True, "internal_error", "relay_internal_error")
    assert result["_meta"]["chatgpt-team-relay/status"] == 500
    assert result["_meta"]["chatgpt-team-relay/request-id"] == reply.headers["x-request-id"]
    assert CANARY not in reply.text
    defect, line = lines
    assert (defect["event"], line["refused"]) == ("defect", "internal_error")
    assert defect["request_id"] == line["request_id"] == reply.headers["x-request-id"]


async def test_half_a_character_of_the_upstream_is_marked() -> None:
    """A model's text that was cut within an emoji is an answer in both versions of the protocol."""
    texts = {"/v1/models": b'{"object":"list","data":[],"note":"tea \\ud83d"}'}
    with ServerThread(UpstreamOfTexts(texts)) as upstream:
        relay = WatchedRelay({"OPENAI_BASE_URL": f"{upstream.url}/v1", "RELAY_KEY": TEAM.text})
        with relay.server:
            for era in ERAS:
                async with tool_client(relay.url, TEAM.headers, era) as tools:
                    result = await tools.call_tool("listModels")
                assert result.structured_content == {"object": "list", "data": [], "note": "tea \ufffd"}


async def both_calls(url: str, upstream: SimulatedUpstream) -> list[Awaitable[httpx.Response]]:
    """A running call in each version of the protocol."""

    async def made(era: Era) -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, headers=TEAM.headers, timeout=TIMEOUT_SECONDS) as client:
            return await client.post("/mcp", **call("listModels", era=era, progress_token=1))

    tasks: list[Awaitable[httpx.Response]] = [asyncio.create_task(made(era)) for era in ERAS]
    await until(lambda: upstream.recorder.count == len(ERAS))
    return tasks


async def test_running_calls_finish_after_sigterm(
    upstream: SimulatedUpstream, upstream_server: ServerThread, tmp_path: Path
) -> None:
    """A relay that is to end lets them, and then ends by itself: the haste of the SDK's streams is switched off."""
    # They hear of the signal only where they were loaded before the server began, so here they are.
    (tmp_path / "sitecustomize.py").write_text("import sse_starlette.sse\n", encoding="utf-8")
    settings = {
        "RELAY_KEY": TEAM.text,
        "RELAY_SHUTDOWN_TIMEOUT_SECONDS": "15",
        "PYTHONPATH": str(tmp_path),
    }
    upstream.faults.add(Fault("listModels", delay_seconds=2.5))
    with running_relay(tmp_path, upstream_server.url, settings) as relay:
        tasks = await both_calls(relay.url, upstream)
        os.kill(relay.pid, signal.SIGTERM)
        for reply in await asyncio.gather(*tasks):
            assert answer_of(reply)["result"]["structuredContent"]["object"] == "list"
        assert relay.process.wait(STOP_TIMEOUT_SECONDS) == 0
    assert '"level":"error"' not in relay.printed()


async def test_a_call_without_end_does_not_keep_a_relay_alive(
    upstream: SimulatedUpstream, upstream_server: ServerThread, tmp_path: Path
) -> None:
    """After the time for running requests it ends all the same, and its calls with it."""
    settings = {"RELAY_KEY": TEAM.text, "RELAY_SHUTDOWN_TIMEOUT_SECONDS": "1"}
    upstream.faults.add(Fault("listModels", silent=True))
    with running_relay(tmp_path, upstream_server.url, settings) as relay:
        tasks = await both_calls(relay.url, upstream)
        os.kill(relay.pid, signal.SIGTERM)
        await until(lambda: relay.process.poll() is not None)
        await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: all(record.disconnected_at is not None for record in upstream.recorder.requests))
