"""What wrappers stand on, without a socket: an upstream and hosts of files that answer what a test tells them."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from handlers.runtime.exceptions import UpstreamErrorWithheld
from handlers.runtime.messages import Header, Reply
from handlers.runtime.remote_files import FileReference, RemoteFile
from handlers.runtime.services import Services

MADE_UP_KEY = b"sk-made-up-upstream"


@dataclass
class Sent:
    """One call that reached the upstream."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class UpstreamOfTest:
    """
    Takes every call in and answers with the next of `answers`, the last one for ever.

    Args:
        answers: Replies, exceptions, or functions that make one of a call.
    """

    answers: list[Reply | Exception | Callable[[Sent], Reply]] = field(default_factory=list)
    calls: list[Sent] = field(default_factory=list)
    closed: int = 0

    def check_echo(self, content: bytes) -> None:
        """As the client of the upstream does, with a key that is made up."""
        if MADE_UP_KEY in content:
            raise UpstreamErrorWithheld

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: bytes = b"",
        headers: list[Header],
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> Reply:
        """Stand for `Upstream.send`."""
        assert query == b""
        body = content or b""
        if not isinstance(body, bytes):
            body = b"".join([piece async for piece in body])
        call = Sent(method, path, {name.decode(): value.decode() for name, value in headers}, body)
        self.calls.append(call)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        reply = answer if isinstance(answer, Reply) else answer(call)
        return dataclasses.replace(reply, close=self._close)

    async def _close(self) -> None:
        self.closed += 1


@dataclass
class FilesOfTest:
    """
    Hosts of files.

    Args:
        files: Links to pieces, to what fetching ends with, or to `None` for a host that keeps silent.
        limits: Of each file that was asked for.
        media_types: What each of them might be.
    """

    files: dict[str, Sequence[bytes] | Exception | None] = field(default_factory=dict)
    limits: list[int | None] = field(default_factory=list)
    media_types: list[tuple[str, ...] | None] = field(default_factory=list)

    @asynccontextmanager
    async def open(
        self, reference: FileReference, *, limit_bytes: int | None = None, media_types: Iterable[str] | None = None
    ) -> AsyncIterator[RemoteFile]:
        """Stand for `RemoteFiles.open`."""
        self.limits.append(limit_bytes)
        self.media_types.append(None if media_types is None else tuple(media_types))
        found = self.files[reference.link]
        if isinstance(found, Exception):
            raise found
        if found is None:
            await asyncio.Event().wait()
        yield RemoteFile(reference.name, reference.media_type, None, _pieces(found or ()))


def services_with(services: Services, upstream: UpstreamOfTest, files: FilesOfTest | None = None) -> Services:
    """Services of a relay that stands on these."""
    return dataclasses.replace(
        services, upstream=cast("Any", upstream), remote_files=cast("Any", files or FilesOfTest())
    )


def answered(value: Any, status: int = 200) -> Reply:
    """A JSON answer of the upstream; an error is whole, as `Upstream.send` leaves it."""
    data = orjson.dumps(value)
    return Reply(status, [(b"content-type", b"application/json")], data if status >= 400 else _pieces([data]))


def refused(message: str, status: int = 400) -> Reply:
    """An error of the upstream."""
    return answered({"error": {"message": message, "type": "invalid_request_error"}}, status)


async def _pieces(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
