"""Fixtures of the fuzz tests: one fuzzer per module, before the shared relay and its upstream."""

from collections.abc import Iterator

import pytest
import requests
from typer import echo

from handlers.simulated_upstream import SimulatedUpstream
from tests.support.fuzzing import Fuzzer
from tests.support.servers import RelayProcess


@pytest.fixture(scope="module")
def fuzzer(
    relay_process: RelayProcess, upstream_app: SimulatedUpstream, pytestconfig: pytest.Config
) -> Iterator[Fuzzer]:
    """Sends what is generated; prints at the end who answered how many requests."""
    upstream_app.faults.clear()
    with requests.Session() as session:
        fuzzer = Fuzzer(relay_process, upstream_app.recorder, session)
        yield fuzzer
    seen = ", ".join(f"{count} by {kind}" for kind, count in fuzzer.seen.most_common())
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        echo(f"\n{fuzzer.seen.total()} requests, answered: {seen}")
