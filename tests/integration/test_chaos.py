"""
The quick faults of `scripts/chaos`, and some clients in each phase of its matrix; all of it is the script's business.

Not here, because it takes minutes: 3 GB, 100 clients a cell, 500 event streams, killed workers, clocks, full disks.
"""

import socket
from collections.abc import Iterator

import pytest

from handlers.simulated_upstream import SimulatedUpstream
from tests.support import chaos_bench, chaos_clients, disconnect_matrix
from tests.support.chaos_bench import Bench, Fault, Observed, a_bench, connect, wait_for
from tests.support.chaos_clients import FAULTS as CLIENT_FAULTS
from tests.support.chaos_upstream import FAULTS as UPSTREAM_FAULTS
from tests.support.disconnect_matrix import KINDS, PHASES, Cell, cells, leave_in_cell, matrix_text
from tests.support.servers import RelayProcess, ServerThread

pytestmark = pytest.mark.integration

SLOW = ("3 GB", "connect and say nothing", "frozen", "trickle", "clients at once", "then back")
QUICK = [fault for fault in (*UPSTREAM_FAULTS, *CLIENT_FAULTS) if not any(text in fault.name for text in SLOW)]
CLIENTS = 5


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for what the script gives a quarter: other tests run beside these."""
    monkeypatch.setattr(chaos_clients, "CANCEL_SECONDS", 1.0)
    monkeypatch.setattr(disconnect_matrix, "BOUND_SECONDS", 1.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One relay that lives through all faults, before an upstream that can be killed."""
    with a_bench(tmp_path_factory.mktemp("chaos")) as bench:
        yield bench


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_a_fault_ends_as_expected_and_leaves_nothing_over(fault: Fault, bench: Bench) -> None:
    """The relay answers what it must, serves the next request, and holds no file, connection or call any longer."""
    line = bench.put(fault)
    assert line.ok, str(line)


@pytest.mark.parametrize("cell", list(cells()), ids=lambda cell: f"{cell.kind} {cell.phase}")
async def test_a_client_that_leaves_is_noticed_in_time(
    cell: Cell, relay: RelayProcess, upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """In every phase of every kind of call the upstream notices within the bound, and nothing stays behind."""
    result = await leave_in_cell(cell, relay, upstream, upstream_server.url, CLIENTS)
    assert result.met, matrix_text([result])


def test_the_matrix_is_whole() -> None:
    """Four phases of four kinds, each once."""
    assert [(cell.phase, cell.kind) for cell in cells()] == [(phase, kind) for phase in PHASES for kind in KINDS]


def test_another_answer_than_expected_is_told(bench: Bench) -> None:
    """A line that is not as expected says so."""
    line = bench.put(Fault("nothing at all", "503", lambda bench: (str(bench.ask()), False)))
    assert str(line) == "| nothing at all | 503 | 200 | NOT OK |"


def test_what_a_fault_leaves_over_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that goes on after its fault makes the line fail, however well the fault itself ended."""
    monkeypatch.setattr(chaos_bench, "SETTLE_SECONDS", 0.1)
    clients: list[socket.socket] = []

    def leave_a_call(bench: Bench) -> Observed:
        clients.append(connect(bench.relay.url))
        clients[0].sendall(bench.request("silent"))
        return "fine", wait_for(lambda: bench.upstream.statistics()["active"], 5)

    line = bench.put(Fault("a forgotten call", "fine", leave_a_call))
    clients[0].close()
    assert line.ok is False
    assert "1 upstream calls left" in line.observed
