"""
Images for assistants: JSON and file references in, links out.

Bound by operationId to the operations tagged `Image wrappers`.
"""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from handlers.runtime.exceptions import InvalidBody
from handlers.runtime.file_sources import remote_part
from handlers.runtime.images import IMAGE_TYPES, MAX_IMAGE_BYTES, image_links
from handlers.runtime.messages import Reply, Request
from handlers.runtime.multipart import FilePart, MultipartBody
from handlers.runtime.remote_files import FileReference, read_references
from handlers.runtime.remote_hosts import FILE_FIELD
from handlers.runtime.wrapped_calls import call_json

# The newest family in upstream's document of 2026-08-21, so the last to end; its own defaults (`dall-e-2`,
# `gpt-image-1.5`) are older and differ between drawing and editing.
IMAGE_MODEL = "gpt-image-2"
VARIATION_MODEL = "dall-e-2"  # upstream offers variations with no other
# Only these answer links of a foreign storage unless told otherwise; the others refuse the field.
_ASKED_FOR_BASE64 = "dall-e-"
# Upstream's own limits, in its document, for a mask and for what variations are drawn of.
PLAIN_TYPES = ("image/png",)
MAX_PLAIN_BYTES = 4 * 10**6
_NOT_SENT = frozenset({FILE_FIELD, "last_is_mask", "idempotency_key"})


async def generate_images(request: Request) -> Reply:
    """
    Draw images from a text.

    Args:
        request: Its body is a `GenerateImagesRequest`.

    Returns:
        `ImageLinks`.

    Raises:
        UpstreamRefusal: The upstream refused, as it came.
        UpstreamProtocolError: It answered no image (502).
        ArtifactStoreFull: There is no room for the images (503).

    Source: operation `generateImages`, wrapping upstream `createImage`.
    """
    answer = await call_json(request, request.operation.wraps[0], body=_fields(request.body, IMAGE_MODEL))
    return Reply.json(await image_links(request, answer))


async def edit_images(request: Request) -> Reply:
    """
    Change images.

    Args:
        request: Its body is an `EditImagesRequest`; with `last_is_mask` its last file is the mask.

    Returns:
        `ImageLinks`.

    Raises:
        InvalidBody: There is a mask and nothing else (400).
        FileRefused, FileTooLarge, FileUnreachable: A file could not be fetched (400, 413, 502).
        UpstreamRefusal: The upstream refused, as it came.
        UpstreamProtocolError: It answered no image (502).
        ArtifactStoreFull: There is no room for the images (503).

    Source: operation `editImages`, wrapping upstream `createImageEdit`.
    """
    images = read_references(request.body[FILE_FIELD])
    masks = [images.pop()] if request.body.get("last_is_mask") else []
    if not images:
        raise InvalidBody("`last_is_mask` needs an image before the mask.", param="last_is_mask")
    field_name = "image" if len(images) == 1 else "image[]"  # `dall-e-2` and older services know only the former
    fields = _fields(request.body, IMAGE_MODEL)
    async with AsyncExitStack() as stack:
        parts = [await _part(request, stack, field_name, one, IMAGE_TYPES, MAX_IMAGE_BYTES) for one in images]
        parts += [await _part(request, stack, "mask", one, PLAIN_TYPES, MAX_PLAIN_BYTES) for one in masks]
        answer = await call_json(request, request.operation.wraps[0], body=MultipartBody(_texts(fields), parts))
    return Reply.json(await image_links(request, answer))


async def vary_image(request: Request) -> Reply:
    """
    Draw variations of an image.

    Args:
        request: Its body is a `VaryImageRequest`.

    Returns:
        `ImageLinks`.

    Raises:
        FileRefused, FileTooLarge, FileUnreachable: The file could not be fetched (400, 413, 502).
        UpstreamRefusal: The upstream refused, as it came.
        UpstreamProtocolError: It answered no image (502).
        ArtifactStoreFull: There is no room for the images (503).

    Source: operation `varyImage`, wrapping upstream `createImageVariation`.
    """
    (image,) = read_references(request.body[FILE_FIELD])
    fields = _fields(request.body, VARIATION_MODEL)
    async with AsyncExitStack() as stack:
        part = await _part(request, stack, "image", image, PLAIN_TYPES, MAX_PLAIN_BYTES)
        answer = await call_json(request, request.operation.wraps[0], body=MultipartBody(_texts(fields), [part]))
    return Reply.json(await image_links(request, answer))


def _fields(body: dict[str, Any], model: str) -> dict[str, Any]:
    fields = {"model": model, **{name: value for name, value in body.items() if name not in _NOT_SENT}}
    if fields["model"].startswith(_ASKED_FOR_BASE64):
        fields["response_format"] = "b64_json"
    return fields


def _texts(fields: dict[str, Any]) -> Iterable[tuple[str, str]]:
    return [(name, str(value)) for name, value in fields.items()]


async def _part(
    request: Request,
    stack: AsyncExitStack,
    field_name: str,
    reference: FileReference,
    media_types: tuple[str, ...],
    limit_bytes: int,
) -> FilePart:
    # All are opened before anything is sent: a file that is refused costs no call.
    opening = request.services.remote_files.open(reference, limit_bytes=limit_bytes, media_types=media_types)
    file = await stack.enter_async_context(opening)
    return remote_part(field_name, file)
