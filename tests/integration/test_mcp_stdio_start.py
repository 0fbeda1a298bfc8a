"""What `relay mcp` needs to start, and what it says when it has not got it; the whole way, with real servers."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import handlers.mcp_link
from codegen.contract import Scope
from handlers.mcp_link import connected
from handlers.runtime.exceptions import StartupError
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.file_server import make_certificate
from tests.support.key_files import make_key, write_keys
from tests.support.mcp_command import assistant, environment, refusal
from tests.support.servers import HOST, RelayProcess, ServerThread, running_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

SILENT_PROXY = f"http://{HOST}:9"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class OddServer:
    """A server that is no relay: answers what stands under the path."""

    ANSWERS: Mapping[str, tuple[int, str, str]] = {
        "/page": (200, "text/html", "<p>Sign in</p>"),
        "/json": (200, "application/json", '{"hello": "world"}'),
        "/text": (200, "text/plain", "hello"),
        "/moved": (308, "text/plain", "gone to https://elsewhere.example/mcp"),
        "/nothing": (404, "text/html", "<p>Not here</p>"),
        "/busy": (503, "text/html", "<p>Come back</p>"),
        "/forbidden": (403, "text/html", "<p>Who are you?</p>"),
    }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        status, media_type, text = self.ANSWERS[scope["path"]]
        headers = [(b"content-type", media_type.encode())]
        if status == 308:
            headers.append((b"location", b"https://elsewhere.example/mcp"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


@pytest.fixture(scope="module")
def odd_server() -> Iterator[ServerThread]:
    """Something else where a relay was looked for."""
    with ServerThread(OddServer()) as server:
        yield server


def test_nothing_starts_without_address_and_key(relay: RelayProcess) -> None:
    """What is missing is named with the way to give it."""
    assert "no address: set RELAY_MCP_URL" in refusal(RELAY_MCP_KEY=relay.key)
    assert "no key: set RELAY_MCP_KEY" in refusal(RELAY_MCP_URL=relay.url)
    assert "must begin with https://" in refusal(RELAY_MCP_URL="http://relay.example.com", RELAY_MCP_KEY=relay.key)


def test_a_key_that_opens_nothing_stops_the_start(
    upstream: SimulatedUpstream, upstream_server: ServerThread, tmp_path: Path
) -> None:
    """An unknown key and one without a scope for the tools are told apart, and the upstream hears of neither."""
    operator = make_key("operator", Scope.OPERATOR)
    write_keys(tmp_path / "keys.yaml", [operator])
    settings = {"RELAY_KEY_FILE": str(tmp_path / "keys.yaml")}
    with running_relay(tmp_path, upstream_server.url, settings) as relay:
        unknown = refusal(**environment(relay.url, "rk_unknown"))
        narrow = refusal(**environment(relay.url, operator.text))
    assert "does not take the key (401)" in unknown
    assert "Put a valid one into RELAY_MCP_KEY" in unknown
    assert "does not let it in (403)" in narrow
    assert "--scope actions" in narrow
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("path", ["/page", "/json", "/text", "/nothing"])
def test_what_is_no_relay_stops_the_start(path: str, odd_server: ServerThread) -> None:
    """A page, other JSON, a text and a 404 are no endpoint, and the message names the address."""
    text = refusal(**environment(f"{odd_server.url}{path}", "rk_made-up"))
    assert f"{odd_server.url}{path}" in text
    assert "MCP endpoint" in text


def test_another_path_of_the_relay_stops_the_start(relay: RelayProcess) -> None:
    """The relay's own other paths are told from its endpoint."""
    for path in ("/livez", "/v1/models", "/nope"):
        assert "is no MCP endpoint" in refusal(**environment(f"{relay.url}{path}", relay.key))


