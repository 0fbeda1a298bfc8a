"""
The SQL store of the relay: SQLite or PostgreSQL through SQLAlchemy, made when it is not there.

Keeps the replies of `handlers.runtime.idempotency`. Imported only when a store is opened: a relay that needs none does
without SQLAlchemy's 22 MB. Every statement stands alone, so nothing is left half done when a process is killed.
"""

import asyncio
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UpdateBase,
    and_,
    delete,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from handlers.runtime.exceptions import InvalidStore
from handlers.runtime.idempotency import Claim, Entry, KeptReply, unavailable

MEMORY = "sqlite+aiosqlite://"
POSTGRESQL = "postgresql+asyncpg"
WAIT_SECONDS = 5  # for a lock, a connection, an answer of the server
MEMORY_PAGES = 65_536  # of 4,096 bytes, SQLite's own choice: 256 MB, room for 1,000 of the longest replies
FORGOTTEN_AT_ONCE = 200  # finished calls, when memory is full; each of them would be done anew
_FORMS = f"{MEMORY} (in memory), {MEMORY}//folder/relay.db or {POSTGRESQL}://user:password@host/database"
_SERVER_CONNECTIONS = 10
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ATTEMPTS = 10
_BUSY_POLL_SECONDS = 0.02
_PRIMARY_CODE = 0xFF  # of an extended result code
_MIGRATION_LOCK = 0x72656C6179  # any number that nobody else uses: "relay"

_metadata = MetaData()
_version = Table("relay_schema", _metadata, Column("version", Integer, primary_key=True, autoincrement=False))
_replies = Table(
    "relay_replies",
    _metadata,
    Column("slot", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("owner", String(32), nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("status", Integer),  # none while the call is running
    Column("media_type", String(255)),
    Column("body", LargeBinary),
    Index("relay_replies_expires_at", "expires_at"),
)

_log = structlog.get_logger("relay")


class SqlStore:
    """
    Keeps replies in one table.

    Args:
        engine: Of a database that `open_store` has prepared.
        failures: What its driver raises beside SQLAlchemy's own.
    """

    def __init__(self, engine: AsyncEngine, failures: tuple[type[Exception], ...]) -> None:
        self.engine = engine
        self._failures = failures
        # Both have the same statement, each in its own module.
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._in_memory = _in_memory(engine.url)

    async def take(self, claim: Claim, now: float, until: float) -> Entry | None:
        """Take the slot when it is free or its holder's time is over; otherwise return what holds it."""
        wanted = {"fingerprint": claim.fingerprint, "owner": claim.owner, "expires_at": until}
        nothing = {"status": None, "media_type": None, "body": None}
        taking = (
            self._insert(_replies)
            .values(slot=claim.slot, **wanted)
            .on_conflict_do_update(
                index_elements=[_replies.c.slot], set_={**wanted, **nothing}, where=_replies.c.expires_at <= now
            )
            .returning(_replies.c.slot)
        )
        looking = select(_replies).where(_replies.c.slot == claim.slot, _replies.c.expires_at > now)
        async with self._connected() as connection:
            for _ in range(_ATTEMPTS):
                if (await self._write(connection, taking)).first() is not None:
                    return None
                row = (await connection.execute(looking)).first()
                if row is not None:
                    running = row.status is None
                    reply = None if running else KeptReply(row.status, row.media_type, bytes(row.body))
                    return Entry(row.fingerprint, reply)
        raise unavailable()  # each time somebody gave the slot up in between

    async def keep(self, claim: Claim, reply: KeptReply, until: float) -> None:
        """Put the reply into the slot, unless its time was over and somebody else has it now."""
        values = {"status": reply.status, "media_type": reply.media_type, "body": reply.body, "expires_at": until}
        async with self._connected() as connection:
            await self._write(connection, update(_replies).where(_held_by(claim)).values(**values))

    async def free(self, claim: Claim) -> None:
        """Give the slot up, unless somebody else has it now."""
        async with self._connected() as connection:
            await connection.execute(delete(_replies).where(_held_by(claim)))

    async def remove_expired(self, now: float) -> None:
        """Forget replies and abandoned calls whose time is over."""
        async with self._connected() as connection:
            await connection.execute(delete(_replies).where(_replies.c.expires_at <= now))

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def _write(self, connection: AsyncConnection, statement: UpdateBase) -> CursorResult[Any]:
        """Run a statement; when memory is full, forget the finished calls that end first and run it once more."""
        try:
            return await connection.execute(statement)
        except DBAPIError as error:
            if not (self._in_memory and _code(error.orig) == sqlite3.SQLITE_FULL):
                raise
        finished = select(_replies.c.slot).where(_replies.c.status.is_not(None))
        oldest = finished.order_by(_replies.c.expires_at).limit(FORGOTTEN_AT_ONCE)
        forgotten = await connection.execute(delete(_replies).where(_replies.c.slot.in_(oldest)))
        _log.warning("store", reason="memory is full", forgotten=forgotten.rowcount)
        return await connection.execute(statement)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self.engine.connect() as connection:
                yield connection
        except self._failures as error:
            _log.error("store", reason=_reason(error))
            raise unavailable() from None


async def open_store(url: str) -> SqlStore:
    """
    Open a store and bring its tables up to date.

    Args:
        url: An address in one of the three forms; it may hold a password and stands in no message.

    Raises:
        InvalidStore: It is malformed, its folder is missing, others may read the file, nobody answers, or a newer
            relay has used it.
    """
    address = _address(url)
    failures: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error, OSError)  # a time-out is an OSError too
    if address.drivername == POSTGRESQL:
        import asyncpg  # type: ignore[import-untyped]  # it ships no types

        failures = (*failures, asyncpg.PostgresError, asyncpg.InterfaceError)
    engine = _engine(address)
    try:
        path = _file(address)
        if path is not None:
            await asyncio.to_thread(_make_file, path)
        await _prepare(engine)
    except failures as error:
        await engine.dispose()
        raise InvalidStore(f"the store cannot be opened: {_reason(error)}. Check RELAY_STORE_URL.") from None
    except InvalidStore:
        await engine.dispose()
        raise
    return SqlStore(engine, failures)


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        address = None
    known = {make_url(MEMORY).drivername, POSTGRESQL}
    if address is None or address.drivername not in known or (address.database or "").startswith("file:"):
        raise InvalidStore(f"RELAY_STORE_URL must be {_FORMS}.")
    return address


def _in_memory(address: URL) -> bool:
    return address.drivername != POSTGRESQL and address.database in {None, "", ":memory:"}


def _file(address: URL) -> Path | None:
    if address.drivername == POSTGRESQL or _in_memory(address):
        return None
    return Path(str(address.database))


def _make_file(path: Path) -> None:
    """
    Make the file for its owner alone; SQLite gives the files beside it the same mode.

    Raises:
        InvalidStore: There is no folder for it, or others may read it.
        sqlite3.Error: It is no database, or cannot be written.
    """
    try:
        # A file that is there is left to SQLite: whoever else closes it ends the locks that this process holds on it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR))
        mode = path.stat().st_mode
    except OSError as error:
        raise InvalidStore(f"{path}: cannot be made ({error.strerror}). Make its folder, or mount it.") from None
    if os.name == "posix" and mode & _OTHERS:
        raise InvalidStore(f"{path}: must be its owner's alone; run chmod 600 on it.")
    with closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as connection:
        _switch_to_wal(connection)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Keep the readers and the writer from waiting for each other; the file remembers it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait for others here by itself, as eight stores that open one file at once show (3.40).
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_POLL_SECONDS)
        else:
            return


