"""
What all faults of `scripts/chaos` stand on: a relay before a rude upstream, single requests, and what may be left over.

A fault is a function of a `Bench` that tells what it saw; `Bench.put` adds whether the relay is well afterwards.
"""

import http.client
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from codegen.contract import Scope
from tests.support.disconnects import open_connections
from tests.support.key_files import make_key, write_keys
from tests.support.raw_http import RawConnection, raw_request
from tests.support.rude_upstream import UpstreamProcess
from tests.support.servers import HOST, RelayProcess, running_relay

GROWTH_LIMIT_MIB = 32  # of the relay, over everything that is done to it
SETTLE_SECONDS = 5.0  # for what a fault leaves behind to go away
IDLE_SECONDS = 2
BREAKER_SECONDS = 1
PATIENCE_SECONDS = 1
SEND_SECONDS = 2
MAX_REQUESTS = 50
_SPARE_FILES = 2  # a library may open one on its first use
# Of these nothing may run any more; `/metrics` itself is one running request.
_GAUGES = {
    "relay_running_requests": 1,
    "relay_open_event_streams": 0,
    "relay_open_sockets": 0,
    "relay_upstream_slots_used": 0,
    "relay_upstream_waiting": 0,
}

Observed = tuple[str, bool]


@dataclass(frozen=True)
class Fault:
    """
    One thing that goes wrong.

    Args:
        name: Who does what.
        expected: In words, as the report shows it.
        work: Does it; returns what was observed, and whether that is as expected.
    """

    name: str
    expected: str
    work: "Callable[[Bench], Observed]"


@dataclass(frozen=True)
class Line:
    """
    One line of the report.

    Args:
        ok: `None` where it was left out.
    """

    fault: str
    expected: str
    observed: str
    ok: bool | None

    def __str__(self) -> str:
        verdict = {True: "ok", False: "NOT OK", None: "left out"}[self.ok]
        return f"| {self.fault} | {self.expected} | {self.observed} | {verdict} |"


@dataclass(frozen=True)
class Seen:
    """
    What a client has seen of a reply.

    Args:
        status: 0 when the connection ended without one.
        complete: Whether the body ended as its framing announces.
    """

    status: int
    code: str = ""
    body: bytes = b""
    complete: bool = True
    seconds: float = 0.0
    retry_after: bool = False

    def __str__(self) -> str:
        if not self.status:
            return "no reply"
        return " ".join(
            filter(None, [str(self.status), self.code and f"`{self.code}`", "" if self.complete else "(broken off)"])
        )


class Left(Exception):
    """A fault cannot be brought about here; the text says why."""


