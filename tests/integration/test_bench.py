"""A few small cells of the benchmark through its real code: wrk, the upstream, the relay, the figures."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from tests.bench.load import LoadFailed
from tests.bench.results import CPU_US, FIRST_EVENT_MS, MB_PER_SECOND, P50_MS, PER_SECOND
from tests.bench.scaling import PSS_MB, READY_SECONDS, START
from tests.bench.session import Plan, Session
from tests.bench.subjects import DIRECT, DOWNLOAD, JSON_32, MCP, PROXY, RELAY, SSE, WRAPPER, Direct, Started
from tests.bench.tools import Tools

pytestmark = pytest.mark.integration

WRK_HINT = "wrk is missing. Run ./scripts/test as root, or: sudo apt-get update && sudo apt-get install wrk"


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """Tools that have nothing to install: the benchmark does that, the tests' script does it for them."""
    assert shutil.which("wrk"), WRK_HINT
    return Tools(tmp_path, lambda _: None)


def plan(cells: dict[str, frozenset[str]], extras: frozenset[str] = frozenset()) -> Plan:
    """One short pass."""
    return Plan(cells, extras, passes=1, seconds=1.0, events=20, repetitions=1, starts=1)


def test_cells_have_their_figures(tools: Tools) -> None:
    """Every kind of measurement gives figures that are there and above zero."""
    workloads = frozenset({JSON_32, PROXY, WRAPPER, MCP, SSE, DOWNLOAD})
    said: list[str] = []
    cells = {DIRECT.name: frozenset({JSON_32}), RELAY.name: workloads}
    results = Session(plan(cells, frozenset({START})), (DIRECT, RELAY), tools, said.append).run()
    assert results.not_measured == {}
    assert results.of(DIRECT.name, JSON_32, CPU_US) is None  # nothing of it is the subject's
    found = {
        (subject, workload, figure): results.median(subject, workload, figure)
        for subject, workload, figure in (
            (DIRECT.name, JSON_32, PER_SECOND),
            (DIRECT.name, JSON_32, P50_MS),
            *((RELAY.name, workload, CPU_US) for workload in workloads),
            (RELAY.name, SSE, FIRST_EVENT_MS),
            (RELAY.name, DOWNLOAD, MB_PER_SECOND),
            (RELAY.name, START, READY_SECONDS),
            (RELAY.name, START, PSS_MB),
        )
    }
    assert [key for key, value in found.items() if not value] == []
    assert any("pass 1 of 1: relay" in line for line in said)


def test_a_relay_that_refuses_fails_the_run(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals are fast, so nobody may take them for results."""
    monkeypatch.setattr("tests.bench.load.path_of", lambda *_: "/v1/nowhere")
    refused = Session(plan({RELAY.name: frozenset({JSON_32})}), (RELAY,), tools, lambda _: None)
    with pytest.raises(LoadFailed, match="status 404"):
        refused.run()


class Refusing(Direct):
    """A subject that knows none of the paths."""

    name: ClassVar[str] = "refusing"
    title: ClassVar[str] = "one that refuses"

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Say another path."""
        del folder
        yield Started(upstream_url, None, {}, {JSON_32: "/nowhere"})


def test_another_that_refuses_is_named(tools: Tools) -> None:
    """A peer that cannot do one thing costs the others nothing, and the page says what and why."""
    cells = {name: frozenset({JSON_32}) for name in (DIRECT.name, Refusing.name)}
    results = Session(plan(cells), (Refusing(), DIRECT), tools, lambda _: None).run()
    assert list(results.not_measured) == [f"one that refuses, {JSON_32}"]
    assert "status 404" in results.not_measured[f"one that refuses, {JSON_32}"]
    assert results.of(DIRECT.name, JSON_32, PER_SECOND) is not None
    assert results.of(Refusing.name, JSON_32, PER_SECOND) is None
