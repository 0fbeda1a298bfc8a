import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import text

from handlers.runtime.exceptions import InvalidStore, StoreUnavailable
from handlers.runtime.idempotency import Entry, Idempotency, KeptReply, ReplyStore
from handlers.runtime.store import MEMORY, SqlStore, open_store
from tests.support.idempotent_calls import Clock, Work, at_once, call, opened
from tests.support.store_race import FINGERPRINT, claim

NOW = 1_800_000_000.0
REPLY = KeptReply(200, "application/json", bytes(range(256)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file is, or will be."""
    return tmp_path / "relay.db"


@pytest.fixture
def url(path: Path) -> str:
    """The store in that file."""
    return f"{MEMORY}/{path}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    """A store in a file."""
    made = await open_store(url)
    yield made
    await made.close()


async def run(store: SqlStore, statement: str) -> None:
    """Run SQL on the store's only connection."""
    async with store.engine.connect() as connection:
        await connection.execute(text(statement))


async def test_a_file_keeps_what_it_was_given(url: str) -> None:
    """A relay that starts anew finds the replies of the last one, byte for byte."""
    first = await open_store(url)
    assert await first.take(claim(1), NOW, NOW + 1) is None
    await first.keep(claim(1), REPLY, NOW + 1_000)
    await first.close()
    second = await open_store(url)
    assert await second.take(claim(1, "another"), NOW + 999, NOW + 1_001) == Entry(FINGERPRINT, REPLY)
    await second.close()


async def test_a_slot_that_is_taken_anew_forgets_what_it_held(store: SqlStore) -> None:
    """A reply whose time is over is not answered while the call is done again, nor after it."""
    assert await store.take(claim(1), NOW, NOW + 1) is None
    await store.keep(claim(1), REPLY, NOW + 2)
    assert await store.take(claim(1, "another"), NOW + 2, NOW + 4) is None
    assert await store.take(claim(1), NOW + 3, NOW + 4) == Entry(FINGERPRINT, None)
    await store.keep(claim(1, "another"), KeptReply(201, "", b""), NOW + 9)
    assert await store.take(claim(1), NOW + 8, NOW + 9) == Entry(FINGERPRINT, KeptReply(201, "", b""))


async def test_a_file_is_its_owners_alone(path: Path, store: SqlStore) -> None:
    """Replies are nobody else's business, also while they lie in the log beside the file."""
    await store.take(claim(1), NOW, NOW + 1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"relay.db": 0o600, "relay.db-wal": 0o600, "relay.db-shm": 0o600}


async def test_two_stores_share_a_file(url: str) -> None:
    """Of a hundred attempts from two sides at once, each slot goes to one."""
    stores = await asyncio.gather(*(open_store(url) for _ in range(2)))
    claims = [(store, claim(slot, f"{side}")) for slot in range(50) for side, store in enumerate(stores)]
    taken = await asyncio.gather(*(store.take(wanted, NOW, NOW + 1) for store, wanted in claims))
    assert len([entry for entry in taken if entry is None]) == 50
    await asyncio.gather(*(store.close() for store in stores))


async def test_stores_that_open_at_once_make_their_tables_once(url: str) -> None:
    """Workers that start together do not stumble over each other."""
    stores = await asyncio.gather(*(open_store(url) for _ in range(8)))
    assert await stores[0].take(claim(1), NOW, NOW + 1) is None
    assert await stores[7].take(claim(1), NOW, NOW + 1) == Entry(FINGERPRINT, None)
    await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relay.db",
        "sqlite:///relay.db",
        "sqlite+aiosqlite:///file:relay.db?uri=true",
        "postgresql://relay:canary@localhost/relay",
        "mysql+aiomysql://relay:canary@localhost/relay",
        "postgresql+asyncpg://relay:canary@localhost:port/relay",
    ],
)
async def test_other_addresses_are_refused(url: str) -> None:
    """The message shows the three forms and nothing of what was set: it may hold a password."""
    with pytest.raises(InvalidStore, match=r"RELAY_STORE_URL must be sqlite\+aiosqlite:// \(in memory\)") as raised:
        await open_store(url)
    assert "canary" not in str(raised.value)


