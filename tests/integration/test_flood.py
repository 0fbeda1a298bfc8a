"""A flood of clients, ten times what the relay runs at once: who gets in is served quickly, the rest is told so."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.raw_http import raw_request
from tests.support.servers import HOST, RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

REQUESTS = 50
CLIENTS = 10 * REQUESTS
SECONDS = 6.0
WORK_SECONDS = 0.1
PAUSE_SECONDS = 1.0  # as `Retry-After` asks
P99_SECONDS = 1.0
HANG_SECONDS = 15.0
GROWTH_LIMIT_BYTES = 60 * 2**20
BODY = b'{"model": "m", "input": "x"}'


@pytest.fixture(scope="module")
def small_relay(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay that runs `REQUESTS` at once."""
    environment = {"RELAY_MAX_CONCURRENT_REQUESTS": str(REQUESTS)}
    with running_relay(tmp_path_factory.mktemp("flood"), upstream_server.url, environment) as relay:
        yield relay


async def ask_until(end: float, relay: RelayProcess, seen: Counter[int], accepted: list[float]) -> None:
    """Be one client: ask on one connection again and again, and wait as long as a refusal asks for."""
    headers = {**relay.headers, "Content-Type": "application/json"}
    request = raw_request("POST", "/v1/responses", headers.items(), BODY)
    reader, writer = await asyncio.open_connection(HOST, int(relay.url.rpartition(":")[2]))
    try:
        while time.monotonic() < end:
            began = time.monotonic()
            async with asyncio.timeout(HANG_SECONDS):
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length: " in head:
                    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                else:
                    await reader.readuntil(b"\r\n0\r\n\r\n")
            status = int(head.split()[1])
            seen[status] += 1
            if status == 200:
                accepted.append(time.monotonic() - began)
            else:
                assert b"\r\nretry-after: 1\r\n" in head, head
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        writer.close()


async def test_a_flood_is_served_as_far_as_there_is_room(
    small_relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Accepted requests keep their time, all others get 503 with `Retry-After`, nothing hangs, memory stays."""
    upstream.faults.add(Fault("createResponse", delay_seconds=WORK_SECONDS))
    process = psutil.Process(small_relay.pid)
    before = process.memory_info().rss
    seen: Counter[int] = Counter()
    accepted: list[float] = []
    end = time.monotonic() + SECONDS
    await asyncio.gather(*(ask_until(end, small_relay, seen, accepted) for _ in range(CLIENTS)))
    assert set(seen) == {200, 503}, seen
    assert seen[200] > REQUESTS
    assert seen[503] > CLIENTS / 2
    accepted.sort()
    p99 = accepted[int(len(accepted) * 0.99)]
    growth = process.memory_info().rss - before
    print(f"{seen}, p50 {accepted[len(accepted) // 2]:.3f} s, p99 {p99:.3f} s, growth {growth / 2**20:.1f} MiB")  # noqa: T201 - figures of a run
    assert p99 < P99_SECONDS
    assert growth < GROWTH_LIMIT_BYTES
