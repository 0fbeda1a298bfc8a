import time

import httpx
import pytest

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.raw_http import RawConnection
from tests.support.servers import RelayProcess
from tests.support.transfers import GROWTH_LIMIT_MIB, MIB, PeakMemory, download, expected_sha256, upload

pytestmark = pytest.mark.integration

SIZE = 2**30
SLOW_UPLOAD_BYTES = 64 * MIB
SLOW_BYTES_PER_SECOND = 32 * MIB
IDLE_DOWNLOAD_BYTES = 256 * MIB
IDLE_SECONDS = 0.5  # in which the upstream could send all of it


@pytest.fixture
def memory(relay: RelayProcess) -> PeakMemory:
    """The relay's memory against what it is after small transfers."""
    upload(relay, MIB)
    download(relay, MIB)
    return PeakMemory(relay.pid)


def test_a_gibibyte_goes_up_in_constant_memory(
    relay: RelayProcess, upstream: SimulatedUpstream, client: httpx.Client, memory: PeakMemory
) -> None:
    """A large upload arrives whole and unchanged, and the relay never holds much of it."""
    with memory:
        sent = upload(relay, SIZE)
    record = upstream.recorder.requests[-1]
    try:
        assert sent.status == 200
        assert sent.reply["bytes"] == SIZE
        assert (record.body_size, record.body_sha256) == (sent.size, sent.sha256)
        assert memory.growth_mib < GROWTH_LIMIT_MIB
    finally:
        assert client.delete(f"/v1/files/{sent.reply['id']}").json()["deleted"] is True  # it lies on the disk till then


def test_a_gibibyte_comes_down_in_constant_memory(relay: RelayProcess, memory: PeakMemory) -> None:
    """A large download arrives whole and unchanged, and the relay never holds much of it."""
    with memory:
        received = download(relay, SIZE)
    assert (received.status, received.size) == (200, SIZE)
    assert received.sha256 == expected_sha256(SIZE)
    assert memory.growth_mib < GROWTH_LIMIT_MIB


def test_a_slow_upstream_holds_the_client_back(
    relay: RelayProcess, upstream: SimulatedUpstream, memory: PeakMemory
) -> None:
    """What the upstream does not take yet waits at the client, not in the relay."""
    upstream.faults.add(Fault(operation_id="createFile", slow_read_bytes_per_second=SLOW_BYTES_PER_SECOND))
    with memory:
        sent = upload(relay, SLOW_UPLOAD_BYTES)
    assert sent.status == 200
    assert upstream.recorder.requests[-1].body_sha256 == sent.sha256
    assert memory.growth_mib < GROWTH_LIMIT_MIB


def test_a_slow_client_holds_the_upstream_back(relay: RelayProcess, memory: PeakMemory) -> None:
    """What the client does not take yet waits at the upstream, not in the relay."""
    with RawConnection(relay.url) as connection, memory:
        target = f"/v1/files/file-size-{IDLE_DOWNLOAD_BYTES}/content"
        connection.send_head("GET", target, relay.headers.items())
        connection.read_until(b"\r\n\r\n")
        time.sleep(IDLE_SECONDS)
    assert memory.growth_mib < GROWTH_LIMIT_MIB
