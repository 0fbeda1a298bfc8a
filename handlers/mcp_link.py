"""
The way from `relay mcp` to its relay: the address, the key, and what goes wrong between them in words for people.

Not for: messages of the protocol (`handlers.mcp_bridge`). Reads a key file and nothing else.
"""

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path

import httpx2
import orjson
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, Implementation, JSONRPCError
from pydantic import ValidationError

from handlers.runtime.exceptions import StartupError

PACKAGE = "chatgpt-team-relay"
URL_VARIABLE = "RELAY_MCP_URL"
KEY_VARIABLE = "RELAY_MCP_KEY"
ENDPOINT = "/mcp"
MAX_PORT = 65535
CONNECT_TIMEOUT_SECONDS = 10.0
# A call that runs longer says so every now and then; a connection that is silent for so long is dead.
SILENCE_TIMEOUT_SECONDS = 300.0
START_TIMEOUT_SECONDS = 20.0
# The SDK stops at 1 MiB. A result may hold a reply of the relay twice, as text and as structured content, or an image
# as Base64; the relay itself reads no JSON beyond 64 MiB (`RELAY_MAX_JSON_BYTES`).
MAX_EVENT_BYTES = 64 * 2**20

_JSON = "application/json"
_EVENT_STREAM = "text/event-stream"
_REDIRECTS = range(300, 400)  # the SDK follows or explains them


def relay_address(text: str) -> str:
    """
    Check the address of a relay.

    Args:
        text: From the command line or the environment; without a path it gets that of the endpoint.

    Raises:
        StartupError: It is none, or would send the key unencrypted over a network.
    """
    if not text:
        raise StartupError(f"no address: set {URL_VARIABLE} or --url to the relay's, as https://relay.example.com/mcp.")
    wrong = StartupError(
        f"--url ({URL_VARIABLE}) must be an https address without credentials, query and fragment, "
        "as https://relay.example.com/mcp."
    )
    if not text.isascii() or not text.isprintable() or any(character in text for character in " ?#\\"):
        raise wrong
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise wrong from None
    if url.scheme not in {"http", "https"} or not url.host or "@" in text or (url.port or 443) > MAX_PORT:
        raise wrong
    if url.scheme == "http" and not _loopback(url.host):
        raise StartupError(
            f"--url ({URL_VARIABLE}) must begin with https://: over http the key could be read on its way. "
            "Only a relay on this machine (127.0.0.1, localhost) may be asked over http."
        )
    return str(url.copy_with(path=ENDPOINT) if url.path in {"", "/"} else url)


def relay_key(variable: str, file: Path | None) -> str:
    """
    Find the key: in the environment or in a file, never in an argument, which others on the machine can see.

    Args:
        variable: Value of `RELAY_MCP_KEY`; empty when it is not set.
        file: Its first line is the key.

    Raises:
        StartupError: There is none, or two, or it cannot be one, or others may read the file.
    """
    if variable and file is not None:
        raise StartupError(f"two keys: unset {KEY_VARIABLE} or leave --key-file out.")
    if file is not None:
        key, place = _first_line(file), str(file)
    elif variable:
        key, place = variable.strip(), KEY_VARIABLE
    else:
        raise StartupError(
            f"no key: set {KEY_VARIABLE}, or name a file that holds it with --key-file. "
            "`relay keys create --scope actions` makes one, where the relay runs."
        )
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise StartupError(f"{place}: must hold a relay key: printable ASCII without spaces, on one line.")
    return key


@asynccontextmanager
async def connected(address: str, key: str, ca_file: Path | None = None) -> AsyncIterator[Client]:
    """
    Connect to a relay until the block ends, in the newest form of the protocol that it speaks.

    Args:
        address: From `relay_address`.
        key: From `relay_key`.
        ca_file: Certificates to trust beside the usual ones.

    Raises:
        StartupError: It cannot be reached, does not take the key, or is something else.
    """
    wire = Wire(address, httpx2.AsyncHTTPTransport(verify=_tls(ca_file)))
    name, number = "relay mcp", version(PACKAGE)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx2.AsyncClient(
                transport=wire,
                headers={"Authorization": f"Bearer {key}", "User-Agent": f"{PACKAGE}-mcp/{number}"},
                timeout=httpx2.Timeout(CONNECT_TIMEOUT_SECONDS, read=SILENCE_TIMEOUT_SECONDS),
                trust_env=False,  # a proxy that the environment names for other programs would see the key
            )
        )
        streams = streamable_http_client(
            address,
            http_client=http,
            terminate_on_close=False,  # the relay keeps no sessions
            max_sse_event_size=MAX_EVENT_BYTES,
        )
        refusal = ""
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                client = await stack.enter_async_context(
                    Client(streams, cache=None, client_info=Implementation(name=name, version=number))
                )
        except* TimeoutError:
            refusal = f"{address} does not answer within {START_TIMEOUT_SECONDS:.0f} seconds. Is the relay well?"
        except* MCPError as group:
            refusal = f"{address} does not answer as an MCP endpoint: {_plain(str(_first(group)))}"
        except* (ValidationError, RuntimeError):
            refusal = f"{address} does not answer as an MCP endpoint."
        if refusal:
            raise StartupError(wire.problem or refusal)
        yield client


