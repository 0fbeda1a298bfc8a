"""An upstream that cannot be reached, is not who it says, breaks off or is too busy: what callers are told."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from handlers.runtime import exceptions as exc
from handlers.runtime.circuit import CircuitState
from handlers.runtime.exceptions import RelayError
from handlers.runtime.messages import Reply
from handlers.runtime.settings import Settings
from handlers.runtime.upstream import Upstream
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.bad_days import refusing_address
from tests.support.certificates import Authority
from tests.support.raw_upstream import OWN_ANSWER, RawUpstream
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import HOST, RelayProcess, ServerThread, running_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

BODY = {"model": "m", "input": "x"}
QUEUE_SECONDS = 1.0
OPEN_SECONDS = 2.0


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that upstream clients of this test trust, and no other."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


class Names(AbstractResolver):
    """Knows names as a test says, and asks no name server."""

    def __init__(self, *, slow: bool = False, known: bool = False) -> None:
        self.asked = 0
        self._slow = slow
        self._known = known

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer with loopback, not at all, or that there is no such name."""
        self.asked += 1
        if self._slow:
            await asyncio.Event().wait()
        if not self._known:
            raise socket.gaierror(socket.EAI_NONAME, "made up")
        return [ResolveResult(hostname=host, host=HOST, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


def client(url: str, resolver: AbstractResolver | None = None, **settings: object) -> Upstream:
    """An upstream client as a relay has it."""
    return Upstream(Settings.model_validate({"OPENAI_BASE_URL": f"{url}/v1", **settings}), resolver)


async def ask(upstream: Upstream, method: str = "POST") -> bytes:
    """Send one request and read its answer."""
    content = b"{}" if method == "POST" else None
    reply = await upstream.send(method, "/v1/models", headers=[], content=content)
    return await whole(reply)


async def whole(reply: Reply) -> bytes:
    """The body of an answer."""
    return reply.body if isinstance(reply.body, bytes) else b"".join([piece async for piece in reply.body])


async def test_a_trusted_upstream_is_asked(authority: Authority) -> None:
    """The other tests fail for the reason they name: a good certificate works, by address and by name."""
    for host in (HOST, "upstream.test"):
        with RawUpstream(authority.server(host)) as raw:
            async with client(f"https://{host}:{raw.port}", Names(known=True)) as upstream:
                assert await ask(upstream) == OWN_ANSWER


@pytest.mark.parametrize(
    "host, bad",
    [(HOST, {"self_signed": True}), (HOST, {"expired": True}), ("other.test", {})],
    ids=["signed by itself", "expired", "for another name"],
)
async def test_an_upstream_without_a_good_certificate_is_told_nothing(
    host: str, bad: dict[str, bool], authority: Authority
) -> None:
    """It is not sent a byte, the failure has its own name, and it is not tried again."""
    with RawUpstream(authority.server(host, **bad)) as raw:
        async with client(raw.url) as upstream:
            with pytest.raises(exc.UpstreamTlsFailed):
                await ask(upstream, "GET")
            assert upstream.calls == 1
        assert raw.requests == 0


async def test_an_upstream_that_speaks_no_tls_has_its_own_name(authority: Authority) -> None:
    """HTTP in answer to a handshake, as a web server on the wrong port gives it."""
    del authority
    with RawUpstream(speaks_first=True) as raw:
        async with client(f"https://{HOST}:{raw.port}") as upstream:
            with pytest.raises(exc.UpstreamTlsFailed):
                await asyncio.wait_for(ask(upstream), 10)


async def test_a_name_without_an_address_has_its_own_name() -> None:
    """Every look-up is repeated, since nothing was sent; then the failure is told."""
    names = Names()
    async with client("http://upstream.test", names) as upstream:
        with pytest.raises(exc.UpstreamNameUnresolved):
            await ask(upstream)
    assert names.asked == 3


async def test_a_look_up_has_the_time_to_connect() -> None:
    """A name server that keeps silent does not hold a request back beyond `RELAY_CONNECT_TIMEOUT_SECONDS`."""
    async with client("http://upstream.test", Names(slow=True), RELAY_CONNECT_TIMEOUT_SECONDS=0.3) as upstream:
        with pytest.raises(exc.UpstreamTimeout):
            await asyncio.wait_for(ask(upstream), 5)


async def test_a_refused_connection_is_tried_again() -> None:
    """Three times by default, whatever the method."""
    with refusing_address() as url:
        async with client(url) as upstream:
            for method in ("GET", "POST"):
                calls = upstream.calls
                with pytest.raises(exc.UpstreamUnreachable):
                    await ask(upstream, method)
                assert upstream.calls == calls + 3


@pytest.mark.parametrize("warm", [False, True], ids=["a new connection", "a kept connection"])
@pytest.mark.parametrize(
    "method, pieces, expected",
    [
        ("GET", (), None),
        ("DELETE", (), None),
        ("POST", (), exc.UpstreamProtocolError),
        ("GET", (b"HTTP/1.1 200 O",), exc.UpstreamProtocolError),
        ("GET", (b"HTTP/1.1 100 Continue\r\n\r\n",), exc.UpstreamProtocolError),
    ],
    ids=["GET", "DELETE", "POST", "GET with half a head", "GET with an interim answer"],
)
async def test_a_connection_that_breaks_without_an_answer(
    method: str, pieces: tuple[bytes, ...], expected: type[RelayError] | None, warm: bool
) -> None:
    """What may be done twice is sent again unless an answer had begun; the rest is sent exactly once."""
    with RawUpstream() as raw:
        async with client(raw.url) as upstream:
            if warm:
                assert await ask(upstream) == OWN_ANSWER
            raw.play(*pieces, then_close=True)
            if expected is None:
                assert await ask(upstream, method) == OWN_ANSWER
            else:
                with pytest.raises(expected):
                    await ask(upstream, method)
            assert raw.requests == (2 if expected is None else 1)


@pytest.fixture(scope="module")
def narrow(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with one connection to the upstream and room for one that waits."""
    environment = {
        "RELAY_MAX_UPSTREAM_CONNECTIONS": "1",
        "RELAY_MAX_UPSTREAM_QUEUE": "1",
        "RELAY_UPSTREAM_QUEUE_TIMEOUT_SECONDS": str(QUEUE_SECONDS),
    }
    with running_relay(tmp_path_factory.mktemp("narrow"), upstream_server.url, environment) as process:
        yield process


def post(relay: RelayProcess, **more: object) -> httpx.Response:
    """Ask for a response."""
    return httpx.post(f"{relay.url}/v1/responses", headers=relay.headers, json={**BODY, **more}, timeout=15)


def test_beyond_the_queue_callers_are_told_to_come_back(narrow: RelayProcess, upstream: SimulatedUpstream) -> None:
    """One is asked, one waits, the third gets 503 at once with `Retry-After`; the one that waits has its turn."""
    upstream.faults.add(Fault(delay_seconds=QUEUE_SECONDS / 2, times=1))
    with ThreadPoolExecutor() as beside:
        first = beside.submit(post, narrow)
        wait_until(lambda: upstream.recorder.count == 1)
        others = [beside.submit(post, narrow) for _ in range(4)]
        replies = [other.result() for other in others]
        assert first.result().status_code == 200
    refused = [reply for reply in replies if reply.status_code == 503]
    assert sorted(reply.status_code for reply in replies) == [200, 503, 503, 503]
    for reply in refused:
        assert_relay_error(reply, exc.UpstreamQueueFull)
        assert reply.headers["retry-after"] == "1"


def test_nobody_waits_for_a_stream_beyond_the_queues_time(narrow: RelayProcess, upstream: SimulatedUpstream) -> None:
    """A stream keeps its connection to its end; who waits behind it is told after `…_QUEUE_TIMEOUT_SECONDS`."""
    upstream.faults.add(Fault(silent_after_bytes=10, times=1))
    with httpx.stream(
        "POST", f"{narrow.url}/v1/responses", headers=narrow.headers, json={**BODY, "stream": True}
    ) as stream:
        assert stream.status_code == 200
        began = time.monotonic()
        assert_relay_error(post(narrow), exc.UpstreamQueueFull)
        assert time.monotonic() - began > QUEUE_SECONDS / 2
    # The client of the stream has left, so its connection is free again.
    assert post(narrow).status_code == 200


def test_clients_that_leave_the_queue_leave_it_to_others(narrow: RelayProcess, upstream: SimulatedUpstream) -> None:
    """However many give up while they wait or are served, the next one is served."""
    for _ in range(3):
        upstream.faults.add(Fault(delay_seconds=0.3, times=1))
        with ThreadPoolExecutor() as beside:
            tasks = [beside.submit(leave, narrow) for _ in range(6)]
            for task in tasks:
                task.result()
        upstream.faults.clear()
        assert post(narrow).status_code == 200


def leave(relay: RelayProcess) -> None:
    """Ask, and go before there is an answer."""
    try:
        httpx.post(f"{relay.url}/v1/responses", headers=relay.headers, json=BODY, timeout=0.1)
    except httpx.TimeoutException:
        return


def test_the_log_says_how_often_a_request_was_sent_again(tmp_path: Path) -> None:
    """One line a request, whatever it took."""
    with refusing_address() as url, running_relay(tmp_path, url) as relay:
        assert_relay_error(post(relay), exc.UpstreamUnreachable)
        wait_until(lambda: '"outcome":"upstream_unreachable"' in relay.printed())
        lines = [json.loads(line) for line in relay.printed().splitlines() if line.startswith("{")]
    (line,) = (line for line in lines if line.get("operation") == "createResponse")
    assert (line["retries"], line["upstream_calls"]) == (2, 3)


def test_a_dead_upstream_is_left_alone_and_found_again(tmp_path: Path) -> None:
    """After failures in a row callers get 503 at once with the time to wait; one probe finds the upstream's return."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        environment = {
            "RELAY_BREAKER_FAILURES": "3",
            "RELAY_BREAKER_OPEN_SECONDS": str(OPEN_SECONDS),
            "RELAY_UPSTREAM_RETRIES": "0",
        }
        with running_relay(tmp_path, f"http://{HOST}:{taken.getsockname()[1]}", environment) as relay:
            for _ in range(3):
                assert_relay_error(post(relay), exc.UpstreamUnreachable)
            reply = post(relay)
            assert_relay_error(reply, exc.UpstreamCircuitOpen)
            assert 1 <= int(reply.headers["retry-after"]) <= OPEN_SECONDS
            wait_until(lambda: post(relay).json()["error"]["code"] == "upstream_unreachable")  # the probe, in vain
            assert_relay_error(post(relay), exc.UpstreamCircuitOpen)
            taken.listen()
            threading.Thread(target=_answer, args=(taken,), daemon=True).start()
            wait_until(lambda: post(relay).status_code == 200)
            assert post(relay).status_code == 200


async def test_one_probe_at_a_time_goes_to_a_dead_upstream() -> None:
    """Of many callers at the end of the time one asks; the others are refused without a connection."""
    with RawUpstream() as raw:
        async with client(
            raw.url, RELAY_BREAKER_FAILURES=1, RELAY_BREAKER_OPEN_SECONDS=0.05, RELAY_UPSTREAM_RETRIES=0
        ) as upstream:
            raw.play(then_close=True)
            with pytest.raises(exc.UpstreamProtocolError):
                await ask(upstream)
            while state(upstream) is not CircuitState.HALF_OPEN:
                await asyncio.sleep(0.01)
            raw.play()  # takes the probe's request and keeps silent
            probe = asyncio.create_task(ask(upstream))
            while not raw.requests:
                await asyncio.sleep(0.01)
            for _ in range(10):
                with pytest.raises(exc.UpstreamCircuitOpen):
                    await ask(upstream)
            assert raw.requests == 1
            probe.cancel()
            await asyncio.wait([probe])
            assert await ask(upstream) == OWN_ANSWER
            assert state(upstream) is CircuitState.CLOSED


def state(upstream: Upstream) -> CircuitState:
    """Whether it is asked now."""
    return upstream.circuit.state


def _answer(listener: socket.socket) -> None:
    """Say 200 to everybody, and close."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
