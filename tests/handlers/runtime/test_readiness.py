import asyncio

import pytest

from handlers.runtime import readiness
from handlers.runtime.admission import Admission
from handlers.runtime.circuit import Circuit
from handlers.runtime.exceptions import StoreUnavailable
from handlers.runtime.readiness import Readiness, State

UPSTREAM = "https://api.example/v1"


class Store:
    """A store that fails when a test says so."""

    def __init__(self) -> None:
        self.looks = 0
        self.broken = False

    async def look(self) -> None:
        """What the readiness asks."""
        self.looks += 1
        if self.broken:
            raise StoreUnavailable


class Reach:
    """Connections to the upstream that are made or fail."""

    broken = False
    looks = 0

    def __init__(self, url: str) -> None:
        assert url == UPSTREAM

    async def look(self) -> None:
        """Connect."""
        type(self).looks += 1
        if self.broken:
            raise ConnectionRefusedError


@pytest.fixture(autouse=True)
def reach(monkeypatch: pytest.MonkeyPatch) -> type[Reach]:
    """No test opens a connection."""
    monkeypatch.setattr(readiness, "_Reach", Reach)
    monkeypatch.setattr(Reach, "broken", False)
    monkeypatch.setattr(Reach, "looks", 0)
    return Reach


async def looked(ready: Readiness) -> dict[str, State]:
    """Look, and wait until it is known what there is to see."""
    ready.look()
    for _ in range(10):
        await asyncio.sleep(0)
    return dict(ready.checks())


async def test_a_relay_is_ready_before_anybody_has_looked() -> None:
    """It was started, so contract and store are there; the upstream is unknown, which is no reason to wait."""
    ready = Readiness(Admission(1), Circuit(1, 10), Store().look, UPSTREAM)
    assert ready.checks() == {"contract": "ok", "drain": "ok", "store": "ok", "upstream": "unknown"}
    assert ready.ready()


async def test_without_a_configured_store_none_is_looked_at() -> None:
    """The store in memory cannot fail without the relay."""
    ready = Readiness(Admission(1), Circuit(1, 10), None, UPSTREAM)
    async with ready.running():
        assert (await looked(ready))["store"] is State.UNUSED


async def test_a_broken_store_takes_the_relay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And lets it in again once it works."""
    monkeypatch.setattr(readiness, "EVERY_SECONDS", 0.0)
    store = Store()
    store.broken = True
    ready = Readiness(Admission(1), Circuit(1, 10), store.look, UPSTREAM)
    async with ready.running():
        assert (await looked(ready))["store"] is State.FAILING
        assert not ready.ready()
        store.broken = False
        await looked(ready)
        assert ready.ready()


async def test_a_draining_relay_is_not_ready() -> None:
    """It finishes what it has and wants nothing new."""
    admission = Admission(1)
    ready = Readiness(admission, Circuit(1, 10), None, UPSTREAM)
    admission.drain()
    assert ready.checks()["drain"] is State.DRAINING
    assert not ready.ready()


async def test_an_upstream_that_fails_takes_nobody_out(reach: type[Reach]) -> None:
    """All replicas share it: they say so and stay."""
    reach.broken = True
    ready = Readiness(Admission(1), Circuit(1, 10), None, UPSTREAM)
    async with ready.running():
        assert (await looked(ready))["upstream"] is State.FAILING
    assert ready.ready()


async def test_an_open_circuit_is_a_failing_upstream() -> None:
    """Calls know sooner than a look does."""
    circuit = Circuit(1, 10)
    circuit.fail(circuit.enter())
    ready = Readiness(Admission(1), circuit, None, UPSTREAM)
    assert ready.checks()["upstream"] is State.FAILING
    assert ready.ready()


async def test_many_probes_are_one_look(reach: type[Reach]) -> None:
    """A storm of probes does not become one towards store and upstream."""
    store = Store()
    ready = Readiness(Admission(1), Circuit(1, 10), store.look, UPSTREAM)
    async with ready.running():
        for _ in range(20):
            await looked(ready)
    assert (store.looks, reach.looks) == (1, 1)


async def test_nobody_looks_before_the_start_and_after_the_end(reach: type[Reach]) -> None:
    """No task is left behind."""
    store = Store()
    ready = Readiness(Admission(1), Circuit(1, 10), store.look, UPSTREAM)
    await looked(ready)
    async with ready.running():
        pass
    await looked(ready)
    assert (store.looks, reach.looks) == (0, 0)
