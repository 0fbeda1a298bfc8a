"""
Files that a client names by link, fetched piece by piece: `openaiFileIdRefs` of the Actions contract.

Links are signed secrets: they stand in no message, no log line and no repr. Where they may lead is decided by
`handlers.runtime.remote_hosts`. Not for the upstream: `handlers.runtime.upstream` talks to that.
"""

import asyncio
import mimetypes
import re
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from handlers.runtime.exceptions import FileTooLarge, FileUnreachable, RelayError
from handlers.runtime.file_names import UNSPECIFIC, plain_name
from handlers.runtime.remote_hosts import (
    FILE_FIELD,
    MAX_LINK_CHARACTERS,
    Address,
    HostRules,
    Resolver,
    Target,
    refusal,
)

USER_AGENT = "chatgpt-team-relay"

_UNSPECIFIC = frozenset({"", UNSPECIFIC, "binary/octet-stream"})  # S3 says the latter
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")  # RFC 6838
_TYPES = mimetypes.MimeTypes()  # Python's own table, the same on every machine
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FileReference:
    """
    A file as the client named it.

    Args:
        name: A plain file name.
        media_type: Without parameters.
        link: A secret for as long as it is valid.
    """

    name: str
    media_type: str
    link: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """
    A file that is being fetched.

    Args:
        media_type: The reference's, or the reply's where the reference has none.
        length: In bytes, when its host told it.
        pieces: May be read once, inside the block that opened it.
    """

    name: str
    media_type: str
    length: int | None
    pieces: AsyncIterator[bytes]


def read_references(value: Sequence[Any]) -> list[FileReference]:
    """
    Read `openaiFileIdRefs`.

    Args:
        value: Objects with `download_link`, `name` and `mime_type`, as ChatGPT sends them, or https links, the form in
            which the field is documented.

    Raises:
        FileRefused: An item is neither, such as the id of a file alone (400).

    Source: https://developers.openai.com/api/docs/actions/sending-files
    """
    return [_read_reference(item) for item in value]


class RemoteFiles:
    """
    Fetches files from hosts that are not the relay's.

    Args:
        allowed_hosts: As `HostRules` takes them; `DEFAULT_HOSTS` unless somebody decides otherwise.
        private_networks: Networks that may be fetched from although they are not public.
        max_bytes: Of one file, whatever a caller of `open` allows.
        timeout_seconds: For one file, from the look-up to its last byte.
        idle_timeout_seconds: Without a byte, and for every step before the first.
        max_redirects: Each goes through all rules again.
        ca_file: Certificates to trust beside the usual ones.
        resolver: Host name and port to addresses; the operating system's by default.

    Raises:
        ValueError: A host or network is malformed.
    """

    def __init__(
        self,
        allowed_hosts: Iterable[str],
        private_networks: Iterable[str],
        max_bytes: int,
        timeout_seconds: float,
        *,
        idle_timeout_seconds: float = 10.0,
        max_redirects: int = 3,
        ca_file: Path | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._rules = HostRules(allowed_hosts, private_networks, resolver)
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._idle_timeout_seconds = idle_timeout_seconds
        self._max_redirects = max_redirects
        self._tls = httpx.create_ssl_context()
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)

    @asynccontextmanager
    async def open(
        self,
        reference: FileReference,
        *,
        limit_bytes: int | None = None,
        media_types: Iterable[str] | None = None,
    ) -> AsyncIterator[RemoteFile]:
        """
        Fetch a file for as long as the block runs.

        What ends the file early is raised from the block as it is, also when whoever read it wrapped it.

        Args:
            limit_bytes: Of this file.
            media_types: What it may be: whole types such as `image/png`, or families such as `audio/`. The reference
                and the reply must both fit, unless one of them leaves it open.

        Raises:
            FileRefused: The link, where it leads or what lies there is not allowed (400).
            FileTooLarge: It exceeds a limit; may come in mid-file (413).
            FileUnreachable: No file came, or not all of it in time; may come in mid-file (502).
        """
        limit = self._max_bytes if limit_bytes is None else min(limit_bytes, self._max_bytes)
        wanted = None if media_types is None else tuple(media_types)
        _check_media_type(wanted, reference.media_type)
        clock = _Clock(self._timeout_seconds, self._idle_timeout_seconds)
        async with AsyncExitStack() as stack:
            response = await self._ask(stack, reference.link, clock)
            media_type = _judge(response, reference, wanted)
            pieces = _Pieces(response, limit, clock)
            try:
                yield RemoteFile(reference.name, media_type, pieces.length, pieces)
            except Exception:
                if pieces.failure is not None:
                    raise pieces.failure from None
                raise
            if pieces.failure is not None:
                raise pieces.failure

    async def _ask(self, stack: AsyncExitStack, link: str, clock: "_Clock") -> aiohttp.ClientResponse:
        """Follow a link to its file; the reply is open until the stack is."""
        for _ in range(self._max_redirects + 1):
            target = self._rules.check_link(link)
            try:
                async with clock.step():
                    addresses = await self._rules.addresses(target)
                    session = await stack.enter_async_context(self._session(target, addresses))
                    response = await session.get(_url(target), allow_redirects=False)
            except (aiohttp.ClientError, OSError) as error:
                raise _failure(error) from None
            stack.push_async_callback(_end, session, response)
            if response.status not in _REDIRECTS:
                return response
            link = _next_link(target, response)
            await _end(session, response)
        raise refusal(f"The link of a file must lead to it in at most {self._max_redirects} redirects.")

    def _session(self, target: Target, addresses: list[Address]) -> aiohttp.ClientSession:
        # One session per request: nothing of it, be it a cookie or a connection, is left for another. The connection is
        # kept alive until then, since uvloop 0.23 loses what it has not read yet when the other side ends TLS first
        # (https://github.com/MagicStack/uvloop/pull/661); the file would then count as broken off.
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Checked(target.host, addresses), use_dns_cache=False, ssl=self._tls
            ),
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            trust_env=False,  # neither proxies nor credentials of the environment
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
        )


