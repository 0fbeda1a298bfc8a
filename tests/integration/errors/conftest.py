"""Relays that are easy to bring to their limits, and the clients that do it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from codegen.contract import Scope
from tests.support.bad_days import ScriptedUpstream, defect_environment, refusing_address
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.relay_errors import MARKED_HEADERS
from tests.support.servers import HOST, RelayProcess, ServerThread, running_relay
from tests.support.token_issuer import ISSUER, PUBLIC_URL

MAX_JSON_BYTES = 4_000
MAX_UPLOAD_BYTES = 6_000
MAX_ARTIFACT_BYTES = 60_000
TOTAL_TIMEOUT_SECONDS = 2.0
IDLE_TIMEOUT_SECONDS = 0.7


@dataclass(frozen=True)
class StrictRelay:
    """A relay with small limits and a short total timeout before the simulated upstream."""

    process: RelayProcess
    assistant: MadeKey


@pytest.fixture(scope="session")
def strict_relay(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictRelay]:
    """`MAX_JSON_BYTES`, `MAX_UPLOAD_BYTES`, `TOTAL_TIMEOUT_SECONDS`, and a key with the scope `actions` only."""
    folder = tmp_path_factory.mktemp("strict")
    assistant = make_key("assistant", Scope.ACTIONS)
    write_keys(folder / "keys.yaml", [assistant])
    environment = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_MAX_JSON_BYTES": str(MAX_JSON_BYTES),
        "RELAY_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
        "RELAY_TOTAL_TIMEOUT_SECONDS": str(TOTAL_TIMEOUT_SECONDS),
        "RELAY_ARTIFACT_MAX_TOTAL_BYTES": str(MAX_ARTIFACT_BYTES),
        "RELAY_MAX_SOCKETS_PER_KEY": "1",
        "RELAY_NETWORKS_OPERATOR": "192.0.2.0/24",
        "RELAY_FILE_HOSTS": HOST,
        "RELAY_FILE_PRIVATE_NETWORKS": f"{HOST}/32",
    }
    with running_relay(folder, upstream_server.url, environment) as process:
        yield StrictRelay(process, assistant)


@dataclass(frozen=True)
class UnluckyRelay:
    """A relay whose upstream and token issuer refuse connections, with a defect, and a store that a test may break."""

    process: RelayProcess
    store: Path


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedUpstream]:
    """An upstream that answers raw bytes."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def impatient_relay(scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with `IDLE_TIMEOUT_SECONDS` before the scripted upstream."""
    # It fails all the time, and each failure is to be seen by itself.
    environment = {"RELAY_IDLE_TIMEOUT_SECONDS": str(IDLE_TIMEOUT_SECONDS), "RELAY_BREAKER_FAILURES": "0"}
    with running_relay(tmp_path_factory.mktemp("impatient"), scripted.url, environment) as process:
        yield process


@pytest.fixture(scope="session")
def unlucky_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnluckyRelay]:
    """The relay with everything against it."""
    folder = tmp_path_factory.mktemp("unlucky")
    store = folder / "relay.db"
    environment = {
        **defect_environment(folder),
        "RELAY_STORE_URL": f"sqlite+aiosqlite:///{store}",
        "RELAY_BREAKER_FAILURES": "0",
    }
    with refusing_address() as url:
        issuer = {
            "RELAY_PUBLIC_URL": PUBLIC_URL,
            "RELAY_OAUTH_ISSUER": ISSUER,
            "RELAY_OAUTH_JWKS_URL": f"{url}/keys",
        }
        with running_relay(folder, url, {**environment, **issuer}) as process:
            yield UnluckyRelay(process, store)


@pytest.fixture(scope="session")
def marked(relay_process: RelayProcess) -> Iterator[httpx.Client]:
    """A client of the usual relay that sends the mark in its headers."""
    with marked_client(relay_process) as client:
        yield client


@pytest.fixture(scope="session")
def strict(strict_relay: StrictRelay) -> Iterator[httpx.Client]:
    """The same for the relay with small limits."""
    with marked_client(strict_relay.process) as client:
        yield client


@pytest.fixture(scope="session")
def impatient(impatient_relay: RelayProcess) -> Iterator[httpx.Client]:
    """The same for the relay before the scripted upstream."""
    with marked_client(impatient_relay) as client:
        yield client


@pytest.fixture(scope="session")
def unlucky(unlucky_relay: UnluckyRelay) -> Iterator[httpx.Client]:
    """The same for the relay with a defect and without an upstream."""
    with marked_client(unlucky_relay.process) as client:
        yield client


def marked_client(relay: RelayProcess) -> httpx.Client:
    """A client with the relay's key and the mark in every header that a client can fill."""
    return httpx.Client(base_url=relay.url, headers={**relay.headers, **MARKED_HEADERS}, timeout=10)
