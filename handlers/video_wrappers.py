"""
Videos for assistants, for services that still make them: start one, start a remix of one.

Bound by operationId to the operations tagged `Video wrappers`. Videos themselves never pass through here.
"""

from typing import Any
from urllib.parse import quote

from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.file_sources import remote_part
from handlers.runtime.images import IMAGE_TYPES, MAX_IMAGE_BYTES
from handlers.runtime.messages import Reply, Request
from handlers.runtime.multipart import MultipartBody
from handlers.runtime.remote_files import read_references
from handlers.runtime.remote_hosts import FILE_FIELD
from handlers.runtime.wrapped_calls import call_json

_NOT_SENT = frozenset({FILE_FIELD, "idempotency_key"})
_STATE = "GetVideo"  # what tells how far a video is; assistants reach it through `_PROXY`
_PROXY = "forwardRequest"
_TYPES = {"progress": int, "model": str, "seconds": str, "size": str}  # of `VideoJob`, beside id and status
_MAX_ID_CHARACTERS = 512  # ids of the upstream have some 40


async def generate_video(request: Request) -> Reply:
    """
    Start a video.

    Args:
        request: Its body is a `GenerateVideoRequest`; a model that it does not name is left to the service to choose.

    Returns:
        `VideoJob`.

    Raises:
        FileRefused, FileTooLarge, FileUnreachable: The image could not be fetched (400, 413, 502).
        UpstreamRefusal: The upstream refused, as it came; OpenAI's own does since 2026-09-24.
        UpstreamProtocolError: It answered no video (502).

    Source: operation `generateVideo`, wrapping upstream `createVideo`.
    """
    fields = {name: value for name, value in request.body.items() if name not in _NOT_SENT}
    if FILE_FIELD not in request.body:
        return _job(request, await call_json(request, request.operation.wraps[0], body=fields))
    (image,) = read_references(request.body[FILE_FIELD])
    opening = request.services.remote_files.open(image, limit_bytes=MAX_IMAGE_BYTES, media_types=IMAGE_TYPES)
    async with opening as file:
        body = MultipartBody(fields.items(), [remote_part("input_reference", file)])
        return _job(request, await call_json(request, request.operation.wraps[0], body=body))


async def remix_video(request: Request) -> Reply:
    """
    Start a remix of a finished video.

    Args:
        request: Its body is a `RemixVideoRequest`.

    Returns:
        `VideoJob`.

    Raises:
        UpstreamRefusal: The upstream refused, as it came.
        UpstreamProtocolError: It answered no video (502).

    Source: operation `remixVideo`, wrapping upstream `CreateVideoRemix`.
    """
    answer = await call_json(
        request,
        request.operation.wraps[0],
        path_params=request.path_params,
        body={"prompt": request.body["prompt"]},
    )
    return _job(request, answer)


def _job(request: Request, answer: dict[str, Any]) -> Reply:
    id_, status = answer.get("id"), answer.get("status")
    if not isinstance(id_, str) or not id_ or len(id_) > _MAX_ID_CHARACTERS or not isinstance(status, str):
        raise UpstreamProtocolError("The upstream answered something else than a video; the call may have worked.")
    details = {name: answer[name] for name, kind in _TYPES.items() if type(answer.get(name)) is kind}
    return Reply.json({"id": id_, "status": status, **details, "how": _how(request, id_, status)})


def _how(request: Request, id_: str, status: str) -> str:
    if status == "completed":
        return "Tell the user that the video is ready where it was made; it cannot be fetched here."
    if status == "failed":
        return "Tell the user that the video failed; a new call starts another one."
    state = request.services.contract.operations[_STATE]
    path = "/".join(quote(id_, safe="") if part.startswith("{") else part for part in state.path.split("/"))
    return (
        f"Call `{_PROXY}` with `method` {state.method} and `path` `{path}` from time to time, until `status` is "
        "`completed` or `failed`."
    )
