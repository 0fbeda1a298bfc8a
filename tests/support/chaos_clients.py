"""Faults of clients, as `scripts/chaos` puts them to a running relay."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable

from tests.support.chaos_bench import (
    IDLE_SECONDS,
    MAX_REQUESTS,
    PATIENCE_SECONDS,
    SEND_SECONDS,
    Bench,
    Fault,
    Observed,
    connect,
    vanish,
    wait_for,
)
from tests.support.raw_clients import ask_once
from tests.support.raw_http import raw_request
from tests.support.rude_upstream import wait_for_idle

VANISHING = 20
CANCEL_SECONDS = 0.25
CLIENTS = 10 * MAX_REQUESTS
CONNECTIONS = 2_000
READ_TIMEOUT_SECONDS = 20.0
# Half a second beyond the limit for the relay's next look at its connections, the rest for a busy machine.
MARGIN_SECONDS = 2.0
_UPLOAD = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(2**26)}


def _vanishing(mode: str, until_received: bytes = b"") -> Callable[[Bench], Observed]:
    """Clients that leave by a reset once the upstream works on their calls, or once they have received something."""

    def work(bench: Bench) -> Observed:
        clients = [connect(bench.relay.url) for _ in range(VANISHING)]
        for client in clients:
            client.sendall(bench.request(mode))
        for client in clients:
            received = b""
            while until_received not in received:
                received += client.recv(65_536)
        return _leave(bench, clients)

    return work


def _vanishing_in_download(bench: Bench) -> Observed:
    clients = [connect(bench.relay.url) for _ in range(VANISHING)]
    for client in clients:
        client.sendall(bench.request(method="GET", path="/v1/files/file-rude-huge/content"))
        client.recv(65_536)
    return _leave(bench, clients)


def _vanishing_in_upload(bench: Bench) -> Observed:
    clients = [connect(bench.relay.url) for _ in range(VANISHING)]
    for client in clients:
        client.sendall(raw_request("POST", "/v1/files", {**bench.relay.headers, **_UPLOAD}.items()) + bytes(2**15))
    return _leave(bench, clients)


def _leave(bench: Bench, clients: list[socket.socket]) -> Observed:
    if not wait_for(lambda: bench.upstream.statistics()["active"] == VANISHING):
        return f"only {bench.upstream.statistics()['active']} calls reached the upstream", False
    for client in clients:
        vanish(client)
    seconds = wait_for_idle(bench.upstream, READ_TIMEOUT_SECONDS)
    if seconds is None:
        return f"{bench.upstream.statistics()['active']} calls go on", False
    return f"all cancelled within {seconds * 1000:.0f} ms", seconds < CANCEL_SECONDS


def _trickled(bench: Bench, sent: bytes) -> Observed:
    """A client that sends one byte after the other from here on."""
    began = time.monotonic()
    with connect(bench.relay.url) as client:
        client.settimeout(0.1)
        client.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < READ_TIMEOUT_SECONDS:
                with contextlib.suppress(TimeoutError):
                    piece = client.recv(65_536)
                    if not piece:
                        break
                    received += piece
                    continue
                client.sendall(b"x")
    seconds = time.monotonic() - began
    status = received[9:12].decode()
    observed = f"{status or 'nothing'}, ended after {seconds:.1f} s"
    return observed, status == "408" and seconds < PATIENCE_SECONDS + MARGIN_SECONDS


def _trickled_head(bench: Bench) -> Observed:
    return _trickled(bench, b"POST /v1/responses HTTP/1.1\r\nHost: relay.test\r\nX-Padding: ")


def _trickled_body(bench: Bench) -> Observed:
    headers = {**bench.relay.headers, "Content-Type": "application/json", "Content-Length": "1000"}
    return _trickled(bench, raw_request("POST", "/v1/responses", headers.items()) + b'{"model": "')


def _silent_connections(bench: Bench) -> Observed:
    """Connections that never ask for anything."""
    clients = [connect(bench.relay.url) for _ in range(CONNECTIONS)]
    try:
        seen = bench.ask()
        for client in clients:
            client.settimeout(PATIENCE_SECONDS + MARGIN_SECONDS)
        with contextlib.suppress(ConnectionError):
            ended = sum(_ends(client.recv) for client in clients)
    finally:
        for client in clients:
            client.close()
    observed = f"{seen} meanwhile, {ended} of {CONNECTIONS} ended by the relay"
    return observed, seen.status == 200 and ended == CONNECTIONS


def _ends(receive: Callable[[int], bytes]) -> bool:
    try:
        return receive(1) == b""
    except TimeoutError:
        return False


def _reads_nothing(bench: Bench) -> Observed:
    began = time.monotonic()
    with connect(bench.relay.url) as client:
        client.sendall(bench.request(method="GET", path="/v1/files/file-rude-huge/content"))
        wait_for(lambda: bench.upstream.statistics()["active"])
        gone = wait_for_idle(bench.upstream, READ_TIMEOUT_SECONDS)
    seconds = time.monotonic() - began
    observed = f"upstream call {'ended' if gone is not None else 'goes on'} after {seconds:.1f} s"
    return observed, gone is not None and SEND_SECONDS - 0.5 < seconds < SEND_SECONDS + MARGIN_SECONDS


def _at_once(bench: Bench, mode: str) -> list[tuple[int, bool, float]]:
    """Ten times as many as may run, all at once: status, whether they know when to come back, and seconds of each."""

    async def ask() -> list[tuple[int, bool, float]]:
        request = bench.request(mode)
        replies = await asyncio.gather(*(ask_once(bench.relay.url, request) for _ in range(CLIENTS)))
        return [(reply.status, reply.header("retry-after") is not None, reply.seconds) for reply in replies]

    return asyncio.run(ask())


def _flood_before_frozen(bench: Bench) -> Observed:
    with bench.upstream.frozen():
        replies = _at_once(bench, "polite")
    statuses = Counter(status for status, _, _ in replies)
    slowest = max(seconds for _, _, seconds in replies)
    shown = ", ".join(f"{count} times {status or 'no reply'}" for status, count in sorted(statuses.items()))
    back = wait_for(lambda: bench.ask().status == 200)
    observed = f"{shown}, the last after {slowest:.1f} s; {'' if back else 'NOT '}served again"
    return observed, statuses.keys() == {503, 504} and slowest < IDLE_SECONDS + MARGIN_SECONDS and back


def _flood(bench: Bench) -> Observed:
    replies = _at_once(bench, "slow")
    statuses = Counter(status for status, _, _ in replies)
    accepted = sorted(seconds for status, _, seconds in replies if status == 200)
    slowest = accepted[-1] if accepted else 0.0
    told = all(retry for status, retry, _ in replies if status == 503)
    shown = ", ".join(f"{count} times {status or 'no reply'}" for status, count in sorted(statuses.items()))
    observed = f"{shown}; slowest 200 after {slowest:.2f} s; {'each' if told else 'NOT EACH'} 503 with `Retry-After`"
    return observed, statuses.keys() == {200, 503} and statuses[200] >= MAX_REQUESTS and told


def _garbage(bench: Bench) -> Observed:
    statuses: Counter[str] = Counter()
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00" * 20, b"\r\n" * 2000 + b"x", b"GET\r\n\r\n", b"\x00" * 70_000):
        with connect(bench.relay.url) as client, contextlib.suppress(ConnectionError):
            client.settimeout(READ_TIMEOUT_SECONDS)
            client.sendall(garbage)
            statuses[client.recv(65_536)[9:12].decode()] += 1
    shown = ", ".join(f"{count} times {status or 'closed'}" for status, count in sorted(statuses.items()))
    return shown, statuses.keys() <= {"400", "408", "431", "414", ""}


_BOUND = f"all {VANISHING} calls cancelled within {CANCEL_SECONDS * 1000:.0f} ms"
_LATE = f"408 after {PATIENCE_SECONDS} s, connection ended"

FAULTS = (
    Fault("clients vanish before the headers", _BOUND, _vanishing("silent")),
    Fault("clients vanish in mid-JSON", _BOUND, _vanishing("silent-in-body", b"\r\n\r\n{")),
    Fault("clients vanish in mid-stream", _BOUND, _vanishing("events-1000-50", b'"number": 3')),
    Fault("clients vanish in mid-download", _BOUND, _vanishing_in_download),
    Fault("clients vanish in mid-upload", _BOUND, _vanishing_in_upload),
    Fault("a client trickles its headers", _LATE, _trickled_head),
    Fault("a client trickles its body", _LATE, _trickled_body),
    Fault("a client reads nothing of 3 GB", f"connection and call ended after {SEND_SECONDS} s", _reads_nothing),
    Fault(f"{CONNECTIONS} clients connect and say nothing", "others are served, these are ended", _silent_connections),
    Fault(
        f"{CLIENTS} clients at once, {MAX_REQUESTS} may run",
        f"at least {MAX_REQUESTS} times 200, the others 503 with `Retry-After`, nothing else",
        _flood,
    ),
    Fault(
        f"{CLIENTS} clients at once, and the upstream is frozen",
        f"503 at once or 504 after {IDLE_SECONDS} s; served again once it is back",
        _flood_before_frozen,
    ),
    Fault("clients speak garbage", "400, 408, 431, or closed", _garbage),
)
