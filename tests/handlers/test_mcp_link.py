import errno
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import orjson
import pytest

from handlers.mcp_link import Wire, relay_address, relay_key
from handlers.runtime.errors import error_to_reply
from handlers.runtime.exceptions import (
    InsufficientScope,
    InvalidKey,
    MethodNotAllowed,
    PayloadTooLarge,
    RelayError,
    StartupError,
    StoreUnavailable,
    UnknownOperation,
)

ADDRESS = "https://relay.example.com/mcp"
KEY = "rk_made-up-canary-0123456789"
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}


@pytest.mark.parametrize(
    "text, address",
    [
        (ADDRESS, ADDRESS),
        ("https://relay.example.com", ADDRESS),
        ("https://relay.example.com/", ADDRESS),
        ("HTTPS://Relay.Example.COM", ADDRESS),
        ("https://example.com/team/mcp", "https://example.com/team/mcp"),
        ("https://relay.example.com:8443", "https://relay.example.com:8443/mcp"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/mcp"),
        ("http://127.9.9.9/mcp", "http://127.9.9.9/mcp"),
        ("http://localhost:8080", "http://localhost:8080/mcp"),
        ("http://[::1]:8080", "http://[::1]:8080/mcp"),
    ],
)
def test_an_address_is_taken(text: str, address: str) -> None:
    """An https address, or an http one of this machine; without a path it gets that of the endpoint."""
    assert relay_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "relay.example.com",
        "relay.example.com/mcp",
        "//relay.example.com/mcp",
        "/mcp",
        "https://",
        "https:///mcp",
        "ftp://relay.example.com/mcp",
        "file:///mcp",
        "wss://relay.example.com/mcp",
        f"https://{KEY}@relay.example.com/mcp",
        f"https://user:{KEY}@relay.example.com/mcp",
        f"https://relay.example.com/mcp?key={KEY}",
        f"https://relay.example.com/mcp#{KEY}",
        "https://relay.example.com/mcp?",
        "https://relay.example.com:port/mcp",
        "https://relay.example.com:99999/mcp",
        "https://relay.example.com/a path",
        "https://relay.example.com\\mcp",
        "https://relay.example.com/\nmcp",
        "https://rel\u0430y.example.com/mcp",
        "https://[::1/mcp",
    ],
)
def test_an_address_that_is_none_is_refused_with_an_example(text: str) -> None:
    """What is no plain https address is refused, and not repeated: it may hold a key."""
    with pytest.raises(StartupError, match=r"--url .*RELAY_MCP_URL.* https address .*https://relay") as caught:
        relay_address(text)
    assert KEY not in str(caught.value)


def test_no_address_is_refused_with_an_example() -> None:
    """An empty address is one that nobody has set."""
    with pytest.raises(StartupError, match="no address: set RELAY_MCP_URL or --url"):
        relay_address("")


@pytest.mark.parametrize("host", ["relay.example.com", "192.168.1.5", "10.0.0.1", "[::]", "[fe80::1]", "localhost.x"])
def test_the_key_never_travels_unencrypted(host: str) -> None:
    """Over http the bridge asks nobody but this machine."""
    with pytest.raises(StartupError, match=r"must begin with https://.*could be read"):
        relay_address(f"http://{host}:8080/mcp")