class Wire(httpx2.AsyncBaseTransport):
    """
    Sends requests to the relay; what goes wrong becomes an error of the protocol that says what to do next.

    Without it the SDK would end the whole connection with the first request that cannot be sent, and say of an HTTP
    error only that there was one.

    Args:
        address: Of the relay, for the messages.
        inner: What really sends.
    """

    def __init__(self, address: str, inner: httpx2.AsyncBaseTransport) -> None:
        self._address = address
        self._inner = inner
        self.problem: str | None = None  # of the last message; `None` when it was answered

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        try:
            response = await self._inner.handle_async_request(request)
            if request.method != "POST" or response.status_code in _REDIRECTS:
                return response
            if _media_type(response) != _EVENT_STREAM:
                try:
                    await response.aread()
                finally:
                    await response.aclose()
        except httpx2.RequestError as error:
            return self._refusal(httpx2.codes.BAD_GATEWAY, _unsent(self._address, error))
        if _understood(response):
            self.problem = None
            return response
        return self._refusal(max(response.status_code, httpx2.codes.BAD_REQUEST), _refused(self._address, response))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    def _refusal(self, status: int, problem: str) -> httpx2.Response:
        self.problem = problem
        error = {"code": INTERNAL_ERROR, "message": problem}
        return httpx2.Response(status, json={"jsonrpc": "2.0", "id": None, "error": error})


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="ascii", errors="replace") as opened:
            # Windows has no such bits, and reports them all as set.
            if os.name == "posix" and os.fstat(opened.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StartupError(f"{file}: others may read the key; `chmod 600 {file}` lets only you.")
            return opened.readline().strip()
    except OSError as error:
        raise StartupError(f"{file}: cannot be read ({error.strerror}); its first line must be the key.") from None


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    context = httpx2.create_ssl_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # `ssl.SSLError` is one
            reason = error.strerror if not isinstance(error, ssl.SSLError) else "no certificates in PEM form"
            raise StartupError(f"{ca_file}: cannot be used as --ca-file ({reason}).") from None
    return context


def _understood(response: httpx2.Response) -> bool:
    if response.status_code < httpx2.codes.BAD_REQUEST:
        return response.status_code == httpx2.codes.ACCEPTED or _media_type(response) in {_JSON, _EVENT_STREAM}
    try:
        JSONRPCError.model_validate_json(response.content)
    except ValidationError:
        return False
    return True


def _refused(address: str, response: httpx2.Response) -> str:
    status = response.status_code
    said = _relay_message(response)
    because = f": {said}" if said else "."
    if status == httpx2.codes.UNAUTHORIZED:
        return f"{address} does not take the key (401){because} Put a valid one into {KEY_VARIABLE} or the key file."
    if status == httpx2.codes.FORBIDDEN:
        return (
            f"{address} takes the key but does not let it in (403){because} "
            "It needs the scope `actions`; `relay keys create --scope actions` makes one that has it."
        )
    if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        return f"{address} answers {status}{because} Try again later; the relay's log says more."
    if said and status not in {httpx2.codes.NOT_FOUND, httpx2.codes.METHOD_NOT_ALLOWED}:
        return f"{address} answers {status}{because}"
    return (
        f"{address} is no MCP endpoint (status {status}, {_media_type(response) or 'no media type'}). "
        f"--url ({URL_VARIABLE}) must be that of the relay, usually https://HOST{ENDPOINT}."
    )


def _unsent(address: str, error: httpx2.RequestError) -> str:
    causes = list(_causes(error))
    host = httpx2.URL(address).host
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {host} is not trusted ({cause.verify_message}). "
                "If your own authority issued it, name its certificate with --ca-file."
            )
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "reason", None) or "it failed"  # set where the library knows one
            return f"no TLS with {host} ({reason}). Does the relay speak https at {address}?"
        if isinstance(cause, socket.gaierror):
            return f"the host {host} is not known ({cause.strerror}). Is --url ({URL_VARIABLE}) right?"
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        reasons = [os.strerror(cause.errno) for cause in causes if isinstance(cause, OSError) and cause.errno]
        reason = reasons[-1] if reasons else "no answer"
        return f"nobody can be reached at {address} ({reason}). Is the relay running, and --url ({URL_VARIABLE}) right?"
    return (
        f"the connection to {address} broke off before the answer ({type(error).__name__}). "
        "What was asked for may have been done all the same; try again."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):  # one for each address of a host
            for one in error.exceptions:
                yield from _causes(one)
        error = error.__cause__ or error.__context__


def _relay_message(response: httpx2.Response) -> str:
    """What the relay says itself, which never repeats a request; whatever stands before it might."""
    try:
        error = orjson.loads(response.content)["error"]
        if str(error["type"]).startswith("relay_"):
            return _plain(str(error["message"]))
    except (ValueError, TypeError, LookupError):
        pass
    return ""


def _media_type(response: httpx2.Response) -> str:
    return _plain(response.headers.get("content-type", "").partition(";")[0].strip().lower())


def _plain(text: str) -> str:
    return "".join(character for character in " ".join(text.split()) if character.isprintable())[:300]


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
