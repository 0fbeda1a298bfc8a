"""Fixtures that all tests share: one simulated upstream and one relay per test process."""

from collections.abc import Iterator

import httpx
import pytest

from handlers.simulated_upstream import SimulatedUpstream
from tests.support.servers import (
    RELAY_KEY,
    UPSTREAM_KEY,
    RelayProcess,
    ServerThread,
    running_relay,
    simulated_upstream,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this project."""
    parser.addoption(
        "--update-evidence",
        action="store_true",
        help="Write tests/evidence.tsv from what the integration tests have seen, instead of comparing it.",
    )


@pytest.fixture(scope="session")
def upstream_app() -> SimulatedUpstream:
    """The simulated upstream itself: its recorder and its faults."""
    return simulated_upstream()


@pytest.fixture(scope="session")
def upstream_server(upstream_app: SimulatedUpstream) -> Iterator[ServerThread]:
    """The simulated upstream on loopback."""
    with ServerThread(upstream_app) as server:
        yield server


@pytest.fixture(scope="session")
def relay_process(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A real `relay serve` before the simulated upstream; neither key may ever show in what it prints."""
    with running_relay(tmp_path_factory.mktemp("relay"), upstream_server.url) as relay:
        yield relay
    printed = relay.printed()
    assert RELAY_KEY not in printed
    assert UPSTREAM_KEY not in printed


@pytest.fixture
def upstream(upstream_app: SimulatedUpstream) -> Iterator[SimulatedUpstream]:
    """The simulated upstream with nothing recorded and no fault."""
    upstream_app.recorder.clear()
    upstream_app.faults.clear()
    yield upstream_app
    upstream_app.faults.clear()


@pytest.fixture
def relay(relay_process: RelayProcess, upstream: SimulatedUpstream) -> RelayProcess:
    """The running relay, with a fresh recorder behind it."""
    del upstream
    return relay_process


@pytest.fixture
def client(relay: RelayProcess) -> Iterator[httpx.Client]:
    """An HTTP client that holds the relay's key."""
    with httpx.Client(base_url=relay.url, headers=relay.headers, timeout=10) as client:
        yield client
