"""Operations of the tag Upload wrappers: large files in parts, in JSON."""

from typing import Any

from handlers.runtime.file_sources import BASE64_FIELD, brings_links, inline_part, remote_part
from handlers.runtime.idempotency import FIELD
from handlers.runtime.messages import Reply, Request
from handlers.runtime.multipart import FilePart, MultipartBody
from handlers.runtime.remote_files import read_references
from handlers.runtime.remote_hosts import FILE_FIELD
from handlers.runtime.reply_shapes import shaped
from handlers.runtime.wrapped_calls import call_json

MAX_PART_BYTES = 64 * 2**20  # upstream's own limit; the official SDKs cut parts of this size


async def start_upload(request: Request) -> Reply:
    """
    Begin to upload a file in parts.

    Args:
        request: Its body is a validated `StartUploadRequest`.

    Returns:
        `UploadState`.

    Raises:
        UpstreamRefusal: The upstream answered with an error.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `startUpload`, wrapping upstream's `createUpload`.
    """
    return await _pass_on(request)


async def send_upload_part(request: Request) -> Reply:
    """
    Send a file as a part of an upload, while it is fetched.

    Args:
        request: Its body is a validated `SendUploadPartRequest`.

    Returns:
        `SentPart`.

    Raises:
        InvalidBody: The body brings no file, brings it in both ways, or not as Base64 (400).
        FileRefused: Its link is not allowed (400).
        FileTooLarge: It exceeds `MAX_PART_BYTES` (413).
        FileUnreachable: It did not come (502).
        UpstreamRefusal: The upstream answered with an error.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `sendUploadPart`, wrapping upstream's `addUploadPart`.
    """
    body = request.body
    if not brings_links(body, (BASE64_FIELD,)):
        return await _add_part(request, inline_part("data", "part", body[BASE64_FIELD]))
    (reference,) = read_references(body[FILE_FIELD])
    async with request.services.remote_files.open(reference, limit_bytes=MAX_PART_BYTES) as file:
        return await _add_part(request, remote_part("data", file))


async def finish_upload(request: Request) -> Reply:
    """
    Put the parts of an upload together.

    Args:
        request: Its body is a validated `FinishUploadRequest`.

    Returns:
        `UploadState`, with its file.

    Raises:
        UpstreamRefusal: The upstream answered with an error.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `finishUpload`, wrapping upstream's `completeUpload`.
    """
    return await _pass_on(request)


async def stop_upload(request: Request) -> Reply:
    """
    Give an upload up.

    Args:
        request: Its body is a validated `StopRequest` or not there.

    Returns:
        `UploadState`.

    Raises:
        UpstreamRefusal: The upstream answered with an error.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `stopUpload`, wrapping upstream's `cancelUpload`.
    """
    return await _pass_on(request)


async def _pass_on(request: Request) -> Reply:
    """Send what the body says beside its key; nothing where that is nothing."""
    fields: dict[str, Any] = {name: value for name, value in (request.body or {}).items() if name != FIELD}
    answer = await call_json(request, request.operation.wraps[0], path_params=request.path_params, body=fields or None)
    return Reply.json(shaped(request, answer))


async def _add_part(request: Request, part: FilePart) -> Reply:
    answer = await call_json(
        request, request.operation.wraps[0], path_params=request.path_params, body=MultipartBody([], [part])
    )
    return Reply.json(shaped(request, answer))