def _engine(address: URL) -> AsyncEngine:
    if address.drivername == POSTGRESQL:
        return create_async_engine(
            address,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=_SERVER_CONNECTIONS,
            max_overflow=0,
            pool_timeout=WAIT_SECONDS,
            pool_pre_ping=True,  # the server may have been restarted
            connect_args={"timeout": WAIT_SECONDS, "command_timeout": WAIT_SECONDS},
        )
    return create_async_engine(
        address,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,  # SQLite has one writer at a time, and a database in memory lives as long as its connection
        max_overflow=0,
        pool_timeout=WAIT_SECONDS,
        connect_args={"timeout": WAIT_SECONDS},
    )


async def _prepare(engine: AsyncEngine) -> None:
    if engine.dialect.name == "postgresql":
        async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            await connection.run_sync(_migrate)
        return
    async with engine.connect() as connection:
        if _in_memory(engine.url):
            await connection.exec_driver_sql(f"PRAGMA max_page_count = {MEMORY_PAGES}")
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            await connection.run_sync(_migrate)
        except BaseException:
            await connection.exec_driver_sql("ROLLBACK")
            raise
        await connection.exec_driver_sql("COMMIT")


def _migrate(connection: Connection) -> None:
    _version.create(connection, checkfirst=True)
    found = connection.scalar(select(_version.c.version)) or 0
    if found > len(_STEPS):
        raise InvalidStore("the store was used by a newer relay; install that again, or set another RELAY_STORE_URL.")
    if found == len(_STEPS):
        return
    for step in _STEPS[found:]:
        step(connection)
    connection.execute(delete(_version))
    connection.execute(insert(_version).values(version=len(_STEPS)))


# What brings a store from each version to the next. A step that a release has taken is never changed.
_STEPS: tuple[Callable[[Connection], None], ...] = (_replies.create,)


def _held_by(claim: Claim) -> ColumnElement[bool]:
    return and_(_replies.c.slot == claim.slot, _replies.c.owner == claim.owner, _replies.c.status.is_(None))


def _code(error: BaseException | None) -> int | None:
    """SQLite's primary code; `None` for errors of others, Python's own module `sqlite3` among them."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY_CODE


def _reason(error: Exception) -> str:
    """What the driver says, in one line; SQLAlchemy's own text would repeat the statement."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return next(iter(str(cause).splitlines()), "") or type(cause).__name__
