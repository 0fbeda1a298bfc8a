"""
The upstream client: the only module that opens connections to the OpenAI API and the only one that holds its key.

httpx types over the aiohttp transport, which is called directly: the httpx client's own layers (redirects, cookies,
decoding) are not wanted here and cost several times more CPU. Bodies pass through undecoded, pieces as they come.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self, cast

import httpx
from aiohttp.abc import AbstractResolver
from httpx_aiohttp import AiohttpTransport

from handlers.runtime.circuit import Circuit, CircuitState
from handlers.runtime.counts import CANCELLED, FAILED
from handlers.runtime.exceptions import UpstreamError, UpstreamErrorWithheld
from handlers.runtime.headers import READABLE_CODINGS, response_headers
from handlers.runtime.messages import Header, Reply
from handlers.runtime.observation import ObservedCall, note_retry
from handlers.runtime.settings import Settings
from handlers.runtime.upstream_retries import FAILURES, IDEMPOTENT_METHODS, may_repeat, named, repeat
from handlers.runtime.upstream_slots import Slot, Slots
from handlers.runtime.upstream_wire import new_session

MIRRORED_PREFIX = "/v1"
# Errors are read whole before they go on, to see whether they repeat our key. Real ones have a few hundred bytes.
MAX_ERROR_BYTES = 1024 * 1024


class Upstream:
    """
    One pool of connections to one upstream service.

    Args:
        settings: Address, credentials, timeouts and limits.
        resolver: Finds the addresses of names; the system's by default.

    Attributes:
        calls: How many requests have gone out, repetitions included.
        circuit: Whether the service is asked at all.
        slots: How many calls are under way, and how many wait.
    """

    def __init__(self, settings: Settings, resolver: AbstractResolver | None = None) -> None:
        self._base_url = settings.OPENAI_BASE_URL
        self._extensions = {
            "timeout": {
                "connect": settings.RELAY_CONNECT_TIMEOUT_SECONDS,
                "read": settings.RELAY_IDLE_TIMEOUT_SECONDS,
                # For all of it: looking the name up, and every address in turn. Nothing waits in the pool itself.
                "pool": settings.RELAY_CONNECT_TIMEOUT_SECONDS,
            }
        }
        self._idle_timeout_seconds = settings.RELAY_IDLE_TIMEOUT_SECONDS
        self._secret = settings.OPENAI_API_KEY.get_secret_value().encode()
        self._own_headers = credentials(settings)
        tls = httpx.create_ssl_context()
        self._transport = AiohttpTransport(
            verify=tls, client=partial(new_session, tls, settings.RELAY_IDLE_TIMEOUT_SECONDS, resolver)
        )
        self._retries = settings.RELAY_UPSTREAM_RETRIES
        self.calls = 0
        self.circuit = Circuit(settings.RELAY_BREAKER_FAILURES, settings.RELAY_BREAKER_OPEN_SECONDS)
        self.slots = Slots(
            settings.RELAY_MAX_UPSTREAM_CONNECTIONS,
            settings.RELAY_MAX_UPSTREAM_QUEUE,
            settings.RELAY_UPSTREAM_QUEUE_TIMEOUT_SECONDS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: bytes = b"",
        headers: list[Header],
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> Reply:
        """
        Send one request; the reply's body is streamed and must be read or closed.

        Args:
            path: Starts with `/v1/`, values encoded.
            headers: Already reduced to what may travel upstream.
            content: `None` sends no body.

        Returns:
            Upstream's status, the headers that may travel to the client, and the body as it comes, still encoded.

        Raises:
            UpstreamQueueFull: As many calls are under way and wait as may (503).
            UpstreamCircuitOpen: It failed too often just now (503).
            UpstreamNameUnresolved: Its name has no address (502).
            UpstreamTlsFailed: Its certificate is not trusted, or it speaks no TLS (502).
            UpstreamUnreachable: No connection (502).
            UpstreamProtocolError: No valid HTTP answer (502).
            UpstreamErrorWithheld: Its error repeats the relay's key, or may do so (502).
            UpstreamTimeout: No connection, no headers or no byte in time (504).
        """
        url = f"{self._base_url}{path.removeprefix(MIRRORED_PREFIX)}"
        if query:
            url = f"{url}?{query.decode('ascii')}"
        request = self._request(method, url, headers, content)
        self.circuit.check()
        held = self.slots.take() or await self.slots.wait()
        slot: Slot | None = held
        try:
            try:
                response = await self._ask(request)
            except FAILURES as error:
                response = await self._ask_again(request, error, content)
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                return await self._without_echoed_key(response)
            reply = Reply(
                status=response.status_code,
                headers=response_headers(response.headers.raw),
                body=self._pieces(response, held),
                close=partial(_close, response, held),
            )
            slot = None  # the reply's from now on
        finally:
            if slot is not None:
                slot.release()
        return reply

    def check_echo(self, content: bytes) -> None:
        """
        Look into what is about to be told to a client as an answer of the relay's own making.

        Args:
            content: As it came from the upstream, without a coding.

        Raises:
            UpstreamErrorWithheld: It repeats the relay's key (502).
        """
        if self._secret and self._secret in content:
            raise UpstreamErrorWithheld

    def _request(
        self, method: str, url: str, headers: list[Header], content: bytes | AsyncIterator[bytes] | None
    ) -> httpx.Request:
        sent = [*headers, *self._own_headers]
        if content is not None and not isinstance(content, bytes):
            request = httpx.Request(method, url, headers=sent, content=content, extensions=self._extensions)
            del request.headers["host"]  # httpx adds it by itself; only what the client sent may go out
            return request
        # A request with a `stream` gets no headers of httpx's own, and costs half of one with a `content`.
        if content is not None:
            sent.append((b"content-length", b"%d" % len(content)))
        stream = httpx.ByteStream(content or b"")
        request = httpx.Request(method, url, headers=sent, stream=stream, extensions=self._extensions)
        request.read()
        return request

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        """Send it once, and let the circuit know how that went."""
        probe = self.circuit.enter()
        self.calls += 1
        call = ObservedCall()
        if call.traceparent is not None:
            request.headers["traceparent"] = call.traceparent
        try:
            response = await self._transport.handle_async_request(request)
        except FAILURES as error:
            if isinstance(named(error), UpstreamError):
                self.circuit.fail(probe)
                call.end(FAILED)
            else:  # the client's body broke off
                self.circuit.leave(probe)
                call.end(CANCELLED)
            raise
        except BaseException:
            self.circuit.leave(probe)
            call.end(CANCELLED)
            raise
        self.circuit.succeed()
        call.answered(response.status_code, response.headers.raw, self._secret)
        return response

    async def _ask_again(self, request: httpx.Request, error: Exception, content: object) -> httpx.Response:
        """Send it again where that is safe; raises the relay's own error where it is not, or does not help."""
        idempotent = request.method in IDEMPOTENT_METHODS and (content is None or isinstance(content, bytes))

        def allowed(failure: Exception) -> bool:
            # While the circuit is open the others are refused at once; this one need not hold on.
            closed = self.circuit.state is CircuitState.CLOSED
            return closed and may_repeat(failure, idempotent=idempotent)

        async def send() -> httpx.Response:
            note_retry()
            return await self._ask(request)

        try:
            return await repeat(send, error, allowed, self._retries)
        except FAILURES as last:
            raise named(last) from None

    async def _without_echoed_key(self, response: httpx.Response) -> Reply:
        """Read an error whole; hold it back when it repeats our credentials."""
        body = b""
        try:
            async for piece in self._pieces(response):
                body += piece
                if len(body) > MAX_ERROR_BYTES:
                    break
        finally:
            await response.aclose()
        if len(body) > MAX_ERROR_BYTES or (self._secret and self._secret in _decoded(response, body)):
            raise UpstreamErrorWithheld
        headers = [header for header in response_headers(response.headers.raw) if header[0] != b"content-length"]
        return Reply(response.status_code, headers, body)

    async def _pieces(self, response: httpx.Response, slot: Slot | None = None) -> AsyncIterator[bytes]:
        pieces = aiter(cast("httpx.AsyncByteStream", response.stream))  # the transport makes no other kind
        while True:
            try:
                # aiohttp 3.14 forgets both its reader and its own timeout when a chunk behind the headers is malformed.
                async with asyncio.timeout(self._idle_timeout_seconds):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                if slot is not None:
                    slot.release()
                return
            except FAILURES as error:
                raise named(error) from None
            yield piece


