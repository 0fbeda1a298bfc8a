"""How the upstream client sends again, leaves the upstream alone, and holds its slots."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from handlers.runtime.circuit import CircuitState
from handlers.runtime.connection import ClientGone
from handlers.runtime.counts import OperationCounts
from handlers.runtime.exceptions import (
    RelayError,
    UpstreamCircuitOpen,
    UpstreamProtocolError,
    UpstreamQueueFull,
    UpstreamTimeout,
    UpstreamTlsFailed,
    UpstreamUnreachable,
)
from handlers.runtime.observation import OBSERVATION, Observation
from handlers.runtime.upstream import Upstream
from handlers.runtime.upstream_wire import Unanswered
from tests.handlers.runtime.transports import Pieces, upstream

SOMEWHERE = ConnectionKey(
    host="api.example", port=443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)
REFUSED = aiohttp.ClientConnectorError(SOMEWHERE, OSError(111, "refused"))
UNKNOWN_NAME = aiohttp.ClientConnectorDNSError(SOMEWHERE, OSError(-2, "unknown"))
UNTRUSTED = aiohttp.ClientConnectorCertificateError(SOMEWHERE, ssl.CertificateError("expired"))

Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Plan(httpx.AsyncBaseTransport):
    """Fails or answers, call by call, and touches a body only when it answers."""

    def __init__(self) -> None:
        self.steps: list[Exception | httpx.Response] = []
        self.bodies: list[bytes] = []
        self.asked = 0
        self.silent = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Take the next step; without one answer 200."""
        self.asked += 1
        if self.silent:
            await asyncio.Event().wait()
        step = self.steps.pop(0) if self.steps else httpx.Response(200, stream=Pieces(b"{}"))
        if isinstance(step, Exception):
            raise step
        self.bodies.append(await request.aread())
        return step


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The transport of the next `Upstream`."""
    made = Plan()
    monkeypatch.setattr("handlers.runtime.upstream.Transport", lambda *_: made)
    return made


async def pieces() -> AsyncIterator[bytes]:
    """A body that can be read once."""
    yield b"once"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("failure", [REFUSED, UNKNOWN_NAME], ids=["refused", "unknown name"])
async def test_where_nothing_was_sent_every_call_is_sent_again(plan: Plan, method: str, failure: Exception) -> None:
    """Two repetitions by default, and the log says how many there were."""
    plan.steps = [failure, failure]
    observation = Observation(OperationCounts("", ""))
    before = OBSERVATION.set(observation)
    try:
        reply = await upstream().send(method, "/v1/models", headers=[], content=b"x")
    finally:
        OBSERVATION.reset(before)
    assert (reply.status, plan.asked, plan.bodies) == (200, 3, [b"x"])
    assert observation.fields()["retries"] == 2


async def test_a_body_that_nobody_has_touched_is_sent_again(plan: Plan) -> None:
    """An upload survives a refused connection."""
    plan.steps = [REFUSED]
    await upstream().send("POST", "/v1/files", headers=[], content=pieces())
    assert plan.bodies == [b"once"]


async def test_the_last_failure_is_told(plan: Plan) -> None:
    """When the repetitions do not help, the caller gets the relay's own error."""
    plan.steps = [REFUSED, REFUSED, UNTRUSTED]
    client = upstream()
    with pytest.raises(UpstreamTlsFailed):
        await client.send("GET", "/v1/models", headers=[])
    assert (plan.asked, client.calls) == (3, 3)


async def test_without_repetitions_nothing_is_sent_again(plan: Plan) -> None:
    """`RELAY_UPSTREAM_RETRIES=0` means once."""
    plan.steps = [REFUSED]
    with pytest.raises(UpstreamUnreachable):
        await upstream(RELAY_UPSTREAM_RETRIES=0).send("GET", "/v1/models", headers=[])
    assert plan.asked == 1


@pytest.mark.parametrize("method, asked", [("GET", 2), ("DELETE", 2), ("PUT", 2), ("POST", 1), ("PATCH", 1)])
async def test_a_connection_that_broke_without_an_answer(plan: Plan, method: str, asked: int) -> None:
    """Whether the upstream has done something is unknown: only what may be done twice is sent again."""
    plan.steps = [Unanswered("gone")]
    if asked == 2:
        assert (await upstream().send(method, "/v1/files/a", headers=[])).status == 200
    else:
        with pytest.raises(UpstreamProtocolError):
            await upstream().send(method, "/v1/files/a", headers=[])
    assert plan.asked == asked


async def test_a_streamed_body_is_never_sent_again_once_it_was_sent(plan: Plan) -> None:
    """Its bytes are gone, whatever the method."""
    plan.steps = [Unanswered("gone")]
    with pytest.raises(UpstreamProtocolError):
        await upstream().send("PUT", "/v1/files", headers=[], content=pieces())
    assert plan.asked == 1


@pytest.mark.parametrize(
    "failure, expected",
    [
        (aiohttp.ServerDisconnectedError("in mid-head"), UpstreamProtocolError),
        (aiohttp.ClientPayloadError("not HTTP"), UpstreamProtocolError),
        (aiohttp.ConnectionTimeoutError(), UpstreamTimeout),
        (aiohttp.SocketTimeoutError(), UpstreamTimeout),
        (UNTRUSTED, UpstreamTlsFailed),
    ],
    ids=["in mid-head", "not HTTP", "connect timeout", "silence", "certificate"],
)
async def test_other_failures_are_not_repeated(plan: Plan, failure: Exception, expected: type[RelayError]) -> None:
    """What will not help, what has used its time up, and what has begun to answer."""
    plan.steps = [failure]
    with pytest.raises(expected):
        await upstream().send("GET", "/v1/models", headers=[])
    assert plan.asked == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
