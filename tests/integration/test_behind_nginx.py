"""The example `docs/deployment/nginx.conf` with a real nginx: the relay behind it works as it does without."""

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.nginx import EXAMPLE, Nginx
from tests.support.servers import RelayProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

STREAM = {"model": "gpt-6-luna", "input": "Say hello.", "stream": True}
UPLOAD_BYTES = 3 * 2**20  # more than nginx lets through by itself
FIRST_BYTES = 300  # of an event stream; nginx keeps such a piece back by itself


@pytest.fixture(scope="module")
def nginx(relay_process: RelayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The example before the running relay."""
    with Nginx(tmp_path_factory.mktemp("nginx"), relay_process.url, EXAMPLE.read_text(encoding="utf-8")) as nginx:
        yield nginx


@pytest.fixture
def outside(nginx: Nginx, relay: RelayProcess) -> Iterator[httpx.Client]:
    """A client that reaches the relay through nginx only."""
    with httpx.Client(base_url=nginx.url, headers=relay.headers, verify=nginx.trust, timeout=10) as client:
        yield client


def test_events_pass_as_they_come(outside: httpx.Client, upstream: SimulatedUpstream) -> None:
    """What the upstream has sent is with the client while the upstream says nothing more, and leaving ends the call."""
    upstream.faults.add(Fault(silent_after_bytes=FIRST_BYTES))
    with outside.stream("POST", "/v1/responses", json=STREAM) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        received = 0
        for piece in reply.iter_raw():
            received += len(piece)
            if received >= FIRST_BYTES:
                break
        (call,) = upstream.recorder.requests
        assert call.finished_at is None
    wait_until(lambda: call.disconnected_at is not None)


def test_large_uploads_pass(outside: httpx.Client, upstream: SimulatedUpstream) -> None:
    """A body that nginx would refuse by itself arrives complete."""
    content = bytes(range(256)) * (UPLOAD_BYTES // 256)
    files = {"file": ("a.bin", content, "application/octet-stream")}
    assert outside.post("/v1/files", data={"purpose": "user_data"}, files=files).status_code == 200
    (call,) = upstream.recorder.requests
    assert call.body_size > UPLOAD_BYTES
    stored = outside.get(f"/v1/files/{outside.get('/v1/files').json()['data'][0]['id']}/content")
    assert hashlib.sha256(stored.content).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize(
    "target",
    ["/v1/models/ft%3Agpt-6", "/v1/files/a%2Fb", "/v1//models", "/v1/files?limit=x", "/v1/assistants", "/nothing"],
)
def test_paths_and_verdicts_pass_unchanged(outside: httpx.Client, relay: RelayProcess, target: str) -> None:
    """Nginx neither tidies a path up nor puts a page of its own in an error's place."""
    with httpx.Client(base_url=relay.url, headers=relay.headers, timeout=10) as direct:
        expected = direct.get(target)
    got = outside.get(target)
    assert (got.status_code, got.content) == (expected.status_code, expected.content)
    assert got.headers["x-relay-request-id"].startswith("rly_")


def test_links_stay_out_of_its_logs(outside: httpx.Client, nginx: Nginx) -> None:
    """A link to a file is a permission, so nginx writes no paths down."""
    assert outside.get("/artifacts/recognisable-token").status_code == 404
    logs = [path.read_text(encoding="utf-8") for path in nginx.folder.glob("*.log")]
    assert not any("recognisable" in text for text in logs)
