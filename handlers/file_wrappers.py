"""
Operations of the tag File wrappers: what assistants can do with files, in JSON.

Files come by link or as Base64 and go upstream piece by piece; of a text they get as much as a reply can carry.
"""

import asyncio
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import orjson

from handlers.runtime.budget import MAX_REPLY_CHARACTERS, MIN_PAGE_CHARACTERS
from handlers.runtime.errors import describe_error
from handlers.runtime.exceptions import NotText, RelayError, UpstreamProtocolError, UpstreamTimeout
from handlers.runtime.file_names import plain_name
from handlers.runtime.file_sources import BASE64_FIELD, brings_links, inline_part, remote_part
from handlers.runtime.messages import Reply, Request
from handlers.runtime.multipart import FilePart, MultipartBody
from handlers.runtime.remote_files import read_references
from handlers.runtime.remote_hosts import FILE_FIELD
from handlers.runtime.reply_shapes import shaped
from handlers.runtime.shortening import escaped_length
from handlers.runtime.text_pieces import MARGIN_BYTES, cut_text
from handlers.runtime.wrapped_calls import UpstreamRefusal, body_pieces, call, call_json

# The call ends after 38 seconds and takes its reply along. Files that were kept by then must be told of.
LAST_START_SECONDS = 30.0
LAST_END_SECONDS = 34.0
MAX_REASON_CHARACTERS = 200
DEFAULT_LIMIT_BYTES = 20_000

_LINK = re.compile(r"\S*(?:://|www\.)\S*")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_BINARY_FAMILIES = ("audio/", "font/", "image/", "video/")
_BINARY = frozenset({"application/gzip", "application/pdf", "application/zip"})
_NEXT = "Call `readFileText` again with `offset` set to `next` to read on."


async def upload_file(request: Request) -> Reply:
    """
    Send files upstream, one after the other, while they are fetched.

    Args:
        request: Its body is a validated `UploadFileRequest`.

    Returns:
        `UploadedFiles`. A file that fails is named in it, unless it is the only one.

    Raises:
        InvalidBody: The body brings no file, brings it in both ways, or not as Base64 (400).
        FileRefused: The link of the only file is not allowed (400).
        FileTooLarge: The only file is (413).
        FileUnreachable: The only file did not come (502).
        UpstreamRefusal: The upstream answered to the only file with an error.
        UpstreamError: It did not answer as it should to the only file (502, 504).

    Source: operation `uploadFile`, wrapping upstream's `createFile`.
    """
    body = request.body
    if not brings_links(body, ("filename", BASE64_FIELD)):
        part = inline_part("file", body["filename"], body[BASE64_FIELD])
        return Reply.json({"data": [await _create_file(request, part)], "failed": []})
    clock = asyncio.get_running_loop().time
    began = clock()
    data = []
    failed = []
    for number, item in enumerate(body[FILE_FIELD], 1):
        if clock() - began > LAST_START_SECONDS:
            failed.append({"name": _name(item, number), "reason": "There was no time left; call again with this file."})
            continue
        request.progress.text = f"file {number} of {len(body[FILE_FIELD])}"
        try:
            data.append(await _create_from_link(request, item, began + LAST_END_SECONDS))
        except (RelayError, UpstreamRefusal) as error:
            if len(body[FILE_FIELD]) == 1:
                raise
            failed.append({"name": _name(item, number), "reason": _reason(error)})
    return Reply.json({"data": data, "failed": failed})


