import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.utils import accept_key

from codegen.contract import Scope
from handlers.runtime import exceptions as exc
from handlers.simulated_upstream import Fault, SimulatedUpstream
from handlers.simulated_upstream.recorder import RecordedSocket
from tests.support.disconnects import open_connections
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.raw_http import RawConnection
from tests.support.relay_errors import MARK, MARKED_HEADERS, assert_relay_error
from tests.support.servers import HOST, UPSTREAM_KEY, RelayProcess, ServerThread, running_relay
from tests.support.sockets import (
    HANDSHAKE,
    KEY_SUBPROTOCOL,
    MODEL_QUERY,
    PATH,
    TIMEOUT_SECONDS,
    ending,
    opened,
    receive,
    vanish,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MEBIBYTE = 2**20
MAX_MESSAGE_BYTES = 256 * 1024
MAX_SOCKETS = 2
IDLE_SECONDS, TOTAL_SECONDS = 2.0, 6.0
BOUND_SECONDS = 0.25  # from the client's leaving to the upstream's notice
CLIENTS = 20
FLOOD, FLOOD_BYTES = 2_000, 50_000
SMALL_MESSAGES = 10_000
# Buffers of four kernels' sockets on loopback, and what lies between them.
HELD_MEBIBYTES = 40


@dataclass(frozen=True)
class LimitedRelay:
    """A relay whose sockets end soon, and a key of each kind."""

    relay: RelayProcess
    realtime: MadeKey
    canonical: MadeKey
    expired: MadeKey


@pytest.fixture(scope="module")
def limited(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimitedRelay]:
    """Short limits, small messages, two sockets a key."""
    folder = tmp_path_factory.mktemp("limited")
    keys = (
        make_key("speaker", Scope.REALTIME),
        make_key("service", Scope.CANONICAL, Scope.ACTIONS),
        make_key("former", Scope.REALTIME, expires=datetime.now(UTC) - timedelta(seconds=1)),
    )
    write_keys(folder / "keys.yaml", keys)
    environment = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_SOCKET_MAX_MESSAGE_BYTES": str(MAX_MESSAGE_BYTES),
        "RELAY_SOCKET_IDLE_TIMEOUT_SECONDS": str(IDLE_SECONDS),
        "RELAY_SOCKET_TOTAL_TIMEOUT_SECONDS": str(TOTAL_SECONDS),
        "RELAY_MAX_SOCKETS_PER_KEY": str(MAX_SOCKETS),
    }
    with running_relay(folder, upstream_server.url, environment) as relay:
        yield LimitedRelay(relay, *keys)


def the_socket(upstream: SimulatedUpstream) -> RecordedSocket:
    """The only socket that has reached the upstream."""
    (record,) = upstream.recorder.sockets
    return record


def has_come(upstream: SimulatedUpstream, count: int) -> bool:
    """Whether so many handshakes have reached the upstream."""
    return upstream.recorder.count == count


def ended_of(relay: RelayProcess, key: MadeKey) -> int:
    """How many sessions of a key have ended."""
    return sum('"messages_in"' in line and f'"key":"{key.id}"' in line for line in relay.printed().splitlines())


def last_line(relay: RelayProcess) -> dict[str, object]:
    """The relay's last log line about a socket that began."""
    lines = [line for line in relay.printed().splitlines() if '"messages_in"' in line]
    line: dict[str, object] = json.loads(lines[-1])
    return line


