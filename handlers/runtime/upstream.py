"""
The upstream client: the only module that opens connections to the OpenAI API and the only one that holds its key.

httpx types over the aiohttp transport, which is called directly: the httpx client's own layers (redirects, cookies,
decoding) are not wanted here and cost several times more CPU. Bodies pass through undecoded, pieces as they come.
"""

from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self, cast

import httpx
from aiohttp.abc import AbstractResolver

from handlers.runtime.circuit import Circuit, CircuitState
from handlers.runtime.content_coding import Undecodable, decode_body
from handlers.runtime.counts import CANCELLED, FAILED
from handlers.runtime.exceptions import UpstreamError, UpstreamErrorWithheld
from handlers.runtime.headers import has_events, response_headers, without_length
from handlers.runtime.messages import Header, Reply
from handlers.runtime.observation import ObservedCall, note_retry
from handlers.runtime.settings import Settings
from handlers.runtime.time_limits import TimeLimit
from handlers.runtime.upstream_retries import FAILURES, IDEMPOTENT_METHODS, may_repeat, named, repeat
from handlers.runtime.upstream_slots import Slot, Slots
from handlers.runtime.upstream_transport import Transport, UpstreamStream, new_request, sent_at_once

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
        self._secret = settings.OPENAI_API_KEY.get_secret_value().encode()
        self._own_headers = credentials(settings)
        self._idle_limit = TimeLimit(settings.RELAY_IDLE_TIMEOUT_SECONDS)
        self._transport = Transport(
            settings.RELAY_CONNECT_TIMEOUT_SECONDS, settings.RELAY_IDLE_TIMEOUT_SECONDS, resolver
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
        Send one request; the reply's body must be read or closed where it is streamed.

        Args:
            path: Starts with `/v1/`, values encoded.
            headers: Already reduced to what may travel upstream.
            content: `None` sends no body.

        Returns:
            Upstream's status, the headers that may travel to the client, and the body, still encoded: as it comes, or
            as a whole where it came with its headers.

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
        request = new_request(method, url, [*headers, *self._own_headers], content)
        self.circuit.check()
        held = self.slots.take() or await self.slots.wait()
        slot: Slot | None = held
        try:
            try:
                response, kept = await self._ask(request)
            except FAILURES as error:
                response, kept = await self._ask_again(request, error, content)
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                return await self._without_echoed_key(response, kept)
            sent = content is None or isinstance(content, bytes)  # else its body may still be on its way
            whole = _take_whole(response, kept) if sent else None
            if whole is not None:
                return Reply(response.status_code, without_length(kept), whole)
            reply = Reply(
                status=response.status_code,
                headers=kept,
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

    async def _ask(self, request: httpx.Request) -> tuple[httpx.Response, list[Header]]:
        """Send it once, and let the circuit know how that went; with the headers that may travel to the client."""
        probe = self.circuit.enter()
        self.calls += 1
        call = ObservedCall()
        if call.traceparent is not None:
            request.headers["traceparent"] = call.traceparent
        try:
            if sent_at_once(request):
                with self._idle_limit.block():
                    response = await self._transport.handle_async_request(request)
            else:  # the time of its answer begins when all of it has gone out
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
        kept = response_headers(response.headers.raw)
        call.answered(response.status_code, kept, self._secret)
        return response, kept

    async def _ask_again(
        self, request: httpx.Request, error: Exception, content: object
    ) -> tuple[httpx.Response, list[Header]]:
        """Send it again where that is safe; raises the relay's own error where it is not, or does not help."""
        idempotent = request.method in IDEMPOTENT_METHODS and (content is None or isinstance(content, bytes))

        def allowed(failure: Exception) -> bool:
            # While the circuit is open the others are refused at once; this one need not hold on.
            closed = self.circuit.state is CircuitState.CLOSED
            return closed and may_repeat(failure, idempotent=idempotent)

        async def send() -> tuple[httpx.Response, list[Header]]:
            note_retry()
            return await self._ask(request)

        try:
            return await repeat(send, error, allowed, self._retries)
        except FAILURES as last:
            raise named(last) from None

    async def _without_echoed_key(self, response: httpx.Response, kept: list[Header]) -> Reply:
        """Read an error whole; hold it back when it repeats our credentials."""
        body = b""
        try:
            async for piece in self._pieces(response):
                body += piece
                if len(body) > MAX_ERROR_BYTES:
                    break
        finally:
            await response.aclose()
        if len(body) > MAX_ERROR_BYTES:
            raise UpstreamErrorWithheld
        if self._secret:
            try:
                self.check_echo(decode_body(body, kept, MAX_ERROR_BYTES))
            except Undecodable:  # so nobody knows what it says
                raise UpstreamErrorWithheld from None
        return Reply(response.status_code, without_length(kept), body)

    async def _pieces(self, response: httpx.Response, slot: Slot | None = None) -> AsyncIterator[bytes]:
        pieces = aiter(cast("httpx.AsyncByteStream", response.stream))  # the transport makes no other kind
        while True:
            try:
                # Also because aiohttp 3.14 forgets its reader when a chunk behind the headers is malformed.
                with self._idle_limit.block():
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


def _take_whole(response: httpx.Response, headers: list[Header]) -> bytes | None:
    """The body where it came with the headers; an event stream stays one, however soon it has ended."""
    stream = response.stream
    return stream.take_whole() if isinstance(stream, UpstreamStream) and not has_events(headers) else None


async def _close(response: httpx.Response, slot: Slot) -> None:
    try:
        await response.aclose()
    finally:
        slot.release()