def test_an_address_that_moved_or_is_closed_stops_the_start(odd_server: ServerThread) -> None:
    """A redirect is not followed to another host, which would get the key; what a proxy refuses is said."""
    assert "https://elsewhere.example/mcp" in refusal(**environment(f"{odd_server.url}/moved", "rk_made-up"))
    assert "answers 503" in refusal(**environment(f"{odd_server.url}/busy", "rk_made-up"))
    assert "(403)" in refusal(**environment(f"{odd_server.url}/forbidden", "rk_made-up"))


def test_nobody_there_stops_the_start(relay: RelayProcess) -> None:
    """A closed port, an unknown host and http behind https are told apart."""
    with socket.create_server((HOST, 0)) as listener:
        closed = f"http://{HOST}:{listener.getsockname()[1]}"
    text = refusal(**environment(closed, relay.key))
    assert f"nobody can be reached at {closed}/mcp (Connection refused)" in text
    assert "Is the relay running" in text
    assert "is not known" in refusal(**environment("https://relay.invalid", relay.key))
    assert "no TLS with" in refusal(**environment(relay.url.replace("http:", "https:"), relay.key))


async def test_a_server_that_never_answers_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes a connection and says nothing is waited for so long and no longer."""
    monkeypatch.setattr(handlers.mcp_link, "START_TIMEOUT_SECONDS", 1.0)
    with socket.create_server((HOST, 0)) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/mcp"
        with pytest.raises(StartupError, match="does not answer within 1 second"):
            async with connected(address, "rk_made-up"):
                raise AssertionError("nobody is there")


def test_a_key_file_that_others_can_read_stops_the_start(relay: RelayProcess, tmp_path: Path) -> None:
    """The key file must be the user's alone; the message says how."""
    file = tmp_path / "key"
    file.write_text(f"{relay.key}\n", encoding="utf-8")
    file.chmod(0o644)
    text = refusal("--key-file", str(file), RELAY_MCP_URL=relay.url)
    assert f"chmod 600 {file}" in text
    assert relay.key not in text


@contextmanager
def tls_before(relay: RelayProcess, chain: Path, key: Path) -> Iterator[str]:
    """TLS in front of the relay, as a proxy would offer it; yields the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    port = int(relay.url.rpartition(":")[2])
    ready: list[str] = []
    stop = threading.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(2**16):
                writer.write(piece)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async def run() -> None:
        async with await asyncio.start_server(serve, HOST, 0, ssl=context) as server:
            ready.append(f"https://{HOST}:{server.sockets[0].getsockname()[1]}")
            while not stop.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        wait_until(lambda: ready)
        yield ready[0]
    finally:
        stop.set()
        thread.join()


async def test_a_relay_behind_tls_is_trusted_by_its_authority_alone(relay: RelayProcess, tmp_path: Path) -> None:
    """A certificate that nobody has issued stops the start; named with `--ca-file` it is taken."""
    certificate = make_certificate(tmp_path)
    with tls_before(relay, certificate.chain, certificate.key) as url:
        text = await asyncio.to_thread(lambda: refusal(**environment(url, relay.key)))
        assert "the certificate of 127.0.0.1 is not trusted (self-signed certificate)" in text
        assert "--ca-file" in text
        trusting = ("--ca-file", str(certificate.chain))
        async with assistant(tmp_path, environment(url, relay.key), arguments=trusting) as client:
            assert (await client.call_tool("listModels", {})).is_error is False


async def test_the_key_may_lie_in_a_file_and_proxies_are_passed_by(relay: RelayProcess, tmp_path: Path) -> None:
    """Arguments do as well as variables, unknown ones of the relay do not matter, and no proxy gets the key."""
    file = tmp_path / "key"
    file.write_text(f"{relay.key}\n", encoding="utf-8")
    file.chmod(0o600)
    variables = {"RELAY_OPERATOR_KEY": "unused", **dict.fromkeys(PROXY_VARIABLES, SILENT_PROXY)}
    arguments = ("--url", relay.url, "--key-file", str(file))
    async with assistant(tmp_path, variables, arguments=arguments) as client:
        assert (await client.call_tool("listModels", {})).is_error is False
