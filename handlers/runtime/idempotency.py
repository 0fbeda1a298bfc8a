"""
Calls that are done once: `idempotency_key` in the body of an operation, since assistants cannot send headers.

The same caller, operation, key and body get the first reply again; another body is refused. Keys and bodies are kept as
SHA-256 only, replies as they were sent. Not for: SQL (`handlers.runtime.store`, which is imported when it is needed).
"""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import structlog

from codegen.contract import JSON, Operation
from codegen.reader import Document, resolve
from handlers.runtime.budget import DEADLINE_SECONDS
from handlers.runtime.exceptions import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InternalError,
    StartupError,
    StoreUnavailable,
)
from handlers.runtime.lean_imports import stand_ins
from handlers.runtime.messages import Reply, Request

FIELD = "idempotency_key"
KEEP_SECONDS = 24 * 3600.0
# A killed process holds its calls this long. Far more than a call may take, since clocks of replicas differ.
LEASE_SECONDS = 120.0
LEASE_MARGIN_SECONDS = 10.0  # between the end of the longest work and that of its lease
CLOSING_SECONDS = 5.0
MAX_KEPT_BYTES = 256 * 1024  # the budget's 95,000 characters have at most 285,000 bytes, and hardly ever
CLEANING_SECONDS = 600.0
RETRY_SECONDS = 5
STORE_RETRY_SECONDS = 10
REPLAYED = (b"idempotent-replayed", b"true")

# These speak of the moment: of keys and rights that an operator corrects, of work still going on, of limits.
_PASSING = frozenset({401, 403, 408, 409, 425, 429})
_FILES = "openaiFileIdRefs"

_log = structlog.get_logger("relay")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim:
    """
    A call that wants to be done.

    Args:
        slot: Digest of caller, operation and key.
        fingerprint: Digest of everything else that says what the call does.
        owner: Tells this attempt from all others.
    """

    slot: str
    fingerprint: str
    owner: str


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply as it was sent, without the headers that speak of that moment."""

    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store knows of an earlier call; `reply` is `None` while it is running."""

    fingerprint: str
    reply: KeptReply | None


class ReplyStore(Protocol):
    """
    Keeps replies; all of its methods raise `StoreUnavailable` when they cannot.

    Times are seconds since 1970, and what they end counts as gone.
    """

    async def take(self, claim: Claim, now: float, until: float) -> Entry | None:
        """Take a free slot and return `None`, or return what holds it. Of all that try at once, one gets it."""

    async def keep(self, claim: Claim, reply: KeptReply, until: float) -> None:
        """Put the reply into the slot, if the claim still holds it."""

    async def free(self, claim: Claim) -> None:
        """Give the slot up, if the claim still holds it."""

    async def remove_expired(self, now: float) -> None:
        """Forget what has ended."""

    async def close(self) -> None:
        """Close all connections."""


