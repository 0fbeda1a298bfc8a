"""
The ASGI application of the simulated upstream: key, operation, body, answer, headers; and its control paths.

Holds no key except in the recorder. Never reachable from `relay serve`.
"""

import gzip
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import orjson

from codegen.contract import EVENT_STREAM, JSON, MULTIPART, Contract, Operation
from handlers.runtime.matching import OperationIndex
from handlers.simulated_upstream.behaviour import Answer, Call, World
from handlers.simulated_upstream.connection import Connection, Receive, Reply, Scope, Send
from handlers.simulated_upstream.content import PIECE_BYTES, GeneratedContent, Spool
from handlers.simulated_upstream.control import CONTROL_PREFIX, answer_control
from handlers.simulated_upstream.errors import BadRequest, MissingKey, NotFound, UpstreamRefusal, envelope
from handlers.simulated_upstream.faults import Fault, FaultPlan
from handlers.simulated_upstream.multipart import RequestBody, add_field, read_body, require_parts
from handlers.simulated_upstream.ranges import PartOfContent, part_of
from handlers.simulated_upstream.recorder import RecordedRequest, Recorder
from handlers.simulated_upstream.shapes import required_fields
from handlers.simulated_upstream.sockets import serve_socket

MIRRORED = "x-policy-mirrored"  # on a tag object: its operations are upstream's, not the relay's own


class SimulatedUpstream:
    """
    A double of the OpenAI API, computed from the examples of a contract.

    Args:
        contract: Operations whose tag is marked `x-policy-mirrored` are served, except unsupported ones and those with
            a colon in their path.
        event_interval_seconds: Pause between two events of a stream.
        spool_folder: Where large files are put; `None` means the system's place for temporary files.
        background_seconds: How long created work is seen in progress before it is finished.
    """

    def __init__(
        self,
        contract: Contract,
        *,
        event_interval_seconds: float = 0.0,
        spool_folder: Path | None = None,
        background_seconds: float = 0.0,
    ) -> None:
        self.recorder = Recorder()
        self.faults = FaultPlan()
        self.operations = tuple(served_operations(contract))
        self._event_interval_seconds = event_interval_seconds
        self._world = World(contract, self.operations, background_seconds=background_seconds)
        self._required_parts = {
            operation.id: required_fields(contract.document, operation.body.content[MULTIPART].pointer)
            for operation in self.operations
            if operation.body is not None and operation.multipart
        }
        self._index = OperationIndex((operation, operation) for operation in self.operations)
        self._spool = Spool(spool_folder)

    def forget_objects(self) -> None:
        """Forget every object that was created; what was recorded stays."""
        self._world.places.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection; a socket wherever it is opened, for the contract of requests knows none."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] != "http":
            await serve_socket(scope, receive, send, self.recorder, self.faults)
        elif scope["path"].startswith(CONTROL_PREFIX):
            await answer_control(scope, receive, send, self.recorder, self.faults)
        else:
            record = self.recorder.start(scope)
            connection = Connection(receive, send, record)
            await connection.supervise(self._exchange(connection, record))

    async def _exchange(self, connection: Connection, record: RecordedRequest) -> None:
        match = self._index.match(record.path)
        operation = match.methods.get(record.method) if match is not None else None
        record.operation_id = operation.id if operation is not None else None
        fault = self.faults.take(record.operation_id)
        started = time.perf_counter()
        try:
            params = match.path_params if match is not None else {}
            answer = await self._answer(connection, record, operation, params, fault)
        except UpstreamRefusal as refusal:
            await connection.drain()
            answer = Answer(refusal.status, value=refusal.body)
        if not fault.ignore_range:
            answer = _partial(answer, record)
        reply = self._reply(answer, record, fault, (time.perf_counter() - started) * 1000)
        await connection.send(reply, fault)

    async def _answer(
        self,
        connection: Connection,
        record: RecordedRequest,
        operation: Operation | None,
        params: Mapping[str, str],
        fault: Fault,
    ) -> Answer:
        rate = fault.slow_read_bytes_per_second
        replaced = _replacement(fault, record)
        if replaced is not None or operation is None:
            async for _ in connection.body(rate):
                pass
            if replaced is not None:
                return replaced
        _require_key(record)
        if operation is None:
            raise NotFound(f"Invalid URL ({record.method} {record.path})")
        body = await read_body(connection.body(rate), record.header("content-type") or "", self._spool)
        if operation.body is None:
            body = RequestBody()
        elif operation.body.required and not body.present:
            raise BadRequest("The request must have a body.")
        elif body.multipart:
            require_parts(body, self._required_parts.get(operation.id, ()))
        background_seconds = fault.background_seconds
        return self._world.answer(Call(operation, params, _query(record.query), body, background_seconds))

    def _reply(self, answer: Answer, record: RecordedRequest, fault: Fault, milliseconds: float) -> Reply:
        headers = {**_service_headers(milliseconds), **answer.headers}
        pieces: Iterable[bytes]
        interval = 0.0
        if answer.events is not None:
            headers["content-type"] = f"{EVENT_STREAM}; charset=utf-8"
            headers["cache-control"] = "no-cache"
            pieces, interval = answer.events, self._event_interval_seconds
            if fault.event_interval_seconds is not None:
                interval = fault.event_interval_seconds
        elif answer.content is not None:
            headers["content-type"] = answer.media_type
            headers["content-length"] = str(answer.content.size)
            if answer.filename:
                headers["content-disposition"] = f'attachment; filename="{_header_text(answer.filename)}"'
            if isinstance(answer.content, PartOfContent):
                headers["content-range"] = answer.content.header
            pieces = answer.content.pieces()
        elif answer.value is not None:
            headers["content-type"] = JSON
            data = orjson.dumps(answer.value)
            if fault.repeat_body_to_bytes is not None:
                headers["content-length"] = str(max(fault.repeat_body_to_bytes, len(data)))
                pieces = _padded(data, fault.repeat_body_to_bytes)
            else:
                if fault.gzip and "gzip" in (record.header("accept-encoding") or ""):
                    data = gzip.compress(data)
                    headers["content-encoding"] = "gzip"
                headers["content-length"] = str(len(data))
                pieces = (data,)
        else:
            headers["content-length"] = "0"
            pieces = ()
        headers.update({name.lower(): value for name, value in fault.headers.items()})
        return Reply(answer.status, list(headers.items()), pieces, interval)


