import asyncio
from typing import Any, cast

import pytest
from websockets.frames import CloseCode

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.settings import Settings
from handlers.runtime.socket_protocol import DRAIN, SocketLimits
from handlers.runtime.socket_session import Cause, Session
from handlers.runtime.sockets import SUBPROTOCOL_SCHEME, is_socket, operations_with
from handlers.runtime.upstream_sockets import UpstreamSocket

CONTRACT = load_contract(GENERATED, FULL)
SOCKETS = {"connectRealtime", "connectRealtimeSocket"}


class QuietUpstream:
    """An upstream socket that takes everything, says nothing, and keeps what it was told at the end."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.closed: list[tuple[int, str]] = []

    async def receive(self) -> str:
        """Nothing ever comes."""
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: str | bytes) -> None:
        """Take a message."""
        self.sent.append(message)

    async def answers(self, _timeout_seconds: float) -> bool:
        """Always there."""
        return True

    async def close(self, code: int, reason: str, **_: float) -> None:
        """Remember the end."""
        self.closed.append((code, reason))


async def run(
    events: list[dict[str, Any]], *, expires_in: float | None = None, **limits: float
) -> tuple[Session, QuietUpstream, list[Any], Cause]:
    """Run a session over what a client sends; afterwards it is silent."""
    waiting = asyncio.Queue[Any]()
    for event in events:
        waiting.put_nowait(event)
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    upstream = QuietUpstream()
    settings = Settings.model_validate({name: str(value) for name, value in limits.items()})
    expires_at = None if expires_in is None else asyncio.get_running_loop().time() + expires_in
    session = Session(waiting.get, send, cast("UpstreamSocket", upstream), settings, expires_at)
    ending = await session.run()
    return session, upstream, told, ending.cause


def test_the_sockets_are_those_that_switch_protocols() -> None:
    """The contract says which operations are sockets, and which take a key as a subprotocol: the same ones."""
    assert {operation.id for operation in CONTRACT if is_socket(operation)} == SOCKETS
    assert operations_with(CONTRACT, SUBPROTOCOL_SCHEME) == SOCKETS


def test_the_server_keeps_to_what_is_set() -> None:
    """The defaults of the server are those of the settings."""
    assert SocketLimits.of(Settings()) == SocketLimits()


@pytest.mark.parametrize(
    "code, reason, passed, cause",
    [
        (1000, "done", (1000, "done"), Cause.CLIENT),
        (1005, "", (1000, ""), Cause.CLIENT),
        (1006, "", (1001, ""), Cause.CLIENT_GONE),
        (1015, "", (1001, ""), Cause.CLIENT_GONE),
        (2999, "", (1001, ""), Cause.CLIENT_GONE),
        (4999, "x", (4999, "x"), Cause.CLIENT),
    ],
)
async def test_the_upstream_hears_how_a_client_ends(
    code: int, reason: str, passed: tuple[int, str], cause: Cause
) -> None:
    """Codes that a frame may carry pass; for the others there is one that it may."""
    event = {"type": "websocket.disconnect", "code": code, "reason": reason}
    session, upstream, told, ended = await run([{"type": "websocket.receive", "text": "ä"}, event])
    assert (upstream.sent, upstream.closed, told, ended) == (["ä"], [passed], [], cause)
    assert (session.from_client.messages, session.from_client.size) == (1, 2)


async def test_a_relay_that_stops_ends_both_sides() -> None:
    """The client is told to come again, the upstream that the client goes."""
    event = {"type": "websocket.disconnect", "code": CloseCode.SERVICE_RESTART, DRAIN: True}
    _, upstream, told, cause = await run([event])
    assert cause is Cause.DRAIN
    assert [message["code"] for message in told] == [1012]
    assert upstream.closed == [(1001, "")]


@pytest.mark.parametrize(
    "limits, expires_in, cause, code",
    [
        ({"RELAY_SOCKET_IDLE_TIMEOUT_SECONDS": 0.05}, None, Cause.IDLE, 1001),
        ({"RELAY_SOCKET_TOTAL_TIMEOUT_SECONDS": 0.05}, None, Cause.TOTAL, 1001),
        ({}, 0.05, Cause.KEY_EXPIRED, 1008),
        ({}, -1.0, Cause.KEY_EXPIRED, 1008),
    ],
)
async def test_each_limit_ends_a_session(
    limits: dict[str, float], expires_in: float | None, cause: Cause, code: int
) -> None:
    """A silent session ends by the first limit that it meets, and the client is told."""
    _, upstream, told, ended = await run([], expires_in=expires_in, **limits)
    assert ended is cause
    assert [message["code"] for message in told] == [code]
    assert len(upstream.closed) == 1
