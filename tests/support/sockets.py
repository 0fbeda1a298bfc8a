"""Clients of the relay's sockets: of the well-behaved kind, and those that speak raw bytes, vanish or never answer."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.servers import RelayProcess

PATH = "/v1/realtime"
MODEL_QUERY = "?model=gpt-realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
TIMEOUT_SECONDS = 10.0  # a hang fails
# What RFC 6455 asks of a handshake; raw tests leave out or change one of these.
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@contextlib.asynccontextmanager
async def opened(
    relay: RelayProcess,
    target: str = PATH + MODEL_QUERY,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[ClientConnection]:
    """
    A session that has begun; `session.created` has been read.

    Args:
        headers: Instead of the relay's key.
    """
    connection = await connect(
        f"ws{relay.url.removeprefix('http')}{target}",
        additional_headers=relay.headers if headers is None else headers,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        proxy=None,
        compression=None,
        open_timeout=TIMEOUT_SECONDS,
        close_timeout=TIMEOUT_SECONDS,
        **{"max_size": None, "ping_interval": None, **options},
    )
    try:
        created = json.loads(await receive(connection))
        assert created["type"] == "session.created"
        yield connection
    finally:
        await connection.close()


async def receive(connection: ClientConnection) -> str | bytes:
    """The next message, in time."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        return await connection.recv()


async def ending(connection: ClientConnection, *, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[int, str]:
    """Code and reason with which the relay ends the session; what comes before is passed over."""
    async with asyncio.timeout(timeout_seconds):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")


def vanish(connection: ClientConnection) -> None:
    """Leave without a word: the peer's next packet is answered with a reset."""
    opened_socket: socket.socket = connection.transport.get_extra_info("socket")
    opened_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()