def served_operations(contract: Contract) -> Iterator[Operation]:
    """The operations of a contract that the simulated upstream serves."""
    mirrored = {tag["name"] for tag in contract.document.get("tags", ()) if tag.get(MIRRORED) is True}
    for operation in contract:
        if operation.tag in mirrored and operation.served and not operation.colon_path:
            yield operation


def _partial(answer: Answer, record: RecordedRequest) -> Answer:
    """The part of a file that the request asks for."""
    if record.method != "GET" or answer.status != HTTPStatus.OK or answer.content is None:
        return answer
    part = part_of(answer.content, record.header("range"))
    if part is None:
        return answer
    if part.size == 0:
        value = envelope("The range is behind the end of the file.", "invalid_request_error")
        headers = {"content-range": f"bytes */{answer.content.size}"}
        return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, value=value, headers=headers)
    return replace(answer, status=HTTPStatus.PARTIAL_CONTENT, content=part)


def _require_key(record: RecordedRequest) -> None:
    scheme, _, key = (record.header("authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise MissingKey("You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY`.")


def _replacement(fault: Fault, record: RecordedRequest) -> Answer | None:
    if fault.echo_credentials:
        message = f"Incorrect API key provided: {record.header('authorization')}."
        body = envelope(message, "invalid_request_error", code="invalid_api_key")
        return Answer(fault.status or 401, value=body)
    if fault.events is not None:
        return Answer(fault.status or 200, events=[text.encode() for text in fault.events])
    if fault.content_bytes is not None:
        content = GeneratedContent(fault.content_bytes)
        return Answer(fault.status or 200, content=content, media_type="application/octet-stream")
    if fault.status is None:
        return None
    if fault.body is not None:
        return Answer(fault.status, value=fault.body)
    error_type = "server_error" if fault.status >= 500 else "invalid_request_error"
    return Answer(fault.status, value=envelope("A fault was asked for.", error_type))


def _service_headers(milliseconds: float) -> dict[str, str]:
    return {
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "openai-version": "2020-10-01",
        "openai-organization": "org-example",
        "openai-processing-ms": str(max(round(milliseconds), 1)),
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-remaining-tokens": "1999900",
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": "3ms",
        "set-cookie": "__cf_bm=simulated; path=/; HttpOnly; Secure; SameSite=None",
    }


def _query(raw: str) -> dict[str, Any]:
    query: dict[str, Any] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        add_field(query, name, value)
    return query


def _header_text(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in text)


def _padded(data: bytes, size: int) -> Iterator[bytes]:
    """A JSON object with one more member, so long that the whole has the given size."""
    opening = b"{" + b'"padding":"'
    middle = b'"' + (b"," if data != b"{}" else b"") + data[1:]
    missing = size - len(opening) - len(middle)
    if missing < 0 or not data.startswith(b"{"):
        yield data
        return
    yield opening
    for start in range(0, missing, PIECE_BYTES):
        yield b"x" * min(PIECE_BYTES, missing - start)
    yield middle


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