async def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    """A path with a slip in it must not lead to a second, empty store."""
    with pytest.raises(InvalidStore, match=r"No such file or directory.* Make its folder, or mount it"):
        await open_store(f"{MEMORY}/{tmp_path}/missing/relay.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """What SQLite cannot open is said in its words."""
    (tmp_path / "relay.db").mkdir(mode=0o700)
    with pytest.raises(InvalidStore, match=r"unable to open database file\. Check RELAY_STORE_URL"):
        await open_store(f"{MEMORY}/{tmp_path}/relay.db")


async def test_another_kind_of_file_is_left_alone(path: Path, url: str) -> None:
    """A file that is no database is not overwritten."""
    path.touch(mode=0o600)
    path.write_bytes(b"something else, kept for a reason" * 100)
    with pytest.raises(InvalidStore, match="file is not a database"):
        await open_store(url)
    assert path.read_bytes().startswith(b"something else")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
async def test_a_file_that_others_may_read_is_refused(path: Path, url: str, mode: int) -> None:
    """It may hold replies already; whoever keeps the relay should know."""
    path.touch()
    path.chmod(mode)
    with pytest.raises(InvalidStore, match="must be its owner's alone; run chmod 600"):
        await open_store(url)


async def test_a_store_of_a_newer_relay_is_refused(url: str, store: SqlStore) -> None:
    """An older relay does not write into tables that it does not know."""
    await run(store, "UPDATE relay_schema SET version = version + 1")
    with pytest.raises(InvalidStore, match="used by a newer relay"):
        await open_store(url)


async def test_a_step_that_fails_leaves_the_store_as_it_was(url: str, store: SqlStore) -> None:
    """Tables change altogether or not at all."""
    await run(store, "DELETE FROM relay_schema")  # so that the first step comes again, and finds its table
    with pytest.raises(InvalidStore, match="table relay_replies already exists"):
        await open_store(url)
    async with store.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM relay_schema")) == 0


async def test_a_store_that_must_not_be_written_refuses(store: SqlStore, capsys: pytest.CaptureFixture[str]) -> None:
    """The operator reads why, the caller only that nothing was done."""
    await run(store, "PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="nothing was done; try again later") as raised:
        await store.take(claim(1), NOW, NOW + 1)
    assert raised.value.headers == (("Retry-After", "10"),)
    assert "attempt to write a readonly database" in capsys.readouterr().out


@pytest.mark.parametrize(
    "failure, remedy",
    [
        ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 10000"),  # not below what is there already
    ],
    ids=["read-only", "full"],
)
async def test_a_store_that_fails_keeps_calls_from_being_made(store: SqlStore, failure: str, remedy: str) -> None:
    """On a disk that is read-only or full the work is not begun, and it is as soon as the store can be written."""

    async def give() -> ReplyStore:
        return store

    idempotency = Idempotency(give)
    work = Work()
    await run(store, failure)
    refused = 0
    for key in range(200):
        try:
            await idempotency.run(call(str(key)), work)
        except StoreUnavailable:
            refused += 1
    assert refused > 0
    assert work.count + refused == 200
    await run(store, remedy)
    await idempotency.run(call("another"), work)
    assert work.count + refused == 201


@pytest.fixture
async def memory() -> AsyncIterator[SqlStore]:
    """A store in memory with room for some 50 replies of 4,000 bytes."""
    made = await open_store(MEMORY)
    await run(made, "PRAGMA max_page_count = 80")
    yield made
    await made.close()


async def take_all(store: SqlStore, slots: Iterable[int]) -> None:
    """Begin calls."""
    for slot in slots:
        assert await store.take(claim(slot), NOW, NOW + 100) is None


async def fill(store: SqlStore, count: int, body: bytes) -> None:
    """Finish calls, each of which is kept a second longer than the one before."""
    for slot in range(count):
        await take_all(store, [slot])
        await store.keep(claim(slot), KeptReply(200, "", body), NOW + 1_000 + slot)


async def held(store: SqlStore) -> list[int]:
    """The slots that hold a finished call."""
    statement = "SELECT slot FROM relay_replies WHERE status IS NOT NULL ORDER BY slot"
    async with store.engine.connect() as connection:
        return [int(slot) for slot in await connection.scalars(text(statement))]


async def test_a_store_in_memory_takes_256_megabytes_at_most() -> None:
    """Replies of a day must not end the process."""
    store = await open_store(MEMORY)
    async with store.engine.connect() as connection:
        pages = await connection.scalar(text("PRAGMA max_page_count"))
        size = await connection.scalar(text("PRAGMA page_size"))
    assert pages * size == 256 * 2**20
    await store.close()


async def test_a_full_memory_forgets_what_ends_first(
    memory: SqlStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every new call is done and kept; the oldest replies make room, and the operator reads of it."""
    monkeypatch.setattr("handlers.runtime.store.FORGOTTEN_AT_ONCE", 10)
    assert await memory.take(claim(1_000), NOW, NOW + 1) is None
    await fill(memory, 200, bytes(4_000))
    slots = await held(memory)
    assert 10 < len(slots) < 100
    assert slots == [*range(200 - len(slots), 200)]
    assert await memory.take(claim(1_000, "another"), NOW, NOW + 1) == Entry(FINGERPRINT, None)
    assert "memory is full" in capsys.readouterr().out


async def test_a_memory_full_of_running_calls_refuses(memory: SqlStore) -> None:
    """Calls that are not finished are never forgotten, for they would be done twice."""
    with pytest.raises(StoreUnavailable, match="nothing was done"):
        await take_all(memory, range(10_000))
    for slot in range(100):
        assert await memory.take(claim(slot, "another"), NOW, NOW + 100) == Entry(FINGERPRINT, None)
    await memory.remove_expired(NOW + 100)
    await take_all(memory, range(100))


async def test_a_reply_longer_than_the_memory_is_not_kept(memory: SqlStore) -> None:
    """Room is made once; whoever asked to keep it learns that it was not enough."""
    assert await memory.take(claim(1), NOW, NOW + 100) is None
    with pytest.raises(StoreUnavailable):
        await memory.keep(claim(1), KeptReply(200, "", bytes(2**20)), NOW + 1_000)


async def test_a_failure_without_a_code_is_no_full_memory(memory: SqlStore) -> None:
    """What Python's module refuses by itself costs no reply that is kept."""
    await fill(memory, 5, b"")
    await take_all(memory, [5])
    with pytest.raises(StoreUnavailable):
        await memory.keep(claim(5), KeptReply(cast("int", []), "", b""), NOW + 1_000)
    assert await held(memory) == [*range(5)]


async def test_a_full_disk_costs_no_reply(store: SqlStore) -> None:
    """In a file all that was kept stays: the operator can make room for it."""
    await fill(store, 5, bytes(4_000))
    await run(store, "PRAGMA max_page_count = 1")  # not below what is there already
    with pytest.raises(StoreUnavailable):
        await take_all(store, range(5, 200))
    assert await held(store) == [*range(5)]


async def test_a_locked_file_is_waited_for(url: str, store: SqlStore) -> None:
    """Another program that writes for a moment is no failure."""
    other = await open_store(url)
    async with other.engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        taking = asyncio.create_task(store.take(claim(1), NOW, NOW + 1))
        await asyncio.sleep(0.05)
        assert not taking.done()
        await connection.exec_driver_sql("COMMIT")
    assert await taking is None
    await other.close()


async def test_many_calls_share_one_connection(url: str) -> None:
    """SQLite has one writer; the others wait for their turn and none is lost."""
    idempotency = opened(url, Clock())
    work = Work()
    await asyncio.gather(*(idempotency.run(call(str(number)), work) for number in range(200)))
    assert work.count == 200
    assert len(await at_once(idempotency, Work(), 50)) >= 1
    await idempotency.close()


def test_the_process_umask_does_not_matter(path: Path, url: str) -> None:
    """The file's mode is the relay's choice."""
    before = os.umask(0)
    try:
        asyncio.run(_open_and_close(url))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def _open_and_close(url: str) -> None:
    await (await open_store(url)).close()