@dataclass
class Bench:
    """
    One relay before one rude upstream.

    Args:
        operator: Headers of a key that opens `/metrics`.
    """

    relay: RelayProcess
    upstream: UpstreamProcess
    operator: Mapping[str, str]

    def __post_init__(self) -> None:
        for _ in range(20):
            assert self.ask().status == 200, self.relay.printed()[-2000:]
        self._process = psutil.Process(self.relay.pid)
        self._files = self._own_files()
        self._memory_bytes = self._process.memory_info().rss

    def put(self, fault: Fault) -> Line:
        """Bring a fault about, then see whether the relay answers and has nothing left over."""
        printed = len(self.relay.printed())
        try:
            observed, ok = fault.work(self)
        except Left as reason:
            return Line(fault.name, fault.expected, str(reason), None)
        except (OSError, http.client.HTTPException, httpx.HTTPError, AssertionError, LookupError, ValueError) as error:
            observed, ok = f"{type(error).__name__}: {error}", False
        after = self._after(self.relay.printed()[printed:])
        return Line(fault.name, fault.expected, "; ".join([observed, *after]), ok and not after)

    def ask(
        self,
        mode: str = "polite",
        method: str = "POST",
        path: str = "/v1/responses",
        body: Mapping[str, object] | None = None,
        **fields: object,
    ) -> Seen:
        """
        Send one ordinary request over a connection of its own.

        Args:
            mode: What the upstream does with it, if neither path nor body says so.
            body: Instead of one that asks a model.
            fields: Further ones of the body.
        """
        return exchange(self.relay.url, self.request(mode, method, path, body, **fields), method)

    def request(
        self,
        mode: str = "polite",
        method: str = "POST",
        path: str = "/v1/responses",
        body: Mapping[str, object] | None = None,
        **fields: object,
    ) -> bytes:
        """The bytes of what `ask` sends."""
        headers = {**self.relay.headers, "Connection": "close"}
        if method != "POST":
            return raw_request(method, path, headers.items())
        headers["Content-Type"] = "application/json"
        value = body if body is not None else {"model": f"rude-{mode}", "input": "Hello.", **fields}
        return raw_request(method, path, headers.items(), json.dumps(value).encode())

    def gauges(self) -> dict[str, float]:
        """What the relay says of itself; empty where it does not say anything."""
        answer = httpx.get(f"{self.relay.url}/metrics", headers=dict(self.operator), timeout=10)
        if answer.status_code != 200:
            return {}
        return {name: float(value) for name, value in re.findall(r"^(\w+) ([0-9.e+]+)$", answer.text, re.MULTILINE)}

    @property
    def growth_mib(self) -> float:
        """Of the relay's memory since it was ready and warm."""
        return float(self._process.memory_info().rss - self._memory_bytes) / 2**20

    def _after(self, printed: str) -> list[str]:
        """What is not well after a fault."""
        wrong = []
        again = self.ask()
        if again.status != 200:
            wrong.append(f"a plain request afterwards: {again}")
        if '"event":"defect"' in printed or "Traceback" in printed:
            wrong.append("a defect in the log")
        deadline = time.monotonic() + SETTLE_SECONDS
        while (left := self._left_over()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.growth_mib > GROWTH_LIMIT_MIB:
            left.append(f"memory grown by {self.growth_mib:.0f} MiB")
        return wrong + left

    def _left_over(self) -> list[str]:
        left = []
        surplus = self._own_files() - self._files
        if surplus > _SPARE_FILES:
            left.append(f"{surplus} files or connections left")
        if active := self.upstream.statistics()["active"]:
            left.append(f"{active} upstream calls left")
        gauges = self.gauges()
        left += [f"{name} {gauges[name]:g}" for name, most in _GAUGES.items() if gauges.get(name, 0) > most]
        return left

    def _own_files(self) -> int:
        """Open files and connections, except those that are kept for the next call to the upstream."""
        return self._process.num_fds() - open_connections(self.relay, self.upstream.url)


@contextmanager
def a_bench(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Bench]:
    """A relay with short limits before a rude upstream."""
    operator = make_key("operator", Scope.OPERATOR)
    keys = folder / "keys.yaml"
    write_keys(keys, [operator])
    settings = {
        "RELAY_KEY_FILE": str(keys),
        "RELAY_IDLE_TIMEOUT_SECONDS": str(IDLE_SECONDS),
        "RELAY_BREAKER_OPEN_SECONDS": str(BREAKER_SECONDS),
        "RELAY_HEADER_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "RELAY_BODY_IDLE_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "RELAY_SEND_IDLE_TIMEOUT_SECONDS": str(SEND_SECONDS),
        "RELAY_MAX_CONCURRENT_REQUESTS": str(MAX_REQUESTS),
        **(environment or {}),
    }
    with UpstreamProcess() as upstream, running_relay(folder, upstream.url, settings) as relay:
        yield Bench(relay, upstream, operator.headers)


def exchange(url: str, request: bytes, method: str = "POST") -> Seen:
    """Send the bytes of one request and read one reply, however it ends."""
    began = time.monotonic()
    with RawConnection(url) as connection:
        connection.send(request)
        try:
            reply = connection.reply(method)
        except (http.client.HTTPException, ConnectionError):
            return Seen(0, seconds=time.monotonic() - began)
    code = ""
    if reply.status >= 400:
        try:
            code = reply.json()["error"]["code"]
        except (ValueError, LookupError, TypeError):
            code = "no error of the relay"
    seconds = time.monotonic() - began
    return Seen(reply.status, code, reply.body, reply.complete, seconds, bool(reply.header("retry-after")))


def in_background(work: Callable[[], Seen]) -> Callable[[], Seen]:
    """Begin work in a thread; the function that is returned waits for its result."""
    found: list[Seen] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()

    def result() -> Seen:
        thread.join(30)
        return found[0] if found else Seen(0)

    return result


def connect(url: str) -> socket.socket:
    """A connection to a server."""
    return socket.create_connection((HOST, int(url.rpartition(":")[2])), 10)


def vanish(client: socket.socket) -> None:
    """End a connection by a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def wait_for(condition: Callable[[], object], seconds: float = SETTLE_SECONDS) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
