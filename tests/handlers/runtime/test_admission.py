import pytest

from handlers.runtime.admission import Admission
from handlers.runtime.exceptions import KeyConcurrencyExceeded, Overloaded


def test_no_more_run_than_may() -> None:
    """The one too many is refused and not counted; when another has left, there is room again."""
    admission = Admission(2)
    first, _ = admission.enter(), admission.enter()
    for _ in range(3):
        with pytest.raises(Overloaded):
            admission.enter()
    assert admission.running == 2
    first.leave()
    admission.enter()
    assert admission.running == 2


def test_a_request_on_a_surplus_connection_is_refused() -> None:
    """However little runs."""
    admission = Admission(2)
    with pytest.raises(Overloaded):
        admission.enter(surplus=True)
    assert admission.running == 0


def test_each_key_has_its_own_limit() -> None:
    """One key at its limit takes nothing from another; what was refused for its key still leaves as one request."""
    admission = Admission(10, 1)
    first, second, other = (admission.enter() for _ in range(3))
    first.count_for("a")
    with pytest.raises(KeyConcurrencyExceeded):
        second.count_for("a")
    second.leave()
    other.count_for("b")
    assert (admission.running, admission.running_for("a"), admission.running_for("b")) == (2, 1, 1)
    first.leave()
    other.leave()
    assert (admission.running, admission.running_for("a"), admission.running_for("b")) == (0, 0, 0)


def test_without_a_limit_keys_are_not_counted() -> None:
    """0 is no limit."""
    admission = Admission(10)
    admitted = [admission.enter() for _ in range(10)]
    for request in admitted:
        request.count_for("a")
        request.leave()
    assert admission.running == 0


def test_the_beginning_of_the_end_is_known() -> None:
    """Whoever asks for readiness can be told."""
    admission = Admission(1)
    assert not admission.draining
    admission.drain()
    assert admission.draining