class TestWhatPasses:
    @pytest.mark.parametrize("path", [PATH, f"{PATH}/ws"])
    async def test_a_session_goes_through_with_the_relays_own_credentials(
        self, path: str, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """Query and allowed headers reach the upstream, neither key crosses, and its answer's allowed headers come."""
        headers = {**relay.headers, "OpenAI-Beta": "realtime=v1", "Cookie": "a=b", "X-Other": "c", "Origin": "null"}
        target = f"{path}{MODEL_QUERY}&call_id=rtc_1&intent=transcription"
        async with opened(relay, target, headers=headers, subprotocols=["realtime", "other"]) as client:
            assert client.subprotocol == "realtime"
            assert client.response is not None
            answered = dict(client.response.headers.raw_items())
            assert answered["x-request-id"].startswith("req_")
            assert answered["x-relay-request-id"].startswith("rly_")
            assert not {"set-cookie", "openai-organization"} & answered.keys()
        record = the_socket(upstream)
        assert (record.request.path, record.request.query) == (PATH, target.partition("?")[2])
        sent = {name: value for name, value in record.request.headers if not name.startswith("sec-")}
        assert sent.keys() <= {"host", "connection", "upgrade", "authorization", "openai-beta", "user-agent"}
        assert sent["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert record.subprotocols == ["realtime"]

    async def test_a_browser_brings_its_key_as_a_subprotocol(
        self, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """The key opens the socket, is not chosen, and does not travel."""
        offered = ["realtime", f"{KEY_SUBPROTOCOL}{relay.key}", "openai-beta.realtime-v1", "openai-project.other"]
        async with opened(relay, headers={"Origin": "https://example.com"}, subprotocols=offered) as client:
            assert client.subprotocol == "realtime"
        record = the_socket(upstream)
        assert record.subprotocols == ["realtime", "openai-beta.realtime-v1"]
        assert relay.key not in str(record.request.headers)

    async def test_a_long_message_passes_whole_both_ways(
        self, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """8 MB of audio, a text of any alphabet, one in fragments and an empty one come back as they went."""
        message = bytes(range(256)) * 32_768
        async with opened(relay) as client:
            for sent in (message, "ä€😀" * 100_000, "", b""):
                await client.send(sent)
                assert await receive(client) == sent
            await client.send([message[:1000], message[1000:5000], b"", message[5000:9000]])
            assert await receive(client) == message[:9000]
        assert the_socket(upstream).sizes == [len(message), 300_000, 0, 0, 9000]

    async def test_small_messages_keep_their_order(self, relay: RelayProcess) -> None:
        """Ten thousand texts each way, and the log counts them."""
        async with opened(relay) as client:

            async def send_all() -> None:
                for number in range(SMALL_MESSAGES):
                    await client.send(str(number))

            sending = asyncio.create_task(send_all())
            received = [await receive(client) for _ in range(SMALL_MESSAGES)]
            await sending
            assert received == [str(number) for number in range(SMALL_MESSAGES)]
            await client.close(4001, "enough")
        wait_until(lambda: '"close_code":4001' in relay.printed())
        line = last_line(relay)
        counted = (line["messages_in"], line["messages_out"], line["bytes_in"])
        assert counted == (SMALL_MESSAGES, SMALL_MESSAGES + 1, sum(len(str(n)) for n in range(SMALL_MESSAGES)))
        known = (line["operation"], line["status"], line["outcome"], line["ended"], line["key"])
        assert known == ("connectRealtime", 101, "answered", "client_closed", "bootstrap")

    async def test_what_was_sent_before_an_end_arrives(self, relay: RelayProcess, upstream: SimulatedUpstream) -> None:
        """No message is lost because its sender closes right behind it."""
        upstream.faults.add(Fault(flood_messages=500, socket_messages=0, close_code=4002, times=1))
        received = 0
        code = 0
        async with opened(relay) as client:
            while not code:
                try:
                    await receive(client)
                    received += 1
                except ConnectionClosed as closed:
                    code = closed.rcvd.code if closed.rcvd else 1006
        assert code == 4002
        assert received == 500

    async def test_pings_are_answered_here(self, relay: RelayProcess) -> None:
        """A ping gets its pong, and costs no message."""
        async with opened(relay) as client:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await (await client.ping(b"here?"))


class TestRefusals:
    @pytest.mark.parametrize(
        "target, headers, error",
        [
            (PATH, {}, exc.MissingKey),
            (PATH, {"Authorization": f"Bearer rk_{MARK}"}, exc.InvalidKey),
            (PATH, {"Sec-WebSocket-Protocol": f"realtime, {KEY_SUBPROTOCOL}rk_{MARK}"}, exc.InvalidKey),
            (PATH, "expired", exc.InvalidKey),
            (PATH, "canonical", exc.InsufficientScope),
            (f"{PATH}/ws", "canonical", exc.InsufficientScope),
            (f"{PATH}?model={'m' * 201}", "realtime", exc.InvalidParameter),
            (f"{PATH}?model=", "realtime", exc.InvalidParameter),
            (f"{PATH}?model=a&model=b", "realtime", exc.InvalidParameter),
            (f"{PATH}?call_id=a&call_id=b", "realtime", exc.InvalidParameter),
            (f"{PATH}?model=%FF", "realtime", exc.InvalidParameter),
            (f"{PATH}?model=a#{MARK}", "realtime", exc.MalformedRequest),
            (f"{PATH}/{MARK}", "realtime", exc.UnknownOperation),
            ("/v1/models", "canonical", exc.InvalidParameter),
            ("/v1/proxy", "canonical", exc.MethodNotAllowed),
            (f"{PATH}?{MARK * 2000}", "realtime", exc.UriTooLong),
        ],
    )
    async def test_a_refusal_is_a_plain_reply_and_asks_nobody(
        self,
        target: str,
        headers: dict[str, str] | str,
        error: type[exc.RelayError],
        limited: LimitedRelay,
        upstream: SimulatedUpstream,
    ) -> None:
        """Key, scope, path and query are judged before the upgrade, in the words of every other refusal."""
        brought = getattr(limited, headers).headers if isinstance(headers, str) else headers
        with RawConnection(limited.relay.url) as connection:
            reply = connection.exchange("GET", target, {**HANDSHAKE, **MARKED_HEADERS, **brought}.items())
        assert_relay_error(reply, error)
        assert upstream.recorder.count == 0

    @pytest.mark.parametrize(
        "method, changes, error",
        [
            ("POST", {}, exc.MethodNotAllowed),
            ("GET", {"Sec-WebSocket-Key": MARK}, exc.MalformedRequest),
            ("GET", {"Sec-WebSocket-Key": None}, exc.MalformedRequest),
            ("GET", {"Sec-WebSocket-Version": "8"}, exc.MalformedRequest),
            ("GET", {"Sec-WebSocket-Protocol": f"{MARK},,({MARK}"}, exc.MalformedRequest),
            ("GET", {"Content-Length": "5"}, exc.MalformedRequest),
            ("GET", {"Transfer-Encoding": "chunked"}, exc.MalformedRequest),
            ("GET", {"X-Long": "x" * 9_000}, exc.HeadersTooLarge),
            ("GET", {"Upgrade": None, "Connection": None}, exc.UpgradeRequired),
        ],
    )
    async def test_what_is_no_handshake_is_refused_in_the_same_form(
        self,
        method: str,
        changes: dict[str, str | None],
        error: type[exc.RelayError],
        relay: RelayProcess,
        upstream: SimulatedUpstream,
    ) -> None:
        """Nothing that RFC 6455 rules out hangs, opens anything or is repeated."""
        headers = {**HANDSHAKE, **relay.headers, **changes}
        with RawConnection(relay.url) as connection:
            kept = [(name, value) for name, value in headers.items() if value is not None]
            connection.send_head(method, PATH + MODEL_QUERY, kept)
            assert_relay_error(connection.reply(), error)
        assert upstream.recorder.count == 0

    async def test_a_key_has_so_many_sockets_and_no_more(
        self, limited: LimitedRelay, upstream: SimulatedUpstream
    ) -> None:
        """The next one is refused before the upstream is asked, and taken again when another has ended."""
        headers = limited.realtime.headers
        ended = ended_of(limited.relay, limited.realtime)
        async with opened(limited.relay, headers=headers), opened(limited.relay, headers=headers) as second:
            with RawConnection(limited.relay.url) as connection:
                refused = connection.exchange("GET", PATH, {**HANDSHAKE, **headers}.items())
            assert_relay_error(refused, exc.SocketLimitReached)
            assert refused.header("retry-after") == "1"
            assert upstream.recorder.count == MAX_SOCKETS
            async with opened(limited.relay):  # another key
                pass
            await second.close()
            wait_until(lambda: ended_of(limited.relay, limited.realtime) == 1 + ended)
            async with opened(limited.relay, headers=headers):
                pass

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
    async def test_the_upstreams_refusal_is_answered_as_it_came(
        self, status: int, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """Status, body, `Retry-After` and request id reach the client as on requests; the rest stays behind."""
        body = {"error": {"message": "No.", "type": "upstream", "code": "no"}}
        extra = {"retry-after": "7", "set-cookie": "a=b"}
        upstream.faults.add(Fault(status=status, body=body, headers=extra, times=1))
        with pytest.raises(InvalidStatus) as refused:
            async with opened(relay):
                pass
        reply = refused.value.response
        assert (reply.status_code, json.loads(bytes(reply.body or b""))) == (status, body)
        assert reply.headers["retry-after"] == "7"
        assert reply.headers["x-request-id"].startswith("req_")
        assert "set-cookie" not in reply.headers

    async def test_a_refusal_that_repeats_our_key_is_held_back(
        self, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """Neither the body nor a later message tells a client the relay's credentials."""
        upstream.faults.add(Fault(echo_credentials=True, times=1))
        with RawConnection(relay.url) as connection:
            reply = connection.exchange("GET", PATH, {**HANDSHAKE, **relay.headers}.items())
        assert_relay_error(reply, exc.UpstreamErrorWithheld)
        async with opened(relay) as client:
            await client.send(json.dumps({"type": "simulated.echo_credentials"}))
            with pytest.raises(ConnectionClosed) as closed:
                await receive(client)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1014

    @pytest.mark.parametrize(
        "upstream_url, error",
        [
            ("http://127.0.0.1:9", exc.UpstreamUnreachable),
            ("http://nothing.invalid", exc.UpstreamNameUnresolved),
            ("tls", exc.UpstreamTlsFailed),
        ],
    )
    async def test_an_upstream_that_cannot_be_reached_is_named(
        self, upstream_url: str, error: type[exc.RelayError], upstream_server: ServerThread, tmp_path: Path
    ) -> None:
        """Refused, unresolved and untrusted connections are told apart, before the upgrade."""
        url = upstream_server.url.replace("http:", "https:") if upstream_url == "tls" else upstream_url
        with running_relay(tmp_path, url) as relay, RawConnection(relay.url) as connection:
            assert_relay_error(connection.exchange("GET", PATH, {**HANDSHAKE, **relay.headers}.items()), error)

    async def test_a_silent_upstream_is_given_up(
        self, upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
    ) -> None:
        """The time to connect bounds the handshake as well, and nothing stays open."""
        upstream.faults.add(Fault(silent=True, times=1))
        settings = {"RELAY_CONNECT_TIMEOUT_SECONDS": "1"}
        with running_relay(tmp_path, upstream_server.url, settings) as relay, RawConnection(relay.url) as connection:
            reply = connection.exchange("GET", PATH, {**HANDSHAKE, **relay.headers}.items())
            assert_relay_error(reply, exc.UpstreamTimeout)
            wait_until(lambda: open_connections(relay, upstream_server.url) == 0)


class TestEnds:
    @pytest.mark.parametrize(
        "code, reason, told",
        [
            (1000, "done", 1000),
            (1001, "", 1001),
            (1003, "no", 1003),
            (1007, "", 1007),
            (1008, "no", 1008),
            (1009, "long", 1009),
            (1011, "oops", 1011),
            (1012, "again", 1012),
            (1013, "later", 1013),
            (3000, "invalid_request_error.invalid_api_key", 3000),
            (4999, "ü" * 61, 4999),
        ],
    )
    async def test_codes_and_reasons_cross_both_ways(
        self, code: int, reason: str, told: int, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """What one side says at its end is what the other side hears."""
        upstream.faults.add(Fault(close_code=code, close_reason=reason, socket_messages=1, times=1))
        async with opened(relay) as client:
            await client.send("x")
            assert await ending(client) == (told, reason)
        async with opened(relay) as client:
            await client.close(code, reason)
        wait_until(lambda: upstream.recorder.sockets[-1].ended_at)
        record = upstream.recorder.sockets[-1]
        assert (record.close_code, record.close_reason) == (told, reason)

    async def test_an_end_without_a_code_is_an_ordinary_one(
        self, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """1005 stands in no frame; the upstream hears 1000."""
        async with opened(relay) as client:
            client.protocol.send_close(None)
            client.send_data()
            await client.wait_closed()
        wait_until(lambda: the_socket(upstream).ended_at)
        assert the_socket(upstream).close_code == 1000

    async def test_an_upstream_that_vanishes_is_a_bad_gateway(
        self, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """The client hears 1014 and why, never nothing."""
        upstream.faults.add(Fault(cut_after_bytes=0, times=1))
        async with opened(relay) as client:
            assert await ending(client) == (1014, "the connection to the upstream broke")

    @pytest.mark.parametrize("side", ["client", "upstream"])
    async def test_a_side_that_answers_no_ping_is_given_up(
        self, side: str, upstream_server: ServerThread, tmp_path: Path
    ) -> None:
        """A peer whose kernel alone is alive ends the session long before the idle limit."""
        settings = {"RELAY_SOCKET_PING_INTERVAL_SECONDS": "1", "RELAY_SOCKET_PING_TIMEOUT_SECONDS": "1"}
        async with frozen_upstream() as frozen:
            url = frozen if side == "upstream" else upstream_server.url
            with running_relay(tmp_path, url, settings) as relay:
                if side == "upstream":
                    uri = f"ws{relay.url.removeprefix('http')}{PATH}"
                    async with connect(uri, additional_headers=relay.headers, proxy=None) as client:
                        assert await ending(client) == (1014, "the upstream does not answer")
                    return
                with RawConnection(relay.url) as raw:
                    raw.send_head("GET", PATH, {**HANDSHAKE, **relay.headers}.items())
                    assert raw.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
                    await asyncio.to_thread(wait_until, lambda: '"ended":"client_gone"' in relay.printed())

    async def test_a_message_beyond_the_limit_ends_it(self, limited: LimitedRelay, upstream: SimulatedUpstream) -> None:
        """Either side's too long message ends the session with 1009; one at the limit passes."""
        async with opened(limited.relay) as client:
            await client.send(bytes(MAX_MESSAGE_BYTES))
            assert await receive(client) == bytes(MAX_MESSAGE_BYTES)
            await client.send(bytes(MAX_MESSAGE_BYTES + 1))
            assert (await ending(client))[0] == 1009
        wait_until(lambda: the_socket(upstream).ended_at)
        assert the_socket(upstream).sizes == [MAX_MESSAGE_BYTES]
        upstream.faults.add(Fault(flood_messages=1, flood_bytes=MAX_MESSAGE_BYTES, times=1))
        async with opened(limited.relay) as client:
            assert (await ending(client))[0] == 1009

    async def test_a_session_without_messages_ends(self, limited: LimitedRelay, upstream: SimulatedUpstream) -> None:
        """The idle limit counts messages either way; pings do not count."""
        began = time.monotonic()
        async with opened(limited.relay, ping_interval=0.5) as client:
            assert await ending(client) == (1001, "no message for too long")
        assert time.monotonic() - began >= IDLE_SECONDS
        wait_until(lambda: the_socket(upstream).ended_at)
        assert the_socket(upstream).close_code == 1001

    async def test_a_session_ends_after_its_time(self, limited: LimitedRelay) -> None:
        """Messages put off the idle limit, not the total one."""
        began = time.monotonic()
        async with opened(limited.relay) as client:

            async def speak() -> None:
                while True:
                    await client.send("x")
                    await asyncio.sleep(IDLE_SECONDS / 4)

            speaking = asyncio.create_task(speak())
            assert await ending(client) == (1001, "the session lasted too long")
            speaking.cancel()
        assert time.monotonic() - began >= TOTAL_SECONDS

    async def test_a_key_that_ends_takes_its_session_along(self, upstream_server: ServerThread, tmp_path: Path) -> None:
        """At the key's end the session is over with 1008."""
        expires = datetime.now(UTC) + timedelta(seconds=6)
        key = make_key("guest", Scope.REALTIME, expires=expires)
        write_keys(tmp_path / "keys.yaml", [key])
        settings = {"RELAY_KEY_FILE": str(tmp_path / "keys.yaml")}
        with running_relay(tmp_path, upstream_server.url, settings) as relay:
            async with opened(relay, headers=key.headers) as client:
                assert await ending(client) == (1008, "the relay key has expired")
        assert datetime.now(UTC) >= expires

    async def test_a_relay_that_stops_says_so(self, upstream_server: ServerThread, tmp_path: Path) -> None:
        """SIGTERM ends idle and busy sessions with 1012, in order and in time."""
        settings = {"RELAY_SHUTDOWN_TIMEOUT_SECONDS": "8"}
        with running_relay(tmp_path, upstream_server.url, settings) as relay:
            async with opened(relay) as idle, opened(relay) as busy:

                async def speak() -> None:
                    while True:
                        await busy.send(bytes(4_000))
                        await asyncio.sleep(0.001)  # what fills the buffers on the way would be reset with them

                async def listen() -> tuple[int, str]:
                    return await ending(busy)

                speaking, listening = asyncio.create_task(speak()), asyncio.create_task(listen())
                await asyncio.sleep(0.3)
                relay.process.terminate()
                assert await ending(idle) == (1012, "the relay restarts; connect again")
                assert await listening == (1012, "the relay restarts; connect again")
                await asyncio.gather(speaking, return_exceptions=True)
            wait_until(lambda: relay.process.poll() is not None)
            assert relay.process.returncode == 0


class TestSlowSides:
    async def test_a_slow_reader_holds_up_the_upstream(self, relay: RelayProcess, upstream: SimulatedUpstream) -> None:
        """Of 100 MB only what fits into buffers leaves the upstream, and the rest follows in order when it is read."""
        upstream.faults.add(Fault(flood_messages=FLOOD, flood_bytes=FLOOD_BYTES, times=1))
        before = psutil.Process(relay.pid).memory_info().rss
        async with opened(relay, max_queue=1) as client:
            held = await settled(lambda: the_socket(upstream).sent)
            grown = psutil.Process(relay.pid).memory_info().rss - before
            assert held * FLOOD_BYTES < HELD_MEBIBYTES * MEBIBYTE
            assert grown < 16 * MEBIBYTE, f"{grown / MEBIBYTE:.1f} MiB"
            numbers = [json.loads(await receive(client))["number"] for _ in range(FLOOD)]
            assert numbers == list(range(FLOOD))

    async def test_an_upstream_that_reads_nothing_holds_up_the_client(
        self, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """The client cannot send more than fits into buffers, and the relay keeps little of it."""
        upstream.faults.add(Fault(deaf_socket=True, times=1))
        before = psutil.Process(relay.pid).memory_info().rss
        async with opened(relay) as client:
            sent = 0

            async def send_all() -> None:
                nonlocal sent
                while True:
                    await client.send(bytes(FLOOD_BYTES))
                    sent += 1

            sending = asyncio.create_task(send_all())
            held = await settled(lambda: sent)
            sending.cancel()
            grown = psutil.Process(relay.pid).memory_info().rss - before
            assert 0 < held * FLOOD_BYTES < HELD_MEBIBYTES * MEBIBYTE
            assert grown < 16 * MEBIBYTE, f"{grown / MEBIBYTE:.1f} MiB"
            vanish(client)


class TestVanishing:
    @pytest.mark.parametrize("phase", ["handshake", "idle", "speaking", "listening"])
    async def test_a_client_that_vanishes_takes_its_socket_along(
        self, phase: str, relay: RelayProcess, upstream: SimulatedUpstream, upstream_server: ServerThread
    ) -> None:
        """In every phase and every time the upstream's socket is closed within the bound, and nothing stays open."""
        open_before = open_connections(relay, upstream_server.url)
        printed_before = len(relay.printed())
        slowest = 0.0
        for number in range(CLIENTS):
            if phase == "handshake":
                upstream.faults.add(Fault(silent=True, times=1))
                with RawConnection(relay.url) as raw:
                    raw.send_head("GET", PATH, {**HANDSHAKE, **relay.headers}.items())
                    await asyncio.to_thread(wait_until, partial(has_come, upstream, number + 1))
                    left = time.monotonic()
            else:
                flood = 10**6 if phase == "listening" else None
                upstream.faults.add(Fault(flood_messages=flood, times=1))
                async with opened(relay) as client:
                    for _ in range(50 if phase != "idle" else 0):
                        if phase == "speaking":
                            await client.send("{}")
                        await receive(client)
                    left = time.monotonic()
                    vanish(client)
            record = upstream.recorder.sockets[-1]
            await asyncio.to_thread(wait_until, partial(getattr, record, "ended_at"))
            assert record.ended_at is not None
            slowest = max(slowest, record.ended_at - left)
        assert slowest < BOUND_SECONDS, f"{slowest * 1000:.0f} ms"
        wait_until(lambda: relay.printed()[printed_before:].count('"outcome":"client_gone"') == CLIENTS)
        assert '"level":"error"' not in relay.printed()[printed_before:]
        wait_until(lambda: open_connections(relay, upstream_server.url) <= open_before)


@contextlib.asynccontextmanager
async def frozen_upstream() -> AsyncIterator[str]:
    """An upstream that shakes hands and then does nothing at all; yields its URL."""
    done = asyncio.Event()

    async def freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        (key,) = (line.split(": ")[1] for line in head.splitlines() if line.lower().startswith("sec-websocket-key"))
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        writer.write("\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept_key(key)}", "", ""]).encode())
        await done.wait()
        writer.close()

    async with await asyncio.start_server(freeze, HOST, 0) as server:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        done.set()


async def settled(count: Callable[[], int]) -> int:
    """A number that has stopped to grow."""
    before, now = -1, 0
    async with asyncio.timeout(TIMEOUT_SECONDS * 3):
        while now != before:
            before = now
            await asyncio.sleep(1.0)
            now = count()
    return now
