"""
`relay demo`: the relay before its simulated upstream on loopback, and a tour of real calls through it.

Nothing leaves the machine and no key of the environment is used.
"""

import json
import logging
import secrets
import sys
from typing import Any

import httpx
from rich.console import Console

from codegen.contract import FULL, load_contract
from handlers.runtime.access import KEY_BYTES, KEY_PREFIX
from handlers.runtime.app import GENERATED, create_app, create_services
from handlers.runtime.exceptions import StartupError
from handlers.runtime.server import Server
from handlers.runtime.settings import LogFormat, Settings
from handlers.runtime.telemetry import configure_logging
from handlers.simulated_upstream import SimulatedUpstream
from handlers.summary import print_summary

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
EVENT_INTERVAL_SECONDS = 0.08  # slow enough to see a stream arrive
SIMULATED_KEY = "sk-simulated-upstream"
_FILE = b'{"greeting": "hello from a file"}\n'


async def run_demo(console: Console, port: int | None, *, keep: bool) -> None:
    """
    Start both servers, run the tour, and go on serving when asked to.

    Args:
        port: `None` takes 8080, or a free one when that is taken.
        keep: Serve until Ctrl-C after the tour.

    Raises:
        StartupError: The port is taken.
    """
    configure_logging(LogFormat.CONSOLE, logging.WARNING)  # one line a request would cut the tour to pieces
    simulated = SimulatedUpstream(load_contract(GENERATED, FULL), event_interval_seconds=EVENT_INTERVAL_SECONDS)
    upstream = Server(simulated, HOST, 0, signals=False)
    upstream_url = upstream.bind()
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    services = create_services(
        Settings.model_validate(
            {"OPENAI_API_KEY": SIMULATED_KEY, "OPENAI_BASE_URL": f"{upstream_url}/v1", "RELAY_KEY": key}
        )
    )
    relay, url = _bind_relay(console, create_app(services), port)
    print_summary(services, url)
    async with upstream.running(), relay.running() as stopped:
        console.rule("a tour through the relay")
        await _tour(console, simulated, url, key)
        _print_what_to_try(console, url, key)
        if keep:
            console.print("\nServing until Ctrl-C.")
            await stopped


def _bind_relay(console: Console, app: object, port: int | None) -> tuple[Server, str]:
    try:
        relay = Server(app, HOST, DEFAULT_PORT if port is None else port)
        return relay, relay.bind()
    except StartupError:
        if port is not None:
            raise
        console.print(f"Port {DEFAULT_PORT} is taken; taking a free one.")
        relay = Server(app, HOST, 0)
        return relay, relay.bind()


async def _tour(console: Console, simulated: SimulatedUpstream, url: str, key: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
        question = {"model": "gpt-6-luna", "input": "When do we move the wiki?"}  # answered by the contract's example
        console.print("\n[bold]1. JSON[/]  POST /v1/responses")
        reply = (await client.post("/v1/responses", json=question)).raise_for_status().json()
        console.print(f"   {reply['id']}: {reply['output'][-1]['content'][0]['text']}", markup=False)

        console.print("\n[bold]2. A stream[/]  POST /v1/responses with stream: true\n   ", end="")
        async with client.stream("POST", "/v1/responses", json={**question, "stream": True}) as stream:
            async for line in stream.raise_for_status().aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: "))
                    if event["type"] == "response.output_text.delta":
                        console.print(event["delta"], end="", markup=False)
                        sys.stdout.flush()
        console.print()

        console.print("\n[bold]3. A file there and back[/]  POST /v1/files, GET /v1/files/{file_id}/content")
        file = (
            (await client.post("/v1/files", data={"purpose": "user_data"}, files={"file": ("hello.json", _FILE)}))
            .raise_for_status()
            .json()
        )
        content = (await client.get(f"/v1/files/{file['id']}/content")).raise_for_status().content
        console.print(f"   {file['id']}: {file['bytes']} bytes up, {len(content)} bytes down, same: {content == _FILE}")
        if content != _FILE:
            raise StartupError("the file came back changed.")

        console.print("\n[bold]4. A tool[/]  POST /mcp, as an assistant calls it")
        tools = (await _ask_tools(client, "tools/list", {}))["tools"]
        call = {"name": "startResponse", "arguments": question}
        answer = (await _ask_tools(client, "tools/call", call))["structuredContent"]
        console.print(f"   {len(tools)} tools; startResponse: {answer['status']}, {answer['text']}", markup=False)

        console.print("\n[bold]5. Refusals[/]  they never reach the upstream")
        before = simulated.recorder.count
        for method, path, body in (
            ("POST", "/v1/responses", {"model": 5}),
            ("GET", "/v1/organization/users", None),
            ("GET", "/v1/unheard_of", None),
        ):
            refusal = await client.request(method, path, json=body)
            error = refusal.json()["error"]
            console.print(
                f"   {method} {path}: {refusal.status_code} {error['code']}: {error['message']}",
                markup=False,
                soft_wrap=True,
            )
        console.print(f"   requests that reached the upstream meanwhile: {simulated.recorder.count - before}")


async def _ask_tools(client: httpx.AsyncClient, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """One message of the Model Context Protocol and the result at the end of its events."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    reply = await client.post("/mcp", json=message, headers={"Accept": "application/json, text/event-stream"})
    events = [line for line in reply.raise_for_status().text.splitlines() if line.startswith("data: {")]
    result: dict[str, Any] = json.loads(events[-1].removeprefix("data: "))["result"]
    return result


def _print_what_to_try(console: Console, url: str, key: str) -> None:
    console.rule("what to try")
    console.print(
        f"export RELAY={url} KEY={key}\n"
        'curl $RELAY/v1/models -H "Authorization: Bearer $KEY"\n'
        'curl -N $RELAY/v1/responses:stream -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\\n'
        """  -d '{"model": "gpt-6-luna", "input": "When do we move the wiki?"}'\n"""
        "OPENAI_BASE_URL=$RELAY/v1 OPENAI_API_KEY=$KEY python -c "
        "'import openai; print(openai.OpenAI().models.list().data[0].id)'\n"
        f"RELAY_MCP_URL={url}/mcp RELAY_MCP_KEY={key} .venv/bin/relay mcp   # what a desktop assistant starts\n"
        f"open {url}/docs and {url}/policy",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
