import contextlib
import http.client
import json
import math
import socket
import struct
from collections.abc import Iterator

import httpx
import pytest

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.disconnects import (
    ANNOUNCED_BYTES,
    BOUND_SECONDS,
    PHASES,
    Phase,
    leave_in_groups,
    open_connections,
)
from tests.support.raw_http import RawConnection, raw_request
from tests.support.servers import HOST, RelayProcess, ServerThread, running_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CLIENTS = 50
IDLE_TIMEOUT_SECONDS = 1
HELD_BACK_SECONDS = 0.3
REPLY_SECONDS = 5.0
UPLOAD_HEADERS = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(ANNOUNCED_BYTES)}


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
async def test_a_client_that_leaves_takes_its_upstream_call_along(
    phase: Phase,
    relay: RelayProcess,
    upstream: SimulatedUpstream,
    upstream_server: ServerThread,
) -> None:
    """Whenever a client leaves, the upstream sees its call cancelled, every time, and nothing stays behind."""
    open_before = open_connections(relay, upstream_server.url)
    printed_before = len(relay.printed())

    seconds = await leave_in_groups(phase, relay, upstream, clients=CLIENTS)

    noticed = [value for value in seconds if value != math.inf]
    slowest = f"{len(noticed)} notices, the slowest after {max(noticed, default=0) * 1000:.0f} ms"
    assert len(noticed) == CLIENTS, slowest
    assert phase.held_back or max(noticed) < BOUND_SECONDS, slowest
    wait_until(lambda: relay.printed()[printed_before:].count('"client_gone"') == CLIENTS)
    assert '"level":"error"' not in relay.printed()[printed_before:]
    wait_until(lambda: open_connections(relay, upstream_server.url) <= open_before)
    async with httpx.AsyncClient(base_url=relay.base_url, headers=relay.headers) as client:
        assert (await client.get("/models")).status_code == 200


def test_a_client_that_leaves_with_a_second_request_waiting_ends_the_first(
    relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """What runs is cancelled, what waits behind it never begins, and the log has no defect of it."""
    printed_before, asked_before = len(relay.printed()), len(upstream.recorder.requests)
    body = json.dumps({"model": "m", "input": "x"}).encode()
    headers = {**relay.headers, "Content-Type": "application/json"}
    upstream.faults.add(Fault("createResponse", silent=True))
    request = raw_request("POST", "/v1/responses", headers.items(), body)
    with RawConnection(relay.url) as connection:
        connection.send(request + request)
        wait_until(lambda: len(upstream.recorder.requests) > asked_before)
    wait_until(lambda: '"outcome":"client_gone"' in relay.printed()[printed_before:])
    assert httpx.get(f"{relay.url}/livez").status_code == 200
    printed = relay.printed()[printed_before:]
    assert '"level":"error"' not in printed
    assert "Traceback" not in printed


@pytest.fixture(scope="module")
def deaf_upstream() -> Iterator[socket.socket]:
    """A listening upstream that accepts connections and never reads from them."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener


@pytest.fixture(scope="module")
def impatient_relay(deaf_upstream: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay before the deaf upstream that waits for nothing longer than `IDLE_TIMEOUT_SECONDS`."""
    settings = {"RELAY_IDLE_TIMEOUT_SECONDS": str(IDLE_TIMEOUT_SECONDS)}
    with running_relay(tmp_path_factory.mktemp("impatient"), url_of(deaf_upstream), settings) as relay:
        yield relay


@contextlib.contextmanager
def held_back_upload(relay: RelayProcess) -> Iterator[socket.socket]:
    """A client that has sent as much of its upload as the relay takes."""
    with socket.create_connection((HOST, int(relay.url.rpartition(":")[2])), HELD_BACK_SECONDS) as client:
        client.sendall(raw_request("POST", "/v1/files", {**relay.headers, **UPLOAD_HEADERS}.items()))
        with contextlib.suppress(TimeoutError):
            while True:
                client.sendall(bytes(2**16))
        client.settimeout(REPLY_SECONDS)
        yield client


def test_an_upload_that_the_upstream_does_not_take_ends_with_504(
    impatient_relay: RelayProcess, deaf_upstream: socket.socket
) -> None:
    """The idle timeout also holds while the body is still going out, and no connection stays behind."""
    with held_back_upload(impatient_relay) as client, http.client.HTTPResponse(client, method="POST") as response:
        response.begin()
        assert response.status == 504
        assert json.loads(response.read())["error"]["code"] == "upstream_timeout"
    wait_until(lambda: open_connections(impatient_relay, url_of(deaf_upstream)) == 0)


@pytest.mark.parametrize("by_reset", [False, True], ids=["orderly", "reset"])
def test_a_client_that_leaves_an_upload_that_nobody_takes_frees_the_relay(
    by_reset: bool, impatient_relay: RelayProcess, deaf_upstream: socket.socket
) -> None:
    """
    Such a call ends with the idle timeout at the latest, and no connection stays behind.

    While the relay cannot read on, an orderly end is queued behind the unread bytes: TCP cannot tell the relay earlier.
    """
    with held_back_upload(impatient_relay) as client:
        if by_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: open_connections(impatient_relay, url_of(deaf_upstream)) == 0)


def url_of(listener: socket.socket) -> str:
    """Address of a listening socket."""
    return f"http://{HOST}:{listener.getsockname()[1]}"
