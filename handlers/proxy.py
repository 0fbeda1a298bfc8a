"""
The operation of the tag Proxy: the reviewed operations of the contract, JSON in and JSON out.

The target is found by the relay's own index and held against the checks that a direct call meets. Nothing here names
an operation: its bucket in the contract is the whole decision.
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from codegen.contract import JSON, Bucket, Operation
from handlers.runtime.errors import describe_error
from handlers.runtime.exceptions import (
    DuplicateKey,
    InvalidBody,
    MalformedJson,
    OperationNotProxied,
    RelayError,
    StreamingNotAllowed,
    UnknownOperation,
    UpstreamProtocolError,
)
from handlers.runtime.headers import request_headers
from handlers.runtime.json_bodies import decode_json, encode_json
from handlers.runtime.matching import Match
from handlers.runtime.messages import Header, Reply, Request
from handlers.runtime.routes import Route
from handlers.runtime.services import Services

# A field, and its twin for callers that cannot send an object whose fields nobody declares.
_AS_TEXT = {"query": "query_json", "body": "body_json"}
# No letter of such a path has a second reading. The contract cannot say so: importers take no `pattern`.
_PLAIN_PATH = re.compile(r"/v1(?:/[A-Za-z0-9_-][A-Za-z0-9_.:-]*)+", re.ASCII)
# Rules of GOVERNANCE.md: the one that lets a call pass, and the one that refuses by the exception that says so.
_ALLOWED = "proxy-reviewed"
_UNFIT = "proxy-as-direct"
_REFUSED: Mapping[type[RelayError], str] = {
    StreamingNotAllowed: "proxy-unstreamed",
    UnknownOperation: "proxy-bucket",
    OperationNotProxied: "proxy-bucket",
}


@dataclass(frozen=True, slots=True)
class _Target:
    route: Route
    match: Match[Route]

    @property
    def operation(self) -> Operation:
        return self.route.operation


@dataclass(frozen=True, slots=True)
class _Call:
    operation: Operation
    path: str
    query: bytes
    content: bytes | None


async def forward_request(request: Request) -> Reply:
    """
    Call the operation that the body names, or say what calling it would do.

    Args:
        request: Its body is a validated `ProxyRequest`.

    Returns:
        Upstream's answer, unchanged; for a dry run `ProxyVerdict`.

    Raises:
        UnknownOperation: Method and path name no operation that anybody but operators may know of (404).
        StreamingNotAllowed: The call asks for a stream (403).
        OperationNotProxied: The operation is not `PROXY_HARNESS` (403).
        ContractViolation: Path, query or body do not fit the operation (400).
        UpstreamUnreachable: No connection (502).
        UpstreamProtocolError: No valid HTTP answer, or one that is not JSON (502).
        UpstreamTimeout: No answer in time (504).

    Source: operation `forwardRequest`.
    """
    wanted = request.body
    target = _find(request.services, wanted["method"], wanted["path"])
    if target is not None:
        request.log["target"] = target.operation.id
        request.reply_headers += target.route.lifecycle_headers
    if wanted.get("dry_run", False):
        return Reply.json(_verdict(request, target))
    call = _admit(request, target)
    reply = await request.services.upstream.send(
        call.operation.method,
        call.path,
        query=call.query,
        headers=_headers(request.headers, call.content),
        content=call.content,
    )
    return await _json_only(reply)


def _find(services: Services, method: str, path: str) -> _Target | None:
    """The operation; `None` as well where only operators may know that there is one."""
    match = services.index.match(path) if _PLAIN_PATH.fullmatch(path) else None
    route = match.methods.get(method) if match else None
    return _Target(route, match) if match and route and route.operation.published else None


def _admit(request: Request, target: _Target | None) -> _Call:
    """Decide: the call to make, or the exception that refuses it."""
    if not _PLAIN_PATH.fullmatch(request.body["path"]):
        raise UnknownOperation(
            "`path` must begin with `/v1/` and hold plain segments: no percent-encoding, no dot segments, no query."
        )
    wanted = _with_objects(request)
    query: Mapping[str, Any] = wanted.get("query", {})
    body = wanted.get("body")
    _refuse_stream(query, body)
    if target is None:
        raise UnknownOperation("No operation of the contract has this method and path; see /openapi.json.")
    operation = target.operation
    if operation.bucket is not Bucket.PROXY_HARNESS:
        raise OperationNotProxied(
            f"`{operation.id}` is {operation.bucket}; the proxy carries {Bucket.PROXY_HARNESS} only. "
            f"{_what_to_do(operation)}"
        )
    validator = target.route.validator
    validator.check_path(target.match.path_params)
    encoded_query = _encode_query(query)
    validator.check_query(encoded_query)
    if body is None:
        validator.check_no_body()
    else:
        validator.check_body(body, place="body")
    content = None if body is None else encode_json(body)
    return _Call(operation, target.match.path, encoded_query, content)


def _with_objects(request: Request) -> Mapping[str, Any]:
    """
    The `ProxyRequest` with its texts read as the objects that they hold.

    Raises:
        ContractViolation: A text is no such object, or its twin came along (400).
    """
    wanted = dict(request.body)
    for name, text_name in _AS_TEXT.items():
        if text_name not in wanted:
            continue
        if name in wanted:
            raise InvalidBody(f"`{name}` and `{text_name}` must not be sent together.", param=text_name)
        wanted[name] = _object_in(wanted.pop(text_name), text_name)
    if wanted.keys() != request.body.keys():
        # What may stand in a query is said once, in the schema of the plain field.
        request.services.routes[request.operation.id].validator.check_body(wanted)
    return wanted


def _object_in(text: str, name: str) -> dict[str, Any]:
    try:
        value = decode_json(text.encode())
    except MalformedJson:
        raise MalformedJson(f"`{name}` must hold valid JSON, and be absent where there is none.", param=name) from None
    except DuplicateKey:
        raise DuplicateKey(f"`{name}` must hold no object that has a name twice.", param=name) from None
    if not isinstance(value, dict):
        raise InvalidBody(f"`{name}` must hold one JSON object, and be absent where there is none.", param=name)
    return value


def _refuse_stream(query: Mapping[str, Any], body: Mapping[str, Any] | None) -> None:
    for place, fields in (("query", query), ("body", body or {})):
        for name, value in fields.items():
            # `stream[]=true` is how some clients write a list.
            if name.partition("[")[0] == "stream" and value is not None and value is not False:
                raise StreamingNotAllowed(
                    f"`{place}.stream` must be false or absent: the proxy answers JSON in one piece.",
                    param=f"{place}.stream",
                )


def _what_to_do(operation: Operation) -> str:
    if not operation.served:
        return f"This relay does not serve the operation. {operation.reason}"
    if operation.bucket is Bucket.WRAPPER_REQUIRED and operation.wrapper:
        return f"Call its wrapper `{operation.wrapper}` instead."
    scopes = " or ".join(f"`{scope}`" for scope in sorted(operation.scopes))
    return f"Call it directly, with a key that has the scope {scopes}."


def _encode_query(query: Mapping[str, Any]) -> bytes:
    pairs = [
        (name, item if isinstance(item, str) else encode_json(item))
        for name, value in query.items()
        for item in (value if isinstance(value, list) else [value])
    ]
    return urlencode(pairs, quote_via=quote).encode()


def _headers(received: list[Header], content: bytes | None) -> list[Header]:
    """What may travel; the media type is that of the call and not of the body that described it."""
    kept = [header for header in request_headers(received) if header[0] != b"content-type"]
    return kept if content is None else [*kept, (b"content-type", JSON.encode())]


async def _json_only(reply: Reply) -> Reply:
    """
    Pass on JSON, errors of any kind, and an answer that says nothing.

    Raises:
        UpstreamProtocolError: It is something else; nothing of it is passed on (502).
    """
    media_type = next((value for name, value in reply.headers if name == b"content-type"), None)
    if reply.status >= HTTPStatus.BAD_REQUEST or _is_json(media_type):
        return reply
    try:
        empty = media_type is None and await _is_empty(reply.body)
    finally:
        if reply.close is not None:
            await reply.close()
    if not empty:
        raise UpstreamProtocolError("The upstream answered something else than JSON; the call itself may have worked.")
    return Reply(reply.status, [header for header in reply.headers if header[0] != b"content-length"])


def _is_json(media_type: bytes | None) -> bool:
    return media_type is not None and media_type.split(b";", 1)[0].strip().lower() == JSON.encode()


async def _is_empty(body: bytes | AsyncIterator[bytes]) -> bool:
    if isinstance(body, bytes):
        return not body
    async for piece in body:
        if piece:
            return False
    return True


def _verdict(request: Request, target: _Target | None) -> dict[str, Any]:
    operation = target.operation if target else None
    error = None
    try:
        call = _admit(request, target)
    except RelayError as refusal:
        error = describe_error(refusal)
        rule, reason = _REFUSED.get(type(refusal), _UNFIT), error["message"]
    else:
        rule, reason = _ALLOWED, request.services.contract.reviews[call.operation.review].requirement
    return {
        "object": "proxy.verdict",
        "allowed": error is None,
        "rule": rule,
        "reason": reason,
        "operation_id": operation.id if operation else None,
        "bucket": operation.bucket if operation else None,
        "review": operation.review or None if operation else None,
        "error": error,
    }
