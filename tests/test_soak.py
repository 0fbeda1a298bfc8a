"""How `scripts/soak` judges a run and draws its graph (`tests/support/soak.py`). Opens no sockets."""

from collections import Counter
from datetime import UTC, datetime
from typing import cast
from xml.etree import ElementTree as ET

import httpx
import pytest

from tests.support.servers import RelayProcess
from tests.support.soak import Sample, Soak, report
from tests.support.soak_graph import slope, svg
from tests.support.soak_traffic import Traffic

MINUTES = 30


def run(megabytes_per_minute: float, errors: int = 0, defects: int = 0) -> Soak:
    """A run whose memory settles in its first ten minutes and then rises so fast."""
    traffic = Traffic(cast("RelayProcess", None), cast("httpx.AsyncClient", None), {}, Counter(JSON=1000))
    traffic.error_count = errors
    traffic.errors = ["JSON: Unexpected: 503 instead of 200"] * errors
    samples = [
        Sample(seconds, 100 + min(seconds / 60, 10) + max(seconds / 60 - 10, 0) * megabytes_per_minute, 30)
        for seconds in range(0, MINUTES * 60, 5)
    ]
    return Soak(MINUTES, samples, traffic, defects, 5.0)


@pytest.mark.parametrize(
    "result, met",
    [
        (run(0.0), True),
        (run(0.04), True),
        (run(-1.0), True),
        (run(0.06), False),
        (run(0.0, errors=1), False),
        (run(0.0, defects=1), False),
    ],
    ids=["steady", "below the bar", "shrinking", "above the bar", "an error", "a defect"],
)
def test_a_run_is_met_while_memory_stays_and_nothing_unexpected_happens(result: Soak, met: bool) -> None:
    """Only the last two thirds count, in which memory may rise by less than a megabyte."""
    assert result.met is met
    assert ("NOT MET" in report(result, datetime(2026, 1, 1, tzinfo=UTC))) is not met


def test_an_unexpected_answer_stands_on_the_page() -> None:
    """Whoever reads the page sees what went wrong."""
    assert "- JSON: Unexpected: 503 instead of 200\n" in report(run(0.0, errors=2), datetime(2026, 1, 1, tzinfo=UTC))


def test_the_slope_is_that_of_the_best_line() -> None:
    """Noise around a line does not change it, and one point has none."""
    assert slope([(x, 5 + 2 * x + (-1) ** x) for x in range(100)]) == pytest.approx(2, abs=0.01)
    assert slope([(1.0, 1.0)]) == 0


def test_the_graph_is_well_formed_and_holds_every_sample() -> None:
    """One line of all samples, one of best fit, nothing outside of the picture."""
    points = [(minute / 2, 100 + minute / 10) for minute in range(61)]
    root = ET.fromstring(svg(points, judged_from=10))  # noqa: S314 - made above
    lines = [element.attrib["points"].split() for element in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(line) for line in lines] == [61, 2]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for x, y in (point.split(",") for line in lines for point in line):
        assert 0 < float(x) < width
        assert 0 < float(y) < height