class _Clock:
    """How long a file may still take."""

    def __init__(self, total_seconds: float, idle_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + total_seconds
        self._idle_seconds = idle_seconds

    def step(self) -> asyncio.Timeout:
        """A block that ends with `TimeoutError` when nothing comes, or when the whole has taken too long."""
        return asyncio.timeout_at(min(self._deadline, self._loop.time() + self._idle_seconds))


class _Checked(AbstractResolver):
    """
    Answers with the addresses that were checked, whatever the name leads to by now.

    Source: https://docs.aiohttp.org/en/stable/client_advanced.html#resolving-using-custom-nameservers
    """

    def __init__(self, host: str, addresses: list[Address]) -> None:
        self._host = host
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family  # the answers are what they are
        if host != self._host:
            raise OSError("only the host that was checked is looked up")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """There is nothing to close."""


class _Pieces:
    """
    The bytes of a reply, counted.

    No generator: its reader may still wait for a piece when the block around it ends.
    """

    def __init__(self, response: aiohttp.ClientResponse, limit_bytes: int, clock: _Clock) -> None:
        self._content = response.content
        self._left_bytes = limit_bytes
        self._clock = clock
        self.length = response.content_length
        self.failure: RelayError | None = None
        self._too_large = FileTooLarge(f"The file must have at most {limit_bytes} bytes.", param=FILE_FIELD)
        if self.length is not None and self.length > limit_bytes:
            raise self._too_large

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.failure is not None:
            raise self.failure
        try:
            async with self._clock.step():
                piece = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            self.failure = _failure(error)
            raise self.failure from None
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            self.failure = self._too_large
            raise self.failure
        if not piece:
            raise StopAsyncIteration
        return piece


def _read_reference(item: Any) -> FileReference:
    described = item if isinstance(item, dict) else {"download_link": item}
    link = described.get("download_link")
    if not isinstance(link, str) or not link.lower().startswith("https://") or len(link) > MAX_LINK_CHARACTERS:
        raise refusal(
            "`openaiFileIdRefs` must name files of this conversation, each with an https `download_link`; "
            "leave it out when there is none."
        )
    name = described.get("name")
    media_type = described.get("mime_type")
    plain = plain_name(name if isinstance(name, str) and name else _last_segment(link))
    return FileReference(plain, _essence(media_type if isinstance(media_type, str) else "") or _guess(plain), link)


def _last_segment(link: str) -> str:
    try:
        return unquote(urlsplit(link).path.rpartition("/")[2])
    except ValueError:  # brackets in the wrong place; the link will be refused when it is opened
        return ""


def _essence(media_type: str) -> str:
    """A media type without its parameters, in lower case; empty when it is none."""
    essence = media_type.partition(";")[0].strip().lower()
    return essence if _MEDIA_TYPE.fullmatch(essence) else ""


def _guess(name: str) -> str:
    media_type, coding = _TYPES.guess_type(f"file{Path(name).suffix}")
    return media_type if media_type and not coding else UNSPECIFIC


def _judge(response: aiohttp.ClientResponse, reference: FileReference, wanted: tuple[str, ...] | None) -> str:
    """
    Hold the head of a reply against what was asked for.

    Returns:
        The file's media type.
    """
    if response.status != HTTPStatus.OK:
        raise FileUnreachable(
            f"The host of the file answered with status {response.status}. Links end after a few minutes: "
            "ask for the file again."
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise refusal("The host of the file must send it uncompressed.")
    if response.content_length is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
        # It would end wherever the connection does, and nobody could tell half a file from a whole one.
        raise FileUnreachable("The host of the file must say where the file ends.")
    replied = _essence(response.headers.get("Content-Type", ""))
    _check_media_type(wanted, replied)
    media_type = next((one for one in (reference.media_type, replied) if one not in _UNSPECIFIC), UNSPECIFIC)
    if wanted is not None and media_type in _UNSPECIFIC:
        raise refusal(_type_message(wanted))
    return media_type


def _check_media_type(wanted: tuple[str, ...] | None, media_type: str) -> None:
    if wanted is None or media_type in _UNSPECIFIC:
        return
    if not any(media_type == one or (one.endswith("/") and media_type.startswith(one)) for one in wanted):
        raise refusal(_type_message(wanted))


def _type_message(wanted: tuple[str, ...]) -> str:
    return f"The type of the file must be one of {', '.join(wanted)}."


async def _end(session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
    await session.close()  # first: it breaks the connection, while a reply would wait for the host's goodbye in TLS
    response.close()


def _url(target: Target) -> URL:
    # Built from the parts that were checked: no second parser may read the link differently.
    path, _, query = target.resource.partition("?")
    return URL.build(scheme="https", host=target.host, port=target.port, path=path, query_string=query, encoded=True)


def _next_link(target: Target, response: aiohttp.ClientResponse) -> str:
    try:
        return urljoin(str(_url(target)), response.headers.get("Location", ""))  # judged like the first link
    except ValueError:
        raise refusal("The link of a file must not lead to a malformed one.") from None


def _failure(error: Exception) -> FileUnreachable:
    if isinstance(error, TimeoutError):
        return FileUnreachable("The host of the file did not send it in time; try again later.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return FileUnreachable("The host of the file could not be reached; try again later.")
    return FileUnreachable("The host of the file broke off its answer; try again later.")