async def read_file_text(request: Request) -> Reply:
    """
    Read a piece of a file of text.

    Args:
        request: `offset` and `limit` of its query are in bytes.

    Returns:
        `FileText`.

    Raises:
        NotText: The file holds something else (400).
        UpstreamRefusal: The upstream answered with an error.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `readFileText`, wrapping upstream's `downloadFile`.
    """
    query = dict(parse_qsl(request.query.decode("ascii")))
    offset = int(query.get("offset", 0))
    limit = int(query.get("limit", DEFAULT_LIMIT_BYTES))
    raw = await _read_content(request, offset, limit + MARGIN_BYTES)
    reply = {"file_id": request.path_params["file_id"], "text": "", "offset": offset, "truncated": False}
    # As long as it can get: `next` has one digit more than `offset` at most.
    around = escaped_length({**reply, "next": 10 * (offset + limit), "how": _NEXT})
    room = max(MAX_REPLY_CHARACTERS - around, MIN_PAGE_CHARACTERS)
    piece = cut_text(raw, offset, limit, room)
    reply |= {"text": piece.text, "offset": piece.offset}
    if piece.next_offset is not None:
        reply |= {"truncated": True, "next": piece.next_offset, "how": _NEXT}
    return Reply.json(reply)


async def _create_from_link(request: Request, item: Any, until: float) -> Any:
    (reference,) = read_references([item])
    try:
        async with asyncio.timeout_at(until), request.services.remote_files.open(reference) as file:
            return await _create_file(request, remote_part("file", file))
    except TimeoutError:
        raise UpstreamTimeout(
            "The file was not kept in time; look with `listFiles` whether it is there before you call again with it."
        ) from None


async def _create_file(request: Request, part: FilePart) -> Any:
    sent = MultipartBody([("purpose", request.body["purpose"])], [part])
    created = await call_json(request, request.operation.wraps[0], body=sent)
    return shaped(request, {"data": [created], "failed": []})["data"][0]


def _name(item: Any, number: int) -> str:
    """A name for a file that failed. Links have none to show: what stands in them is secret."""
    name = item.get("name") if isinstance(item, dict) else None
    return plain_name(name) if isinstance(name, str) and name else f"file {number}"


def _reason(error: RelayError | UpstreamRefusal) -> str:
    if isinstance(error, RelayError):
        return str(describe_error(error)["message"])
    message = ""
    if isinstance(error.reply.body, bytes):
        try:
            message = str(orjson.loads(error.reply.body)["error"]["message"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            message = ""
    # Cut before links are looked for: that takes the square of the length of a text without spaces.
    text = _LINK.sub("[link]", " ".join(message[: 4 * MAX_REASON_CHARACTERS].split()))
    if not text:
        return f"The upstream answered with status {error.reply.status}."
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[: MAX_REASON_CHARACTERS - 1]}…"


async def _read_content(request: Request, offset: int, size: int) -> bytes:
    """Read so many bytes of a file, or as many as there are, and leave the rest."""
    wanted = f"bytes={offset}-{offset + size - 1}".encode()
    try:
        reply = await call(
            request, request.operation.wraps[0], path_params=request.path_params, headers=((b"range", wanted),)
        )
    except UpstreamRefusal as refusal:
        if refusal.reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return b""  # the file ends before
        raise
    try:
        total = _total(reply, offset)
        raw = bytearray()
        skipped = 0 if reply.status == HTTPStatus.PARTIAL_CONTENT else offset
        async for piece in body_pieces(reply):
            raw += piece[skipped : skipped + size - len(raw)]
            skipped = max(skipped - len(piece), 0)
            if len(raw) == size:
                break
    finally:
        if reply.close is not None:
            await reply.close()
    if total is not None and len(raw) < min(size, total - offset):
        raise UpstreamProtocolError
    return bytes(raw)


def _total(reply: Reply, offset: int) -> int | None:
    """
    Hold the head of an answer against what was asked for.

    Returns:
        Bytes of the file, where the answer says it beside a part.
    """
    headers = dict(reply.headers)
    media_type = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    text_inside = media_type.endswith(("+json", "+xml"))
    if media_type in _BINARY or (media_type.startswith(_BINARY_FAMILIES) and not text_inside):
        raise NotText
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise UpstreamProtocolError
    if reply.status == HTTPStatus.OK:
        return None
    found = _CONTENT_RANGE.fullmatch(headers.get(b"content-range", b"").decode("latin-1"))
    if reply.status != HTTPStatus.PARTIAL_CONTENT or found is None or int(found[1]) != offset:
        raise UpstreamProtocolError
    return None if found[3] == "*" else int(found[3])