def private_file(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file with the mode."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """Of a file the first line counts; spaces around the key do not."""
    assert relay_key(KEY, None) == KEY
    assert relay_key(f" {KEY}\n", None) == KEY
    assert relay_key("", private_file(tmp_path / "key", f"{KEY}\n")) == KEY
    assert relay_key("", private_file(tmp_path / "key", f"  {KEY}  \r\nwhat it is for\n")) == KEY
    assert relay_key("", private_file(tmp_path / "key", KEY, 0o400)) == KEY


def test_no_key_is_refused_with_the_ways_to_give_one() -> None:
    """Without a key nothing is asked, and the message says where one comes from and where it goes."""
    with pytest.raises(StartupError, match=r"no key: set RELAY_MCP_KEY.*--key-file.*relay keys create"):
        relay_key("", None)


def test_two_keys_are_refused(tmp_path: Path) -> None:
    """Which of two keys is meant is not guessed."""
    file = private_file(tmp_path / "key", f"{KEY}\n")
    with pytest.raises(StartupError, match="two keys: unset RELAY_MCP_KEY or leave --key-file out"):
        relay_key(KEY, file)


@pytest.mark.parametrize("text", [" ", "rk_two words", "rk_caf\u00e9", "rk_\x07bell", "\n"])
def test_what_cannot_be_a_key_is_refused(text: str, tmp_path: Path) -> None:
    """A text that no header can hold is refused by its place and never repeated."""
    file = private_file(tmp_path / "key", f"{text}\nsecond line\n")
    for place, arguments in (("RELAY_MCP_KEY", (text, None)), (str(file), ("", file))):
        with pytest.raises(StartupError) as caught:
            relay_key(*arguments)
        assert str(caught.value).startswith(f"{place}: must hold a relay key")
        assert not text.strip() or text.strip() not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o444, 0o610])
def test_a_file_that_others_may_open_is_refused(mode: int, tmp_path: Path) -> None:
    """A key that others on the machine can read is one no longer; the message says how to shut the file."""
    file = private_file(tmp_path / "key", f"{KEY}\n", mode)
    with pytest.raises(StartupError) as caught:
        relay_key("", file)
    assert f"chmod 600 {file}" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A file that is missing, or a folder, is named with the reason."""
    with pytest.raises(StartupError, match="key: cannot be read"):
        relay_key("", tmp_path / "key")
    with pytest.raises(StartupError, match="cannot be read"):
        relay_key("", tmp_path)


async def send(answer: httpx2.Response | Exception, method: str = "POST") -> tuple[httpx2.Response, Wire]:
    """Let a wire send one message to somebody who answers so."""

    def answered(request: httpx2.Request) -> httpx2.Response:
        if isinstance(answer, Exception):
            raise answer
        del request
        return answer

    wire = Wire(ADDRESS, httpx2.MockTransport(answered))
    async with httpx2.AsyncClient(transport=wire) as client:
        return await client.request(method, ADDRESS, json=MESSAGE), wire


def problem(response: httpx2.Response, wire: Wire) -> str:
    """The message of the protocol's error that a failure has become."""
    assert response.status_code >= 400
    assert response.headers["content-type"] == "application/json"
    value = response.json()
    assert {name: value[name] for name in ("jsonrpc", "id")} == {"jsonrpc": "2.0", "id": None}
    assert value["error"]["code"] == -32603
    message: str = value["error"]["message"]
    assert message == wire.problem
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, json={"jsonrpc": "2.0", "id": 7, "result": {}}),
        httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b"data: {}\n\n"),
        httpx2.Response(202),
        httpx2.Response(307, headers={"location": f"{ADDRESS}/"}),
        *(
            httpx2.Response(status, json={"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "No."}})
            for status in (400, 404, 500)
        ),
    ],
    ids=lambda answer: f"{answer.status_code} {answer.headers.get('content-type', '')}",
)
async def test_an_answer_of_the_protocol_passes_unchanged(answer: httpx2.Response) -> None:
    """Results, event streams and the protocol's own errors are left alone, and so is what the SDK deals with itself."""
    response, wire = await send(answer)
    assert (response.status_code, response.content) == (answer.status_code, answer.content)
    assert wire.problem is None


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_what_is_no_message_is_left_to_the_sdk(method: str) -> None:
    """The relay's refusal of a stream or of the end of a session is none of the bridge's business."""
    response, wire = await send(httpx2.Response(405, text="No."), method)
    assert (response.status_code, response.text, wire.problem) == (405, "No.", None)


@pytest.mark.parametrize(
    "error, words",
    [
        (InvalidKey(), ["does not take the key (401)", "RELAY_MCP_KEY"]),
        (InsufficientScope(), ["does not let it in (403)", "scope `actions`", "relay keys create"]),
        (UnknownOperation(), ["is no MCP endpoint", "--url", "RELAY_MCP_URL"]),
        (MethodNotAllowed(), ["is no MCP endpoint"]),
        (PayloadTooLarge(), ["answers 413: "]),
        (StoreUnavailable(), ["answers 503: Nothing was done; try again later.", "Try again later"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RelayError) else "",
)
async def test_a_refusal_of_the_relay_says_the_next_step(error: RelayError, words: list[str]) -> None:
    """The relay's own errors become errors of the protocol, with its reason and what to do."""
    reply = error_to_reply(error)
    assert isinstance(reply.body, bytes)
    headers = [(name.decode(), value.decode()) for name, value in reply.headers]
    message = problem(*await send(httpx2.Response(reply.status, headers=headers, content=reply.body)))
    assert message.startswith(ADDRESS)
    assert all(word in message for word in words), message
    if reply.status in {401, 403, 413, 503}:
        assert orjson.loads(reply.body)["error"]["message"] in message


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, html="<p>Sign in.</p>"),
        httpx2.Response(200, text="hello"),
        httpx2.Response(204),
        httpx2.Response(404, html="<p>Not here.</p>"),
        httpx2.Response(405),
        httpx2.Response(400, json={"error": "nope"}),
        httpx2.Response(410, json=[1]),
    ],
    ids=lambda answer: f"{answer.status_code} {answer.headers.get('content-type', '')}",
)
async def test_what_is_no_endpoint_is_called_so(answer: httpx2.Response) -> None:
    """Any other server is told from a relay, and the message names the setting that leads there."""
    message = problem(*await send(answer))
    assert message.startswith(f"{ADDRESS} is no MCP endpoint (status {answer.status_code}")
    assert "--url (RELAY_MCP_URL)" in message


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 504])
async def test_nothing_that_stands_before_the_relay_is_quoted(status: int) -> None:
    """Only the relay promises to repeat nothing of a request; the words of a proxy stay out of logs."""
    for answer in (
        httpx2.Response(status, html=f"<p>Bearer {KEY}</p>"),
        httpx2.Response(status, json={"error": {"message": KEY, "type": "server_error"}}),
        httpx2.Response(status, json={"error": KEY}),
        httpx2.Response(status, json={"message": KEY}),
    ):
        message = problem(*await send(answer))
        assert KEY not in message
        assert str(status) in message


