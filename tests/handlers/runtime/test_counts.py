import pytest

from handlers.runtime.counts import DURATION_BOUNDS, Counts, Histogram, status_class


@pytest.mark.parametrize(
    "status, expected", [(0, ""), (101, "1xx"), (204, "2xx"), (304, "3xx"), (499, "4xx"), (599, "5xx"), (999, "")]
)
def test_statuses_become_their_class(status: int, expected: str) -> None:
    """Labels stay few, whatever an upstream answers."""
    assert status_class(status) == expected


def test_a_duration_stands_in_the_smallest_bucket_that_holds_it() -> None:
    """Bounds are inclusive, as Prometheus reads them; what is longer than all of them is unbounded."""
    histogram = Histogram()
    for bound in DURATION_BOUNDS:
        histogram.add(bound)
    histogram.add(DURATION_BOUNDS[-1] + 1)
    assert histogram.numbers == [1] * (len(DURATION_BOUNDS) + 1)
    assert histogram.seconds == sum(DURATION_BOUNDS) + DURATION_BOUNDS[-1] + 1


def test_an_operation_has_one_object() -> None:
    """Whoever asks for it adds to the same numbers."""
    counts = Counts()
    assert counts.of("listModels", "PROXY_HARNESS") is counts.of("listModels", "PROXY_HARNESS")


def test_only_a_refusal_without_a_call_is_one_before_the_upstream() -> None:
    """What went wrong after a call has cost something."""
    counts = Counts()
    counts.refuse("invalid_body", upstream_calls=0)
    counts.refuse("upstream_timeout", upstream_calls=1)
    assert counts.refusals == {"invalid_body": 1, "upstream_timeout": 1}
    assert counts.refused_before_upstream == {"invalid_body": 1}


def test_sockets_are_counted_while_they_are_open() -> None:
    """Also when one ends with an error."""
    counts = Counts()
    with counts.socket():
        assert counts.sockets == 1
        with pytest.raises(ZeroDivisionError), counts.socket():
            raise ZeroDivisionError
        assert counts.sockets == 1
    assert counts.sockets == 0