async def test_no_status_is_repeated(plan: Plan, status: int) -> None:
    """SDKs repeat by what upstream's headers say, which pass on; a relay that did so too would multiply them."""
    headers = {"retry-after": "7", "x-should-retry": "true"}
    plan.steps = [httpx.Response(status, headers=headers, stream=Pieces(b"{}"))]
    reply = await upstream().send("GET", "/v1/models", headers=[])
    assert (reply.status, plan.asked) == (status, 1)
    assert dict(reply.headers) == {name.encode(): value.encode() for name, value in headers.items()}


async def test_the_circuit_opens_and_nobody_asks(plan: Plan) -> None:
    """After failures in a row calls are refused without being sent; repetitions stop as well."""
    plan.steps = [REFUSED] * 10
    client = upstream(RELAY_BREAKER_FAILURES=4)
    for _ in range(2):
        with pytest.raises(UpstreamUnreachable):
            await client.send("POST", "/v1/responses", headers=[], content=b"{}")
    assert (plan.asked, client.circuit.state) == (4, CircuitState.OPEN)
    with pytest.raises(UpstreamCircuitOpen) as caught:
        await client.send("GET", "/v1/models", headers=[])
    assert dict(caught.value.headers) == {"Retry-After": "10"}
    assert (plan.asked, client.calls) == (4, 4)


@pytest.mark.parametrize(
    "step", [httpx.Response(500), httpx.Response(429), httpx.Response(404)], ids=["500", "429", "404"]
)
async def test_an_answer_of_any_status_is_no_failure(plan: Plan, step: httpx.Response) -> None:
    """An upstream that answers is there, and says itself when to come back."""
    client = upstream(RELAY_BREAKER_FAILURES=1)
    plan.steps = [httpx.Response(step.status_code, stream=Pieces(b"{}"))]
    await client.send("GET", "/v1/models", headers=[])
    assert client.circuit.state is CircuitState.CLOSED


async def test_a_clients_own_failure_is_not_the_upstreams(plan: Plan) -> None:
    """A body that breaks off on its way says nothing about who should have got it."""
    client = upstream(RELAY_BREAKER_FAILURES=1)
    broken = httpx.WriteError("wrapped")
    broken.__cause__ = ClientGone()
    plan.steps = [broken]
    with pytest.raises(ClientGone):
        await client.send("POST", "/v1/files", headers=[], content=pieces())
    assert client.circuit.state is CircuitState.CLOSED


async def test_a_slot_is_held_until_the_body_is_read(plan: Plan) -> None:
    """A stream holds its slot; its last byte gives it back, and closing it later changes nothing."""
    client = upstream(RELAY_MAX_UPSTREAM_CONNECTIONS=1, RELAY_MAX_UPSTREAM_QUEUE=0)
    reply = await client.send("GET", "/v1/models", headers=[])
    with pytest.raises(UpstreamQueueFull):
        await client.send("GET", "/v1/models", headers=[])
    assert (client.calls, client.slots.held) == (1, 1)
    await read(reply.body)
    assert client.slots.held == 0
    assert reply.close is not None
    await reply.close()
    assert client.slots.held == 0


async def test_a_slot_is_given_back_when_the_reply_is_closed(plan: Plan) -> None:
    """Also unread."""
    del plan
    client = upstream(RELAY_MAX_UPSTREAM_CONNECTIONS=1)
    reply = await client.send("GET", "/v1/models", headers=[])
    assert reply.close is not None
    await reply.close()
    assert client.slots.held == 0


@pytest.mark.parametrize("step", [REFUSED, httpx.Response(500), UNTRUSTED], ids=["refused", "error", "certificate"])
async def test_a_slot_is_given_back_when_there_is_no_stream(plan: Plan, step: Exception | httpx.Response) -> None:
    """After a failure, and after an error of the upstream, which is read at once."""
    client = upstream(RELAY_UPSTREAM_RETRIES=0)
    plan.steps = [step if isinstance(step, Exception) else httpx.Response(step.status_code, stream=Pieces(b"{}"))]
    with contextlib.suppress(RelayError):
        await client.send("GET", "/v1/models", headers=[])
    assert client.slots.held == 0


async def test_a_client_that_leaves_gives_its_slot_back(plan: Plan) -> None:
    """While the upstream is asked, between two tries, and in the queue."""
    client: Upstream = upstream(RELAY_MAX_UPSTREAM_CONNECTIONS=1, RELAY_BREAKER_FAILURES=1)
    plan.silent = True
    asking = asyncio.create_task(client.send("GET", "/v1/models", headers=[]))
    while not plan.asked:
        await asyncio.sleep(0)
    queued = asyncio.create_task(client.send("GET", "/v1/models", headers=[]))
    while not client.slots.waiting:
        await asyncio.sleep(0)
    for task in (queued, asking):
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert (client.slots.held, client.slots.waiting, client.circuit.state) == (0, 0, CircuitState.CLOSED)


async def test_a_client_that_leaves_between_two_tries_ends_them(plan: Plan) -> None:
    """Nothing is sent for somebody who is gone."""
    client = upstream()
    plan.steps = [REFUSED] * 3
    task = asyncio.create_task(client.send("GET", "/v1/models", headers=[]))
    while not plan.asked:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (plan.asked, client.slots.held) == (1, 0)


async def read(body: bytes | AsyncIterator[bytes]) -> bytes:
    """All of a streamed body."""
    assert not isinstance(body, bytes)
    return b"".join([piece async for piece in body])
