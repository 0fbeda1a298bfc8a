"""
The typed request that a handler takes and the typed reply that it returns.

Not for: reading sockets (`handlers.runtime.connection`) or deciding who may ask (`handlers.runtime.access`).
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from codegen.contract import Operation

if TYPE_CHECKING:
    from handlers.runtime.access import Caller
    from handlers.runtime.services import Services

Header = tuple[bytes, bytes]


@dataclass(slots=True)
class Reply:
    """
    What a handler answers.

    Args:
        headers: Names in lower case.
        body: All of it, or its pieces as they come. `Content-Length` is added for the former.
        close: Called once when the body has been sent or given up.
    """

    status: int
    headers: list[Header]
    body: bytes | AsyncIterator[bytes] = b""
    close: Callable[[], Awaitable[None]] | None = None

    @classmethod
    def json(cls, value: Any, *, status: int = 200) -> "Reply":
        """Answer a JSON value."""
        try:
            body = orjson.dumps(value)
        except orjson.JSONEncodeError:  # from the upstream: an integer beyond 64 bits, half of a surrogate pair
            body = json.dumps(value, allow_nan=False).encode()
        return cls(status, [(b"content-type", b"application/json")], body)

    @classmethod
    def text(cls, value: str, *, media_type: str) -> "Reply":
        """Answer text in UTF-8."""
        return cls(200, [(b"content-type", f"{media_type}; charset=utf-8".encode())], value.encode())


@dataclass(slots=True)
class Progress:
    """
    How far a call has come, for whoever waits for it.

    Args:
        text: A phrase for people, such as "1,200 characters so far"; empty when there is nothing to tell.
    """

    text: str = ""


@dataclass(slots=True)
class Request:
    """
    A request that has been matched, authorised and validated.

    Args:
        id: The relay's id of this request, as in `x-relay-request-id`.
        path: The path to send upstream: values of template segments encoded anew.
        query: The query as received, without `?`.
        headers: As received, names in lower case.
        caller: Whose key it was; `None` on open operations.
        raw_body: The bytes of a JSON body; empty when there is none or when it is streamed.
        body: The decoded, validated JSON body.
        content: The pieces of a streamed body (multipart, binary), `None` otherwise.
        content_length: Length of the streamed body in bytes when the client told it.
        log: What else the request's log line says; never anything that the client sent.
        progress: Where a handler tells how far it has come.
        reply_headers: Stand on every reply to this request beside the reply's own, refusals included.
    """

    id: str
    operation: Operation
    path: str
    path_params: Mapping[str, str]
    query: bytes
    headers: list[Header]
    caller: "Caller | None"
    services: "Services"
    raw_body: bytes = b""
    body: Any = None
    content: AsyncIterator[bytes] | None = None
    content_length: int | None = None
    log: dict[str, object] = field(default_factory=dict)
    reply_headers: list[Header] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (name in lower case)."""
        return next((value for key, value in self.headers if key == name), None)


Handler = Callable[[Request], Awaitable[Reply]]
