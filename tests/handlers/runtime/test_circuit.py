import pytest

from handlers.runtime.circuit import Circuit, CircuitState
from handlers.runtime.exceptions import UpstreamCircuitOpen


class Clock:
    """Time that goes on when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    """A circuit that three failures open for ten seconds."""
    return Circuit(3, 10.0, clock)


def fail(circuit: Circuit, times: int) -> None:
    """Ask in vain."""
    for _ in range(times):
        circuit.fail(circuit.enter())


def refused(circuit: Circuit) -> str | None:
    """What `Retry-After` a caller is told; `None` when it may ask."""
    try:
        circuit.check()
    except UpstreamCircuitOpen as error:
        return dict(error.headers)["Retry-After"]
    return None


def test_failures_in_a_row_open_it(circuit: Circuit) -> None:
    """Two are not enough, the third is; a success in between starts anew."""
    fail(circuit, 2)
    circuit.succeed()
    fail(circuit, 2)
    assert (circuit.state, refused(circuit)) == (CircuitState.CLOSED, None)
    fail(circuit, 1)
    assert (circuit.state, refused(circuit)) == (CircuitState.OPEN, "10")
    with pytest.raises(UpstreamCircuitOpen):
        circuit.enter()


def test_callers_are_told_when_to_come_back(circuit: Circuit, clock: Clock) -> None:
    """`Retry-After` is the rest of the time, in whole seconds and at least one."""
    fail(circuit, 3)
    told = []
    for _ in range(4):
        told.append(refused(circuit))
        clock.seconds += 3.2
    assert told == ["10", "7", "4", "1"]


def test_one_probe_at_a_time(circuit: Circuit, clock: Clock) -> None:
    """When the time is over one asks and the others wait; its success opens the way for all."""
    fail(circuit, 3)
    clock.seconds += 10
    assert (circuit.state, refused(circuit)) == (CircuitState.HALF_OPEN, None)
    assert circuit.enter() is True
    assert (circuit.state, refused(circuit)) == (CircuitState.HALF_OPEN, "1")
    circuit.succeed()
    assert (circuit.state, refused(circuit)) == (CircuitState.CLOSED, None)
    assert circuit.enter() is False
    fail(circuit, 2)
    assert circuit.state is CircuitState.CLOSED


def test_a_probe_that_fails_opens_it_again(circuit: Circuit, clock: Clock) -> None:
    """One failure is enough then, and the whole time begins anew."""
    fail(circuit, 3)
    clock.seconds += 10
    fail(circuit, 1)
    assert (circuit.state, refused(circuit)) == (CircuitState.OPEN, "10")


def test_a_probe_that_leaves_makes_room_for_the_next(circuit: Circuit, clock: Clock) -> None:
    """A client that is gone proves nothing, and blocks nobody."""
    fail(circuit, 3)
    clock.seconds += 10
    circuit.leave(circuit.enter())
    assert circuit.state is CircuitState.HALF_OPEN
    assert circuit.enter() is True


def test_those_under_way_do_not_prolong_it(circuit: Circuit, clock: Clock) -> None:
    """Calls that began before it opened may fail later without a consequence; an answer to one closes it."""
    under_way = [circuit.enter() for _ in range(5)]
    fail(circuit, 3)
    clock.seconds += 9
    circuit.fail(under_way[0])
    circuit.leave(under_way[1])
    assert refused(circuit) == "1"
    clock.seconds += 1
    assert circuit.enter() is True
    circuit.fail(under_way[2])
    assert refused(circuit) == "1", "the probe is still under way"
    circuit.succeed()
    assert circuit.state is CircuitState.CLOSED


def test_it_can_be_switched_off(clock: Clock) -> None:
    """With 0 failures as its limit it never opens."""
    circuit = Circuit(0, 10.0, clock)
    fail(circuit, 1000)
    assert circuit.state is CircuitState.CLOSED
