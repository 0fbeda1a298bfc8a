"""
The upstream's side of sockets: the only module that opens WebSockets to the OpenAI API, with the relay's key.

Beside `handlers.runtime.upstream`, which does the same for requests. Redirects are not followed and no proxy is taken.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Sequence
from http import HTTPStatus

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.http11 import Response
from websockets.typing import Subprotocol

from handlers.runtime.circuit import Circuit
from handlers.runtime.counts import CANCELLED, FAILED
from handlers.runtime.exceptions import (
    UpstreamError,
    UpstreamErrorWithheld,
    UpstreamNameUnresolved,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsFailed,
    UpstreamUnreachable,
)
from handlers.runtime.headers import response_headers
from handlers.runtime.messages import Header, Reply
from handlers.runtime.observation import ObservedCall
from handlers.runtime.settings import Settings
from handlers.runtime.socket_protocol import CLOSE_TIMEOUT_SECONDS
from handlers.runtime.upstream import MIRRORED_PREFIX, credentials
from handlers.runtime.wrapped_calls import UpstreamRefusal

# Messages that wait for a slow client before no more are read; what one read brings is kept beyond that.
MAX_WAITING_MESSAGES = 2
# The upstream's own names; `realtime` says that the messages are its events.
SUBPROTOCOL = "realtime"
SUBPROTOCOL_PREFIX = "openai-beta."
# Of a handshake, the rest is about bodies.
_HANDSHAKE_ONLY = ("openai-", "x-")


class UpstreamSockets:
    """
    Opens sockets to one upstream service.

    Args:
        settings: Address, credentials and limits.
        circuit: Whether the service is asked at all; the one of requests.

    Attributes:
        calls: How many handshakes have gone out.
    """

    def __init__(self, settings: Settings, circuit: Circuit) -> None:
        self._circuit = circuit
        scheme, _, rest = settings.OPENAI_BASE_URL.partition("://")
        self._base_url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}"
        self._secret = settings.OPENAI_API_KEY.get_secret_value()
        self._own_headers = credentials(settings)
        self._connect_timeout_seconds = settings.RELAY_CONNECT_TIMEOUT_SECONDS
        self._max_message_bytes = settings.RELAY_SOCKET_MAX_MESSAGE_BYTES
        self._tls: ssl.SSLContext | None = None
        self.calls = 0

    async def open(
        self, path: str, *, query: bytes, headers: Iterable[Header], subprotocols: Sequence[str]
    ) -> "UpstreamSocket":
        """
        Connect and shake hands.

        Args:
            path: Starts with `/v1/`.
            query: As received, without `?` and plain ASCII.
            headers: Already reduced to what may travel upstream.
            subprotocols: What the client offered; those that are the upstream's travel, a key never.

        Raises:
            UpstreamRefusal: It answered with an HTTP status.
            UpstreamCircuitOpen: It failed too often just now (503).
            UpstreamNameUnresolved: Its name has no address (502).
            UpstreamTlsFailed: Its certificate is not trusted, or it speaks no TLS (502).
            UpstreamUnreachable: No connection (502).
            UpstreamProtocolError: No valid handshake (502).
            UpstreamErrorWithheld: Its error repeats the relay's key, or may do so (502).
            UpstreamTimeout: No connection or no answer in time (504).
        """
        url = f"{self._base_url}{path.removeprefix(MIRRORED_PREFIX)}"
        if query:
            url = f"{url}?{query.decode('ascii')}"
        sent = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in (*headers, *self._own_headers)
            if name != b"accept-encoding"  # nothing here could read a coded refusal to look for the key
        ]
        probe = self._circuit.enter()
        self.calls += 1
        call = ObservedCall()
        if call.traceparent is not None:
            sent.append(("traceparent", call.traceparent))
        try:
            connection = await self._connect(url, sent, subprotocols)
        except InvalidStatus as refusal:
            self._circuit.succeed()
            call.answered(refusal.response.status_code, _raw(refusal.response), self._secret.encode())
            raise self._refused(refusal.response) from None
        except (WebSocketException, OSError, EOFError, ValueError) as error:
            self._circuit.fail(probe)
            call.end(FAILED)
            raise _named(error) from None
        except BaseException:
            self._circuit.leave(probe)
            call.end(CANCELLED)
            raise
        self._circuit.succeed()
        if connection.response is not None:
            response = connection.response
            call.answered(response.status_code, _raw(response), self._secret.encode())
        return UpstreamSocket(connection, self._secret)

    async def _connect(self, url: str, headers: list[tuple[str, str]], subprotocols: Sequence[str]) -> ClientConnection:
        return await _Connect(
            url,
            additional_headers=headers,
            user_agent_header=None,
            subprotocols=[Subprotocol(name) for name in subprotocols if _travels(name)] or None,
            compression=None,
            proxy=None,
            ssl=self._context() if url.startswith("wss:") else None,
            open_timeout=self._connect_timeout_seconds,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            ping_interval=None,  # the session asks itself: it knows when a pong cannot come through
            max_size=self._max_message_bytes,
            max_queue=MAX_WAITING_MESSAGES,
        )

    def _refused(self, response: Response) -> Exception:
        """The upstream's answer, held back when it repeats our credentials or cannot be read to tell."""
        body = bytes(response.body or b"")
        coding = response.headers.get("content-encoding", "identity").lower()
        if (coding != "identity" and body) or (self._secret and self._secret.encode() in body):
            return UpstreamErrorWithheld()
        if response.status_code < HTTPStatus.MULTIPLE_CHOICES:
            return UpstreamProtocolError()
        received = _raw(response)
        return UpstreamRefusal(
            Reply(response.status_code, [h for h in response_headers(received) if h[0] != b"content-length"], body)
        )

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls


class UpstreamSocket:
    """
    One open socket to the upstream.

    Args:
        secret: The relay's key, which no message may carry to a client.
    """

    def __init__(self, connection: ClientConnection, secret: str) -> None:
        self._connection = connection
        self._secret_text = secret
        self._secret_bytes = secret.encode()

    @property
    def subprotocol(self) -> str | None:
        """What the upstream has chosen."""
        return self._connection.subprotocol

    @property
    def headers(self) -> list[Header]:
        """Headers of its handshake that may travel to the client."""
        response = self._connection.response
        received = response_headers(_raw(response)) if response is not None else []
        return [header for header in received if header[0].decode("ascii").startswith(_HANDSHAKE_ONLY)]

    async def receive(self) -> str | bytes:
        """
        The next message.

        Raises:
            UpstreamErrorWithheld: It repeats the relay's key.
            ConnectionClosed: There is none any more; `ending` tells why.
        """
        message = await self._connection.recv()
        repeated = self._secret_text in message if isinstance(message, str) else self._secret_bytes in message
        if repeated and self._secret_text:
            raise UpstreamErrorWithheld
        return message

    async def send(self, message: str | bytes) -> None:
        """
        Pass a message on; waits while the upstream takes nothing.

        Raises:
            ConnectionClosed: It has gone; `ending` tells why.
        """
        await self._connection.send(message)

    async def answers(self, timeout_seconds: float) -> bool:
        """Whether a ping is answered in time, or the connection is known to be over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(await self._connection.ping())
        except TimeoutError:
            return False
        except ConnectionClosed:
            return True
        return True

    @property
    def ending(self) -> tuple[int, str]:
        """Code and reason with which it ended; 1006 when it vanished, 1002 and the like when it broke the protocol."""
        protocol = self._connection.protocol
        # What went out first tells what was wrong with a message of theirs.
        theirs = protocol.close_rcvd_then_sent or protocol.close_sent is None
        first = protocol.close_rcvd if theirs else protocol.close_sent
        if first is None:
            return CloseCode.ABNORMAL_CLOSURE, ""
        return first.code, "" if self._secret_text and self._secret_text in first.reason else first.reason

    async def close(self, code: int, reason: str, *, patience_seconds: float = CLOSE_TIMEOUT_SECONDS) -> None:
        """End it; one that does not answer in time is cut off."""
        try:
            async with asyncio.timeout(patience_seconds):
                await self._connection.close(code, reason)
        except TimeoutError:
            pass
        finally:
            self._connection.transport.abort()


class _Connect(connect):
    """The library's, but for redirects: the relay's credentials go to the configured address and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def _travels(name: str) -> bool:
    return name == SUBPROTOCOL or name.startswith(SUBPROTOCOL_PREFIX)


def _raw(response: Response) -> list[Header]:
    return [(name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in response.headers.raw_items()]


def _named(error: Exception) -> UpstreamError:
    match error:
        case socket.gaierror():
            return UpstreamNameUnresolved()
        case ssl.SSLError():
            return UpstreamTlsFailed()
        case TimeoutError():
            return UpstreamTimeout()
        case OSError():
            return UpstreamUnreachable()
    return UpstreamProtocolError()