class Idempotency:
    """
    Runs calls once.

    Args:
        open_store: Called once, at `open` or with the first key that comes.
        clock: Seconds since 1970.

    Raises:
        ValueError: The lease would end while a call may still run.
    """

    def __init__(
        self,
        open_store: Callable[[], Awaitable[ReplyStore]],
        *,
        keep_seconds: float = KEEP_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if lease_seconds <= DEADLINE_SECONDS:
            raise ValueError(f"`lease_seconds` must be more than the {DEADLINE_SECONDS:g} seconds that a call may take")
        self._open_store = open_store
        self._keep_seconds = keep_seconds
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._opening = asyncio.Lock()
        self._store: ReplyStore | None = None
        self._cleaned_at = -CLEANING_SECONDS
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """
        Open the store now, so that a mistake in its settings shows at start.

        Raises:
            StartupError: It cannot be opened.
        """
        await self._opened()

    async def check(self) -> None:
        """
        Ask the store for something that changes nothing.

        Raises:
            StoreUnavailable: It cannot be used (503).
            StartupError: It could not be opened.
        """
        await (await self._opened()).remove_expired(0.0)

    async def close(self) -> None:
        """Give running work a moment, finish what is being written and close the store."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._store is not None:
            await self._store.close()

    async def run(self, request: Request, work: Callable[[], Awaitable[Reply]]) -> Reply:
        """
        Do the work, unless it was done before; then answer what was answered then.

        Args:
            request: Has a caller, and its body an `idempotency_key`.
            work: Returns a whole reply; goes on when the caller leaves. When it raises, nothing is kept.

        Raises:
            IdempotencyKeyReused: The key came before with another body (400).
            IdempotencyInProgress: The first call is still running (503).
            StoreUnavailable: Nobody knows; the work is not begun (503).
        """
        claim = _claim(request)
        taking = self._background(self._take(claim))
        try:
            entry = await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._background(self._give_back(claim, taking))
            raise
        if entry is not None:
            return _replay(entry, claim)
        return await asyncio.shield(self._background(self._finish(request, claim, work)))

    async def _finish(self, request: Request, claim: Claim, work: Callable[[], Awaitable[Reply]]) -> Reply:
        """
        Do the work and keep its reply, whether or not anybody still waits for it.

        Giving it up half-way would leave nobody knowing whether the upstream has done it, and it would be done again.
        """
        try:
            async with asyncio.timeout(self._lease_seconds - LEASE_MARGIN_SECONDS):
                reply = await work()
            kept = _kept(reply)
        except BaseException:
            await self._give_back(claim)
            raise
        try:
            await self._settle(claim, kept)
        except StoreUnavailable:
            request.log["idempotency"] = "not_kept"  # it is done, so its caller gets the reply
        return reply

    async def _take(self, claim: Claim) -> Entry | None:
        try:
            store = await self._opened()
        except StartupError as error:
            _log.error("store", reason=str(error))
            raise unavailable() from None
        now = self._clock()
        if now - self._cleaned_at >= CLEANING_SECONDS:
            self._cleaned_at = now
            await store.remove_expired(now)
        return await store.take(claim, now, now + self._lease_seconds)

    async def _settle(self, claim: Claim, reply: KeptReply) -> None:
        store = await self._opened()
        if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.status in _PASSING:
            await store.free(claim)
        else:
            await store.keep(claim, reply, self._clock() + self._keep_seconds)

    async def _give_back(self, claim: Claim, taking: asyncio.Task[Any] | None = None) -> None:
        with suppress(StoreUnavailable):  # the lease ends by itself
            if taking is not None:
                await taking
            await (await self._opened()).free(claim)

    async def _opened(self) -> ReplyStore:
        async with self._opening:
            if self._store is None:
                self._store = await self._open_store()
        return self._store

    def _background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that goes on when its request is cancelled: a statement that is torn apart leaves nobody knowing."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has seen it; nobody may be left who did


def unavailable() -> StoreUnavailable:
    """What a caller is told when the store fails; why stands in the log."""
    return StoreUnavailable(
        "The relay cannot tell whether this call was done before, so nothing was done; try again later.",
        headers=(("Retry-After", str(STORE_RETRY_SECONDS)),),
    )


def takes_key(operation: Operation, document: Document) -> bool:
    """Whether the operation's JSON body declares `idempotency_key`."""
    media = operation.body.content.get(JSON) if operation.body else None
    if media is None or media.pointer is None:
        return False
    return FIELD in resolve(document, {"$ref": media.pointer}).get("properties", {})


def has_key(request: Request) -> bool:
    """Whether the caller asks for the call to be done once."""
    return isinstance(request.body, dict) and FIELD in request.body


async def open_sql_store(url: str) -> ReplyStore:
    """
    Open the SQL store; loads SQLAlchemy beside the loop.

    Raises:
        InvalidStore: It cannot be opened.
    """
    open_store = await asyncio.to_thread(_load_store)
    return await open_store(url)


def _load_store() -> Callable[[str], Awaitable[ReplyStore]]:
    # Sessions bring SQLAlchemy's mapper of classes along, 6 MB; the store has neither.
    with stand_ins("sqlalchemy.ext.asyncio.scoping", "sqlalchemy.ext.asyncio.session"):
        from handlers.runtime.store import open_store

    return open_store


def _claim(request: Request) -> Claim:
    if request.caller is None:
        raise InternalError
    content = {key: value for key, value in request.body.items() if key != FIELD}
    if isinstance(content.get(_FILES), list):
        content[_FILES] = [_lasting(item) for item in content[_FILES]]
    return Claim(
        slot=_digest([request.caller.key_id, request.operation.id, request.body[FIELD]]),
        fingerprint=_digest([request.path, request.query.decode("latin-1"), content]),
        owner=secrets.token_hex(16),
    )


def _lasting(file: Any) -> Any:
    """A file by its id: each call brings another link to it, valid for five minutes."""
    if isinstance(file, dict) and isinstance(file.get("id"), str) and file["id"]:
        return {key: value for key, value in file.items() if key != "download_link"}
    return file


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(reply: Reply) -> KeptReply:
    if not isinstance(reply.body, bytes) or len(reply.body) > MAX_KEPT_BYTES:
        error = InternalError()
        error.add_note("a reply to a call with an idempotency_key must be whole and within the budget")
        raise error
    media_type = next((value.decode("latin-1") for name, value in reply.headers if name == b"content-type"), "")
    return KeptReply(reply.status, media_type, reply.body)


def _replay(entry: Entry, claim: Claim) -> Reply:
    if entry.fingerprint != claim.fingerprint:
        raise IdempotencyKeyReused(f"`{FIELD}` must be new for every other call; choose another.", param=FIELD)
    if entry.reply is None:
        raise IdempotencyInProgress(
            f"The first call with this `{FIELD}` is still running; send the same again in {RETRY_SECONDS} seconds.",
            param=FIELD,
            headers=(("Retry-After", str(RETRY_SECONDS)),),
        )
    headers = [(b"content-type", entry.reply.media_type.encode("latin-1"))] if entry.reply.media_type else []
    return Reply(entry.reply.status, [*headers, REPLAYED], entry.reply.body)