async def test_a_quoted_message_stays_on_its_line() -> None:
    """Line breaks and control characters of a reply reach no terminal, and a long one is cut."""
    error = {"message": "one\ntwo\x1b[2J " + "x" * 1000, "type": "relay_limit_error"}
    message = problem(*await send(httpx2.Response(503, json={"error": error})))
    assert "one two[2J xxx" in message
    assert len(message) < 500


async def test_the_causes_of_a_failure_are_told_apart() -> None:
    """Each way in which a relay cannot be reached has words of its own; see the integration tests for real ones."""
    untrusted = ssl.SSLCertVerificationError(1, "x")
    untrusted.verify_message = "self-signed certificate"
    refused = ExceptionGroup("one for each address", [OSError("x"), ConnectionRefusedError(errno.ECONNREFUSED, "x")])
    failures: list[tuple[httpx2.RequestError, BaseException, str]] = [
        (httpx2.ConnectError("x"), untrusted, "is not trusted (self-signed certificate)"),
        (httpx2.ConnectError("x"), ssl.SSLError(1, "x"), "no TLS with relay.example.com"),
        (httpx2.ConnectError("x"), socket.gaierror(socket.EAI_NONAME, "no such name"), "is not known (no such name)"),
        (httpx2.ConnectError("x"), refused, "(Connection refused). Is the relay running"),
        (httpx2.ConnectTimeout("x"), TimeoutError(), "(no answer). Is the relay running"),
        (httpx2.RemoteProtocolError("x"), ValueError(), "broke off before the answer (RemoteProtocolError)"),
    ]
    for error, cause, words in failures:
        error.__cause__ = cause
        assert words in problem(*await send(error))


@pytest.mark.parametrize(
    "error", [httpx2.ConnectError("x"), httpx2.ReadTimeout("x"), httpx2.RemoteProtocolError("x"), httpx2.ReadError("x")]
)
async def test_what_cannot_be_sent_ends_the_message_and_not_the_connection(error: httpx2.RequestError) -> None:
    """A relay that is away is an answer like another, and the next message is sent as if nothing had been."""
    answers: list[httpx2.Response | Exception] = [error, httpx2.Response(200, json={"jsonrpc": "2.0", "id": 8})]

    def answered(request: httpx2.Request) -> httpx2.Response:
        del request
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    wire = Wire(ADDRESS, httpx2.MockTransport(answered))
    async with httpx2.AsyncClient(transport=wire) as client:
        assert "relay.example.com" in problem(await client.post(ADDRESS, json=MESSAGE), wire)
        assert (await client.post(ADDRESS, json=MESSAGE)).json() == {"jsonrpc": "2.0", "id": 8}
    assert wire.problem is None


async def test_an_answer_that_breaks_off_is_a_failure() -> None:
    """Half of a JSON answer is no answer."""

    class Broken(httpx2.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            yield b'{"jsonrpc"'
            raise httpx2.ReadError("x")

    answer = httpx2.Response(200, headers={"content-type": "application/json"}, stream=Broken())
    assert "broke off before the answer (ReadError)" in problem(*await send(answer))


def test_the_other_commands_do_not_load_the_sdk() -> None:
    """It costs every other command half a second."""
    code = "import sys, handlers.cli; sys.exit(any(name == 'mcp' or name.startswith('mcp.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
