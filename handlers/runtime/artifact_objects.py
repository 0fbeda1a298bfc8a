"""
The objects that artifacts consist of: in a folder of this machine, or in a bucket of an S3-compatible service.

Small, whole and never changed: each is written and read in one call. What they mean is decided by
`handlers.runtime.artifacts`.
"""

import asyncio
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import structlog

from handlers.runtime.exceptions import ArtifactStoreFull, InternalError, InvalidSettings

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# Of one call. Objects are small, so a service that takes longer is broken, and an assistant waits 45 s for everything.
CALL_TIMEOUT_SECONDS = 20
RETRIES = 2
RETRY_TIMEOUT_SECONDS = 10

_THREADS = 8
_URL_RULE = "RELAY_ARTIFACT_URL: must be file:///folder or s3://bucket/prefix, without credentials or a query."
# ENOSPC and EDQUOT: the library tells them apart in its text only.
_DISK_FULL = ("(os error 28)", "(os error 122)")

_log = structlog.get_logger("relay")

P = ParamSpec("P")
T = TypeVar("T")


class ArtifactObjects:
    """
    Named bytes.

    The library `obstore` does the work, in threads: processes that have used its coroutines abort at their end every
    now and then (https://github.com/PyO3/pyo3-async-runtimes/issues/40; 13 of 45 did here, none with threads). It is
    imported at the first use, since it takes 15 ms and 7 MB: a relay that stores nothing does without.

    Args:
        url: `file:///folder` or `s3://bucket/prefix`; credentials, region and endpoint of the latter stand in the
            usual `AWS_…` variables. Empty: a new folder that nobody else can read, removed by `close`.

    Raises:
        InvalidSettings: The URL is malformed, or its folder cannot be made.
    """

    def __init__(self, url: str) -> None:
        self._private = not url
        self._folder: Path | None = None
        self._store: ObjectStore | None = None
        self._opening = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        if url:
            self._connect(url)

    async def put(self, name: str, content: bytes) -> None:
        """
        Write an object, whole or not at all.

        Raises:
            ArtifactStoreFull: The disk is full (503).
            InternalError: It could not be written (500).
        """
        try:
            await self._run(self._put, name, content)
        except FileNotFoundError as error:  # the folder or the bucket is gone
            raise _failure(error) from error

    async def read(self, name: str, start: int, end: int) -> bytes:
        """
        Read a part of an object, up to its end where `end` lies behind it.

        Raises:
            FileNotFoundError: There is none.
            InternalError: It could not be read (500).
        """
        return await self._run(self._read, name, start, end)

    async def sizes(self) -> dict[str, int]:
        """
        Names and lengths of all objects.

        Raises:
            InternalError: They could not be listed (500).
        """
        return await self._run(self._sizes)

    async def delete(self, names: Sequence[str]) -> None:
        """
        Delete objects; what is gone already is no error.

        Raises:
            InternalError: They could not be deleted (500).
        """
        if names:
            await self._run(self._delete, list(names))

    async def close(self) -> None:
        """Wait for calls under way; remove the folder when it was made here."""
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
            self._threads = None
        if self._private and self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = self._store = None

    async def _run(self, job: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Run a job in a thread. It goes on when its caller is cancelled, who can wait for it with `asyncio.shield`."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="artifacts")
        try:
            return await asyncio.wrap_future(self._threads.submit(job, *args, **options))
        except FileNotFoundError:
            raise
        except Exception as error:  # the library's errors share no parent with those of the disk
            raise _failure(error) from error

    def _put(self, name: str, content: bytes) -> None:
        store = self._opened()
        if self._folder is not None:
            _check_folder(self._folder, private=self._private)
        store.put(name, content, use_multipart=False)

    def _read(self, name: str, start: int, end: int) -> bytes:
        return bytes(self._opened().get_range(name, start=start, end=end))

    def _sizes(self) -> dict[str, int]:
        return {found["path"]: found["size"] for batch in self._opened().list(chunk_size=1000) for found in batch}

    def _delete(self, names: list[str]) -> None:
        store = self._opened()
        try:
            store.delete(names)
        except FileNotFoundError:  # folders stop at the first that is gone; buckets do not mind
            for name in names:
                with suppress(FileNotFoundError):
                    store.delete(name)

    def _opened(self) -> "ObjectStore":
        with self._opening:
            if self._store is None:
                from obstore.store import LocalStore

                self._folder = Path(tempfile.mkdtemp(prefix="relay-artifacts-"))
                self._store = LocalStore(self._folder)
            return self._store

    def _connect(self, url: str) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import LocalStore, from_url

        try:
            parts = urlsplit(url)
        except ValueError:
            raise InvalidSettings(_URL_RULE) from None
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InvalidSettings(_URL_RULE)
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            self._folder = Path(unquote(parts.path))
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._store = LocalStore(self._folder)
            except (OSError, BaseError):
                raise InvalidSettings("RELAY_ARTIFACT_URL: its folder must exist or be one that can be made.") from None
        elif parts.scheme == "memory":  # for tests
            self._store = from_url("memory:///")
        elif parts.scheme == "s3" and parts.netloc:
            try:
                self._store = from_url(
                    url,
                    # Plain HTTP is used only where AWS_ENDPOINT_URL says so.
                    client_options={"allow_http": True, "timeout": timedelta(seconds=CALL_TIMEOUT_SECONDS)},
                    retry_config={
                        "max_retries": RETRIES,
                        "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_SECONDS),
                    },
                )
            except (ValueError, BaseError):
                raise InvalidSettings(_URL_RULE) from None
        else:
            raise InvalidSettings(_URL_RULE)


def _check_folder(folder: Path, *, private: bool) -> None:
    """Writing would make a folder that is gone anew, open to everybody."""
    if private:
        folder.mkdir(mode=0o700, exist_ok=True)  # whatever tidies up temporary files may have taken it
    found = folder.lstat() if private else folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError("the folder of the artifacts is none")
    if private and os.name == "posix" and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
        raise PermissionError("the folder of the artifacts is open to others")


def _failure(error: Exception) -> Exception:
    text = str(error)
    if any(mark in text for mark in _DISK_FULL):
        _log.error("artifact_disk_full")
        return ArtifactStoreFull()
    # The first line names the call and the status; what follows may repeat a service's whole answer.
    _log.error("artifact_store_failed", error=type(error).__name__, detail=text.partition("\n")[0])
    failure = InternalError()  # what a caller is told is the table's text
    failure.add_note("the store of the artifacts failed")
    return failure
