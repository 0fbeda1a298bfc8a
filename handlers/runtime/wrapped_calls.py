"""
Calls that a wrapper makes upstream: named by operationId, bounded, decoded.

Where an operation lies and what it takes stands in the contract; a wrapper only says which one it wants. An error of
the upstream ends the wrapper and goes to the client as it came.

Not for: requests that pass through as they are (`handlers.runtime.forwarder`).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from codegen.contract import JSON
from handlers.runtime.exceptions import DuplicateKey, MalformedJson, UpstreamProtocolError
from handlers.runtime.headers import REQUEST_HEADER_PREFIXES
from handlers.runtime.json_bodies import decode_json, encode_json
from handlers.runtime.messages import Header, Reply, Request
from handlers.runtime.multipart import MultipartBody

# Four images as Base64 at 4 MB each, and room; an answer that a wrapper reads whole must end somewhere.
MAX_ANSWER_BYTES = 64 * 2**20
_NO_OBJECT = "The upstream answered something else than a JSON object; try again later."
# Of the client's headers only what says who asks; what a body is and in which form it may come back is the wrapper's.
_KEPT = frozenset({b"accept-language", b"openai-beta", b"user-agent", b"x-client-request-id"})


class UpstreamRefusal(Exception):
    """
    The upstream answered with an error, which goes to the client as it came.

    Args:
        reply: Status, headers and body of that answer.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"the upstream answered {reply.status}")
        self.reply = reply


async def call(
    request: Request,
    operation_id: str,
    *,
    path_params: Mapping[str, str] | None = None,
    query: bytes = b"",
    body: Mapping[str, Any] | MultipartBody | None = None,
    headers: tuple[Header, ...] = (),
) -> Reply:
    """
    Call an operation of the upstream.

    Args:
        request: The wrapper's own; its caller's name for itself travels along.
        operation_id: A mirrored operation of the contract.
        path_params: Decoded values of its path.
        body: A JSON object, or the parts of a multipart body.
        headers: More of them, names in lower case.

    Returns:
        An answer below 400; its body is streamed and must be read or closed.

    Raises:
        UpstreamRefusal: The upstream answered with an error.
        UpstreamError: It did not answer as it should (502, 504).
    """
    operation = request.services.contract.operations[operation_id]
    path = "/".join(_segment(part, path_params or {}) for part in operation.path.split("/"))
    sent: list[Header] = [
        *((n, v) for n, v in request.headers if n in _KEPT or n.startswith(REQUEST_HEADER_PREFIXES)),
        (b"accept-encoding", b"identity"),
        *headers,
    ]
    content: bytes | AsyncIterator[bytes] | None = None
    if isinstance(body, MultipartBody):
        content = aiter(body)
        sent.append((b"content-type", body.content_type.encode()))
        if body.length is not None:
            sent.append((b"content-length", str(body.length).encode()))
    elif body is not None:
        content = encode_json(body)
        sent.append((b"content-type", JSON.encode()))
    reply = await request.services.upstream.send(operation.method, path, query=query, headers=sent, content=content)
    if reply.status >= HTTPStatus.BAD_REQUEST:
        raise UpstreamRefusal(reply)
    return reply


async def call_json(
    request: Request,
    operation_id: str,
    *,
    path_params: Mapping[str, str] | None = None,
    query: bytes = b"",
    body: Mapping[str, Any] | MultipartBody | None = None,
) -> dict[str, Any]:
    """
    Call an operation of the upstream that answers a JSON object.

    Args:
        request: As for `call`, and so are the others.

    Raises:
        UpstreamRefusal: The upstream answered with an error.
        UpstreamErrorWithheld: It repeats the relay's key, as the state of a job that failed may (502).
        UpstreamError: It did not answer as it should, or with something else than a JSON object (502, 504).
    """
    reply = await call(request, operation_id, path_params=path_params, query=query, body=body)
    return await read_json(request, reply)


async def read_json(request: Request, reply: Reply, wrong: str = _NO_OBJECT) -> dict[str, Any]:
    """
    Read an answer that must be a JSON object, and close it.

    Args:
        wrong: What to say when it is something else.

    Raises:
        UpstreamErrorWithheld: It repeats the relay's key, as the state of a job that failed may (502).
        UpstreamProtocolError: It is something else, or too long (502).
    """
    raw = await read_whole(reply, MAX_ANSWER_BYTES)
    request.services.upstream.check_echo(raw)
    try:
        value = decode_json(raw)
    except (MalformedJson, DuplicateKey):  # ours, for what a client sends; here the upstream is at fault
        value = None
    if not isinstance(value, dict):
        raise UpstreamProtocolError(wrong)
    return value


async def body_pieces(reply: Reply) -> AsyncGenerator[bytes, None]:
    """The body of an answer as it comes, in one piece where it has come already."""
    if isinstance(reply.body, bytes):
        yield reply.body
        return
    async for piece in reply.body:
        yield piece


async def read_whole(reply: Reply, limit_bytes: int) -> bytes:
    """
    Read the body of an answer and close it.

    Raises:
        UpstreamProtocolError: It is longer than the limit (502).
    """
    try:
        if isinstance(reply.body, bytes):
            return reply.body
        pieces = []
        size = 0
        async for piece in reply.body:
            size += len(piece)
            if size > limit_bytes:
                raise UpstreamProtocolError("The upstream's answer is too long for an assistant.")
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        if reply.close is not None:
            await reply.close()


def _segment(part: str, values: Mapping[str, str]) -> str:
    return quote(values[part[1:-1]], safe="") if part.startswith("{") else part
