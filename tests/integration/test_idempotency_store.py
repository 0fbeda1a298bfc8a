import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from handlers.runtime.exceptions import IdempotencyKeyReused, InvalidStore, StoreUnavailable
from handlers.runtime.idempotency import Entry, Idempotency, KeptReply
from handlers.runtime.store import MEMORY, open_store
from tests.support.idempotent_calls import KEEP_SECONDS, LEASE_SECONDS, Clock, Work, at_once, call, opened
from tests.support.postgres import HOST, PACKAGE_HINT, Postgres, find_programs
from tests.support.store_race import FINGERPRINT, PATIENCE_SECONDS, claim, finish, racers, start

pytestmark = pytest.mark.integration

SLOTS = 200


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server; without one these tests fail and say what to install."""
    with Postgres() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """The time, as the test wants it."""
    return Clock()


@pytest.fixture
async def empty(postgres: Postgres) -> str:
    """The server's URL, with nothing kept."""
    store = await open_store(postgres.url)
    await store.remove_expired(float("inf"))
    await store.close()
    return postgres.url


@pytest.fixture
async def replicas(empty: str, clock: Clock) -> AsyncIterator[list[Idempotency]]:
    """Two replicas of a relay over one server."""
    made = [opened(empty, clock) for _ in range(2)]
    yield made
    for idempotency in made:
        await idempotency.close()


async def test_replicas_do_a_call_once(replicas: list[Idempotency]) -> None:
    """What one has done the other answers, byte for byte, and refuses for another body."""
    first, second = replicas
    work = Work(201)
    done = await first.run(call(), work)
    again = await second.run(call(), work)
    assert (work.count, again.status, again.body) == (1, 201, done.body)
    with pytest.raises(IdempotencyKeyReused):
        await second.run(call(prompt="another"), work)
    assert work.count == 1


async def test_fifty_at_two_replicas_are_done_once(replicas: list[Idempotency]) -> None:
    """However many come at once and wherever, one is first."""
    work = Work()
    replies = await asyncio.gather(*(at_once(idempotency, work, 25) for idempotency in replicas))
    assert work.count == 1
    assert len({bytes(reply.body) for found in replies for reply in found if isinstance(reply.body, bytes)}) == 1


async def test_time_is_kept(replicas: list[Idempotency], clock: Clock) -> None:
    """A reply is kept for its time and then forgotten."""
    work = Work()
    await replicas[0].run(call(), work)
    clock.now += KEEP_SECONDS - 1
    await replicas[1].run(call(), work)
    clock.now += 1
    await replicas[1].run(call(), work)
    assert work.count == 2


async def test_a_lease_that_ends_is_taken_over_by_one(empty: str) -> None:
    """Of all that wait for a dead process one gets its slot, and the dead one's reply does not count any more."""
    store = await open_store(empty)
    dead = claim(1, "dead")
    assert await store.take(dead, 0.0, LEASE_SECONDS) is None
    assert await store.take(claim(1), LEASE_SECONDS - 1, 2 * LEASE_SECONDS) == Entry(FINGERPRINT, None)
    claims = [claim(1, f"{number}") for number in range(50)]
    taken = await asyncio.gather(*(store.take(wanted, LEASE_SECONDS, 2 * LEASE_SECONDS) for wanted in claims))
    (winner,) = (wanted for wanted, entry in zip(claims, taken, strict=True) if entry is None)
    await store.keep(dead, KeptReply(200, "", b"dead"), 1e9)
    await store.keep(winner, KeptReply(200, "a/b", bytes(range(256))), 1e9)
    assert await store.take(dead, 1e8, 1e9) == Entry(FINGERPRINT, KeptReply(200, "a/b", bytes(range(256))))
    await store.close()


async def test_replicas_that_start_at_once_make_the_tables_once(postgres: Postgres) -> None:
    """Nobody stumbles over tables that another one is making."""
    store = await open_store(postgres.url)
    async with store.engine.connect() as connection:
        for table in ("relay_schema", "relay_replies"):
            await connection.exec_driver_sql(f"DROP TABLE {table}")
    await store.close()
    stores = await asyncio.gather(*(open_store(postgres.url) for _ in range(8)))
    assert await stores[0].take(claim(1), 0.0, 1.0) is None
    assert await stores[7].take(claim(1), 0.0, 1.0) == Entry(FINGERPRINT, None)
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_lost_server_keeps_calls_from_being_made(
    postgres: Postgres, replicas: list[Idempotency], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is done while nobody can tell what was done; when the server is back, all goes on as before."""
    work = Work()
    await replicas[0].run(call("before"), work)
    postgres.stop()
    try:
        for idempotency in replicas:  # one that was connected, one that has yet to be
            with pytest.raises(StoreUnavailable):
                await idempotency.run(call("meanwhile"), work)
        assert work.count == 1
        logged = capsys.readouterr().out
        assert logged.count("store") >= 2
        assert str(make_url(postgres.url).password) not in logged
    finally:
        postgres.start()
    await replicas[0].run(call("before"), work)
    assert work.count == 1
    await replicas[1].run(call("meanwhile"), work)
    assert work.count == 2


async def test_a_server_that_was_restarted_is_not_noticed(postgres: Postgres, replicas: list[Idempotency]) -> None:
    """Connections that died while nobody used them are replaced before they are used."""
    work = Work()
    await replicas[0].run(call(), work)
    postgres.stop()
    postgres.start()
    await replicas[0].run(call(), work)
    assert work.count == 1


async def test_a_server_that_does_not_let_the_relay_in_stops_the_start(postgres: Postgres) -> None:
    """The message says why, without the password."""
    password = str(make_url(postgres.url).password)
    with pytest.raises(InvalidStore, match="password authentication failed") as raised:
        await open_store(postgres.url.replace(password, "canary-password"))
    assert "canary-password" not in str(raised.value)
    with pytest.raises(InvalidStore, match="the store cannot be opened"):
        await open_store(f"postgresql+asyncpg://relay:canary@{HOST}:1/postgres")


@pytest.mark.parametrize("where", ["file", "server"])
async def test_processes_share_a_store(where: str, tmp_path: Path, empty: str) -> None:
    """Of hundreds of slots each goes to exactly one of three processes that want it at the same moment."""
    url = empty if where == "server" else f"{MEMORY}/{tmp_path}/relay.db"
    with racers(url, 3, SLOTS) as processes:
        start(processes)
        races = [finish(process) for process in processes]
    assert sorted(slot for race in races for slot in race.won) == [*range(SLOTS)]
    assert max(race.began for race in races) < min(race.ended for race in races), "they did not run at the same time"


@pytest.mark.parametrize("where", ["file", "server"])
async def test_a_killed_process_leaves_the_store_in_order(where: str, tmp_path: Path, empty: str) -> None:
    """What it held is free when its lease ends, and the others go on meanwhile."""
    url = empty if where == "server" else f"{MEMORY}/{tmp_path}/relay.db"
    with racers(url, 1, SLOTS) as (process,):
        start([process])
        store = await open_store(url)
        while await store.take(claim(0, "other"), -1.0, -1.0) is None:
            await asyncio.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)
    assert await store.take(claim(0, "other"), 0.5, 1.0) == Entry(FINGERPRINT, None)
    assert await store.take(claim(0, "other"), 1.0, 2.0) is None
    assert await store.take(claim(SLOTS), 0.5, 1.0) is None
    await store.close()


def test_without_the_server_the_hint_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are not skipped where PostgreSQL is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError) as raised:
        find_programs(tmp_path)
    assert str(raised.value) == PACKAGE_HINT