def credentials(settings: Settings) -> list[Header]:
    """The headers that tell the upstream who asks: its key, and the account where one is set."""
    own = []
    key = settings.OPENAI_API_KEY.get_secret_value()
    if key:
        own.append((b"authorization", f"Bearer {key}".encode()))
    if settings.OPENAI_ORG_ID:
        own.append((b"openai-organization", settings.OPENAI_ORG_ID.encode()))
    if settings.OPENAI_PROJECT_ID:
        own.append((b"openai-project", settings.OPENAI_PROJECT_ID.encode()))
    return own


async def _close(response: httpx.Response, slot: Slot) -> None:
    try:
        await response.aclose()
    finally:
        slot.release()


def _decoded(response: httpx.Response, body: bytes) -> bytes:
    """
    Undo the content coding of an error.

    Raises:
        UpstreamErrorWithheld: It cannot be undone, so nobody knows what it says (502).
    """
    coding = response.headers.get("content-encoding", "identity").lower()
    if coding == "identity" or not body:
        return body
    if coding.encode() not in READABLE_CODINGS:
        raise UpstreamErrorWithheld
    try:
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip and deflate apart by itself
        decoded = decoder.decompress(body, MAX_ERROR_BYTES)
    except zlib.error:
        raise UpstreamErrorWithheld from None
    # Cut short, or it unfolds into more than an error may have, or a second member follows, which nobody has read.
    if not decoder.eof or decoder.unused_data:
        raise UpstreamErrorWithheld
    return decoded
