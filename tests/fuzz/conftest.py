"""Fixtures of the fuzz tests: one fuzzer per module, before one relay with its upstream and a server with files."""

from collections.abc import Iterator

import pytest
import requests
from typer import echo

from handlers.simulated_upstream import SimulatedUpstream
from tests.support.file_relay import FileRelay, running_file_relay
from tests.support.fuzzing import Fuzzer
from tests.support.servers import RELAY_KEY, UPSTREAM_KEY, RelayProcess, ServerThread


@pytest.fixture(scope="session")
def file_relay(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """A relay that fetches files from loopback alone; neither key may ever show in what it prints."""
    with running_file_relay(tmp_path_factory.mktemp("fuzz"), upstream_server.url) as running:
        yield running
    printed = running.relay.printed()
    assert RELAY_KEY not in printed
    assert UPSTREAM_KEY not in printed


@pytest.fixture(scope="session")
def relay_process(file_relay: FileRelay) -> RelayProcess:
    """The same relay for all fuzz tests."""
    return file_relay.relay


@pytest.fixture(scope="module")
def fuzzer(file_relay: FileRelay, upstream_app: SimulatedUpstream, pytestconfig: pytest.Config) -> Iterator[Fuzzer]:
    """Sends what is generated; prints at the end who answered how many requests."""
    upstream_app.faults.clear()
    with requests.Session() as session:
        fuzzer = Fuzzer(file_relay.relay, upstream_app.recorder, file_relay.files, session)
        yield fuzzer
    seen = ", ".join(f"{count} by {kind}" for kind, count in fuzzer.seen.most_common())
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        echo(f"\n{fuzzer.seen.total()} requests, answered: {seen}")
