"""
Files out: kept for a short time and handed out by signed links that need no key.

A file lies in the store as objects of one key: its bytes in pieces, then a description, which makes it whole. Keys come
from `handlers.runtime.artifact_links`; nothing that a request says is ever part of one.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

import orjson
import structlog

from handlers.runtime.artifact_links import MIN_SECRET_BYTES, ArtifactId, LinkSigner
from handlers.runtime.artifact_objects import ArtifactObjects
from handlers.runtime.byte_ranges import select_range
from handlers.runtime.exceptions import (
    ArtifactNotFound,
    ArtifactStoreFull,
    FileTooLarge,
    InternalError,
)
from handlers.runtime.file_names import plain_media_type, plain_name

PIECE_BYTES = 2**20  # what a save and a download hold in memory at a time
FILE_BYTES = 4096  # counted for every file beside its content: the description, and what disks take for a file

_DESCRIPTION = "json"
_MAX_DESCRIPTION_BYTES = 8192
_NAME = re.compile(rf"([0-9a-f]+)\.(?:[0-9]+|{_DESCRIPTION})", re.ASCII)

_log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True)
class Artifact:
    """
    A file that was stored.

    Args:
        url: The signed link; a secret for as long as it is good.
        bytes: Its length.
        expires_at: Seconds since 1970.
    """

    url: str = field(repr=False)
    token: str = field(repr=False)
    name: str
    media_type: str
    bytes: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """
    A file that is being read, or a part of it.

    Args:
        total: Length of the whole in bytes.
        start: First byte of the part.
        end: The one after its last.
        partial: Whether a range was asked for; it may cover the whole.
        etag: Strong: content never changes under one link.
        seconds_left: Until the link ends.
        pieces: May be read once.
    """

    name: str
    media_type: str
    total: int
    start: int
    end: int
    partial: bool
    etag: str
    seconds_left: int
    pieces: AsyncIterator[bytes] = field(repr=False)


class ArtifactStore:
    """
    Saves files and reads them again by their links.

    Its block (`async with`) runs the task that deletes what has ended. Replicas that share `url` and `secret` serve
    each other's links; each learns at least every `sweep_seconds` how much the others have stored.

    Args:
        url: Where files lie, as `ArtifactObjects` takes it.
        secret: What links are signed with; a random one by default, good until the process ends.
        public_url: What links start with, without a slash at the end; empty: each save says it.
        path: That of `retrieveArtifact` in the contract, with `{token}`.
        max_total_bytes: Of all files together, each counted with `FILE_BYTES` more than it has.
        clock: Seconds since 1970.

    Raises:
        InvalidSettings: The URL cannot be used.
        ValueError: The secret is too short.
    """

    def __init__(
        self,
        url: str = "",
        secret: bytes | None = None,
        public_url: str = "",
        *,
        path: str,
        ttl_seconds: int = 3600,
        max_total_bytes: int = 2**30,
        max_file_bytes: int = 2**28,
        sweep_seconds: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = LinkSigner(secrets.token_bytes(MIN_SECRET_BYTES) if secret is None else secret)
        self._objects = ArtifactObjects(url)
        self._public_url = public_url
        self._path = path
        self._ttl_seconds = ttl_seconds
        self._max_file_bytes = max_file_bytes
        self._sweep_seconds = sweep_seconds
        self._clock = clock
        self._in_use = bool(url)  # a folder of one's own is empty, and not even made, until the first save
        self._room = _Room(max_total_bytes)
        self._running: set[str] = set()
        self._touched: set[str] = set()  # keys that were being saved at some time during the last listing
        self._sweeping = asyncio.Lock()
        self._sweeps_begun = 0
        self._due = 0.0
        self._sweeper: asyncio.Task[None] | None = None
        self._discards: set[asyncio.Task[None]] = set()

    @property
    def used_bytes(self) -> int:
        """What files take, as far as this process knows."""
        return self._room.used_bytes

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        if self._discards:
            await asyncio.wait(self._discards)
        await self._objects.close()

    async def save(
        self, name: str, media_type: str, content: bytes | AsyncIterator[bytes], *, base_url: str = ""
    ) -> Artifact:
        """
        Store a file. When this fails or is cancelled, nothing of the file stays behind.

        Args:
            name: As it came; only its last part is kept, without what cannot be seen.
            media_type: As it came.
            content: The whole, or its pieces; those are read in the caller's task and never after its end.
            base_url: What the link starts with when the store has no public URL. With neither, a path is answered.

        Raises:
            FileTooLarge: The file exceeds the limit for one (413).
            ArtifactStoreFull: There is no room, and nothing has ended that could make some (503).
            InternalError: The disk or the service failed (500).
        """
        plain, kind = plain_name(name), plain_media_type(media_type)
        expires_at = int(self._clock()) + self._ttl_seconds
        saving = _Saving(ArtifactId.new(expires_at))
        self._running.add(saving.key)
        self._touched.add(saving.key)
        self._in_use = True
        try:
            if self._clock() >= self._due:
                await self._sweep()
            await self._take(saving.key, FILE_BYTES)
            async with contextlib.aclosing(_in_pieces(content)) as pieces:
                async for piece in pieces:
                    saving.size += len(piece)
                    self._check_size(saving.size)
                    await self._take(saving.key, len(piece))
                    await self._write(saving, str(len(saving.names)), piece)
            described = orjson.dumps({"name": plain, "media_type": kind, "bytes": saving.size})
            await self._write(saving, _DESCRIPTION, described)
        except asyncio.CancelledError:
            self._start_discard(saving)  # a caller who was cancelled waits for nothing; the block of the store does
            raise
        except BaseException:
            await asyncio.shield(self._start_discard(saving))
            raise
        self._running.discard(saving.key)
        token = self._signer.sign(saving.id)
        url = f"{self._public_url or base_url}{self._path.replace('{token}', token)}"
        return Artifact(url, token, plain, kind, saving.size, expires_at)

    async def open(self, token: str, range_header: str | None = None, if_range: str | None = None) -> StoredFile:
        """
        Find a file by its link.

        Args:
            range_header: The request's `Range`.
            if_range: Its `If-Range`: the range counts only when this is the file's `etag`.

        Raises:
            ArtifactNotFound: The link is forged, malformed, ended, or its file is gone (404).
            RangeNotSatisfiable: The range begins behind the file's end (416).
            InternalError: The disk or the service failed (500).
        """
        id_ = self._signer.read(token)
        seconds_left = id_.expires_at - self._clock()
        if seconds_left <= 0 or not self._in_use:
            raise ArtifactNotFound
        etag = f'"{id_.random.hex()}"'
        try:
            name, media_type, total = await self._describe(id_.key)
            wanted = select_range(range_header, total) if if_range in {None, etag} else None
            start, end = wanted or (0, total)
            # The first piece is read before the reply begins: a file that is gone is a 404, not half an answer.
            first = await self._read(id_.key, start, end) if end > start else b""
        except FileNotFoundError:
            raise ArtifactNotFound from None
        return StoredFile(
            name=name,
            media_type=media_type,
            total=total,
            start=start,
            end=end,
            partial=wanted is not None,
            etag=etag,
            seconds_left=int(seconds_left),
            pieces=self._rest(id_.key, start, end, first),
        )

    async def _describe(self, key: str) -> tuple[str, str, int]:
        described = orjson.loads(await self._objects.read(f"{key}.{_DESCRIPTION}", 0, _MAX_DESCRIPTION_BYTES))
        # Others may write to a bucket: what goes into headers is made plain again.
        return plain_name(described["name"]), plain_media_type(described["media_type"]), int(described["bytes"])

    async def _rest(self, key: str, start: int, end: int, first: bytes) -> AsyncIterator[bytes]:
        if first:
            yield first
        position = start + len(first)
        while position < end:
            try:
                piece = await self._read(key, position, end)
            except FileNotFoundError:  # it has ended meanwhile
                raise InternalError from None
            position += len(piece)
            yield piece

    async def _read(self, key: str, start: int, end: int) -> bytes:
        """Bytes of one piece of a file, at least one."""
        number, offset = divmod(start, PIECE_BYTES)
        stop = min(end - number * PIECE_BYTES, PIECE_BYTES)
        piece = await self._objects.read(f"{key}.{number}", offset, stop)
        if len(piece) != stop - offset:
            raise InternalError
        return piece

    async def _write(self, saving: "_Saving", ending: str, content: bytes) -> None:
        name = f"{saving.key}.{ending}"
        saving.names.append(name)
        saving.call = asyncio.ensure_future(self._objects.put(name, content))
        await asyncio.shield(saving.call)

    def _start_discard(self, saving: "_Saving") -> asyncio.Task[None]:
        discard = asyncio.create_task(self._discard(saving))
        self._discards.add(discard)
        discard.add_done_callback(self._discards.discard)
        return discard

    async def _discard(self, saving: "_Saving") -> None:
        """Take back what a save has written; what cannot be deleted now ends with its key."""
        try:
            if saving.call is not None:
                await asyncio.wait([saving.call])  # a thread cannot be stopped
            with contextlib.suppress(InternalError):
                await self._objects.delete(saving.names)
        finally:
            self._running.discard(saving.key)
            self._room.release(saving.key)

    def _check_size(self, size: int) -> None:
        if size > self._max_file_bytes:
            raise FileTooLarge(f"The file must have at most {self._max_file_bytes} bytes.")

    async def _take(self, key: str, size: int) -> None:
        if self._room.take(key, size):
            return
        await self._sweep()
        if not self._room.take(key, size):
            raise ArtifactStoreFull

    async def _sweep_for_ever(self) -> None:
        while True:
            if self._in_use:
                with contextlib.suppress(InternalError):  # it has been logged, and the next round tries again
                    await self._sweep()
            await asyncio.sleep(self._sweep_seconds)

    async def _sweep(self) -> None:
        """Delete what has ended, and count what is there."""
        asked = self._sweeps_begun
        async with self._sweeping:
            if self._sweeps_begun > asked:
                return  # another one has begun and ended since
            self._sweeps_begun += 1
            self._touched = set(self._running)
            sizes: dict[str, int] = {}
            ended: list[str] = []
            now = self._clock()
            for name, size in (await self._objects.sizes()).items():
                found = _NAME.fullmatch(name)
                id_ = ArtifactId.from_key(found[1]) if found else None
                if id_ is None:
                    continue  # somebody else's: neither counted nor deleted
                if id_.expires_at <= now:
                    ended.append(name)
                else:
                    content = 0 if name.endswith(_DESCRIPTION) else size
                    sizes[id_.key] = sizes.get(id_.key, FILE_BYTES) + content
            await self._objects.delete(ended)
            self._room.recount(sizes, self._touched)
            self._due = now + self._sweep_seconds
            if ended:
                _log.info("artifacts_deleted", objects=len(ended))


class _Saving:
    """A save under way."""

    def __init__(self, id_: ArtifactId) -> None:
        self.id = id_
        self.key = id_.key
        self.size = 0
        self.names: list[str] = []
        self.call: asyncio.Future[None] | None = None


class _Room:
    """How much is stored, by key."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._sizes: dict[str, int] = {}
        self._total_bytes = 0

    @property
    def used_bytes(self) -> int:
        return self._total_bytes

    def take(self, key: str, size: int) -> bool:
        """Count some more for a key, unless that exceeds the limit."""
        if self._total_bytes + size > self._limit_bytes:
            return False
        self._sizes[key] = self._sizes.get(key, 0) + size
        self._total_bytes += size
        return True

    def release(self, key: str) -> None:
        self._total_bytes -= self._sizes.pop(key, 0)

    def recount(self, listed: Mapping[str, int], known_better: Collection[str]) -> None:
        """Take over a listing, save for keys that were being written meanwhile."""
        kept = {key: size for key, size in self._sizes.items() if key in known_better}
        self._sizes = {key: size for key, size in listed.items() if key not in known_better} | kept
        self._total_bytes = sum(self._sizes.values())


async def _in_pieces(content: bytes | AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces of `PIECE_BYTES`; the last one may be shorter."""
    if isinstance(content, bytes):
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]
        return
    buffer = bytearray()
    async for piece in content:
        buffer += piece
        while len(buffer) >= PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES])
            del buffer[:PIECE_BYTES]
    if buffer:
        yield bytes(buffer)
