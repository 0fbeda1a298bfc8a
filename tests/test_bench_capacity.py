import math

import pytest

from tests.bench.capacity import ANSWER_SECONDS, BUSY_SHARE, EVENTS_PER_SECOND, UnitCosts, calls_under_way, capacity
from tests.bench.results import CPU_US, MEMORY_MB, PER_SECOND, STREAM_MB, Results
from tests.bench.scaling import LOAD_CORES, WORKERS
from tests.bench.subjects import JSON_32, RELAY, RELAY_TWO_WORKERS, SSE

COSTS = UnitCosts(request_us=300, event_us=30, worker_mb=90, stream_mb=0.02, scaling=0.9)


def measured() -> Results:
    """A run with everything that the model takes."""
    results = Results()
    for workload, figure, value in ((JSON_32, CPU_US, 300), (JSON_32, MEMORY_MB, 90), (SSE, CPU_US, 30)):
        results.add(RELAY.name, workload, figure, value)
    results.add(RELAY.name, SSE, STREAM_MB, 0.02)
    results.add(RELAY.name, WORKERS, PER_SECOND, 3000)
    results.add(RELAY_TWO_WORKERS.name, WORKERS, PER_SECOND, 5400)
    results.add(RELAY_TWO_WORKERS.name, WORKERS, LOAD_CORES, 0.2)
    return results


def test_one_worker_holds_what_its_costs_say() -> None:
    """So many requests, or streams, as the busy share of a core pays for."""
    assert COSTS.requests_per_second == pytest.approx(BUSY_SHARE * 1e6 / 300)
    assert COSTS.streams == int(BUSY_SHARE * 1e6 / (EVENTS_PER_SECOND * 30))


def test_a_load_takes_the_workers_that_its_work_pays() -> None:
    """Requests and events add up, and further workers count as much as was measured."""
    per_worker_us = BUSY_SHARE * 1e6 * 0.9
    assert COSTS.workers(10, 0) == 1
    assert COSTS.workers(10_000, 0) == math.ceil(10_000 * 300 / per_worker_us)
    assert COSTS.workers(10_000, 5_000) == math.ceil((10_000 * 300 + 5_000 * EVENTS_PER_SECOND * 30) / per_worker_us)


def test_what_waits_is_counted() -> None:
    """A request waits as long as its answer takes, a stream is one call."""
    assert calls_under_way(10, 50) == 10 * ANSWER_SECONDS + 50


def test_the_section_has_the_costs_of_the_run() -> None:
    """What stands on the page comes from what was measured."""
    text = "\n".join(capacity(measured()))
    assert "| small JSON, requests/s | 2,000 |" in text
    assert "| event streams open at once, by the processor | 666 |" in text
    assert "| memory, MB, with 500 streams | 100 |" in text


@pytest.mark.parametrize("missing", [(RELAY.name, JSON_32, CPU_US), (RELAY.name, SSE, CPU_US)])
def test_without_a_cost_there_is_no_model(missing: tuple[str, str, str]) -> None:
    """A partial run has no section rather than a guess."""
    results = measured()
    del results._values[missing]
    assert list(capacity(results)) == []
