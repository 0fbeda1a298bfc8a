import pytest

from handlers.runtime.counts import CANCELLED, FAILED, Counts
from handlers.runtime.observation import OBSERVATION, Observation, ObservedCall, note_retry

KEY = b"sk-made-up-upstream"


@pytest.fixture
def observation() -> Observation:
    """The observation of the request that this test stands for."""
    made = Observation(Counts().of("listModels", "PROXY_HARNESS"))
    OBSERVATION.set(made)
    return made


def test_a_refused_request_has_cost_no_call(observation: Observation) -> None:
    """Its log line says so and nothing else about the upstream."""
    assert observation.fields() == {"upstream_calls": 0}


def test_an_answered_call_is_noted_for_line_and_metrics(observation: Observation) -> None:
    """Status, id and time stand in the line, status class and time in the counts of the operation."""
    ObservedCall().answered(201, [(b"X-Request-Id", b"req_1")], KEY)
    fields = observation.fields()
    assert fields.pop("upstream_ms") == round(observation.upstream_seconds * 1000, 1)
    assert fields == {"upstream_calls": 1, "upstream_status": 201, "upstream_request_id": "req_1"}
    assert observation.counts.upstream_calls == {"2xx": 1}
    assert sum(observation.counts.upstream_duration.numbers) == 1


@pytest.mark.parametrize("kind", [FAILED, CANCELLED])
def test_a_call_without_an_answer_has_no_status(observation: Observation, kind: str) -> None:
    """It counts as a call, and not among the durations until headers."""
    ObservedCall().end(kind)
    assert observation.counts.upstream_calls == {kind: 1}
    assert sum(observation.counts.upstream_duration.numbers) == 0
    assert "upstream_status" not in observation.fields()


def test_repetitions_are_told(observation: Observation) -> None:
    """Each try is a call; how many of them repeat one is a number of its own."""
    ObservedCall().end(FAILED)
    note_retry()
    ObservedCall().answered(200, [], KEY)
    assert (observation.fields()["upstream_calls"], observation.fields()["retries"]) == (2, 1)
    assert observation.counts.retries == 1


@pytest.mark.parametrize(
    "value", [b"", b"req 1", b"req\n1", b"\xff", b"r" * 200, KEY, b"req_" + KEY, b'req"}'], ids=lambda value: value[:12]
)
def test_an_id_that_is_none_is_not_logged(observation: Observation, value: bytes) -> None:
    """What the upstream sends as its request id is kept only while it looks like one and holds no key."""
    ObservedCall().answered(200, [(b"x-request-id", value)], KEY)
    assert "upstream_request_id" not in observation.fields()


def test_a_status_from_nowhere_is_a_failed_call(observation: Observation) -> None:
    """Labels stay few whatever the upstream answers."""
    ObservedCall().answered(999, [], KEY)
    assert observation.counts.upstream_calls == {FAILED: 1}


def test_calls_outside_of_a_request_are_nobodys() -> None:
    """Nothing breaks where no request is being observed."""
    OBSERVATION.set(None)
    note_retry()
    call = ObservedCall()
    call.answered(200, [], KEY)
    assert call.traceparent is None
