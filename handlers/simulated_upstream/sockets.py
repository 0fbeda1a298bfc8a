"""
The realtime sockets of the simulated upstream: a session of events that answers what clients of the official SDK send.

Takes the same key as requests do, refuses by the same faults, and is recorded beside them. Source: the Realtime API's
events, in the form that the official SDK knows.
"""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson

from handlers.simulated_upstream.connection import ConnectionCut, Receive, Scope, Send
from handlers.simulated_upstream.faults import Fault, FaultPlan
from handlers.simulated_upstream.recorder import RecordedSocket, Recorder

OPERATION_ID = "connectRealtime"
SUBPROTOCOL = "realtime"
AUDIO_DELTAS = 3
AUDIO_DELTA_BYTES = 4_800  # 100 ms of PCM16 at 24 kHz
DEAF_SECONDS = 10.0
_TEXT = ("We move ", "the wiki ", "on Friday.")


async def serve_socket(scope: Scope, receive: Receive, send: Send, recorder: Recorder, faults: FaultPlan) -> None:
    """
    Serve one socket: refuse the handshake, or answer events until either side ends it.

    A binary message and a text that is no event come back as they are.
    """
    request = recorder.start({**scope, "method": "GET"})
    request.operation_id = OPERATION_ID
    fault = faults.take(OPERATION_ID)
    record = recorder.start_socket(request, scope["subprotocols"])
    await receive()
    try:
        await asyncio.sleep(fault.delay_seconds)
        if fault.silent:
            await _until_gone(receive, record)
            return
        refusal = _refusal(fault, request.header("authorization"))
        if refusal is not None:
            request.status = refusal[0]
            await _refuse(send, *refusal, fault)
            return
        request.status = 101
        await send(_acceptance(scope, fault))
        await _Session(receive, send, record, fault, _model(request.query)).run()
    except OSError:  # the server's word for a client that has left
        record.end(1006, "")
    finally:
        request.finished_at = time.monotonic()
        record.end(None, "")


class _Session:
    def __init__(self, receive: Receive, send: Send, record: RecordedSocket, fault: Fault, model: str) -> None:
        self._receive = receive
        self._send = send
        self._record = record
        self._fault = fault
        self._session = {
            "type": "realtime",
            "object": "realtime.session",
            "id": f"sess_{secrets.token_hex(8)}",
            "model": model,
            "output_modalities": ["audio"],
        }

    async def run(self) -> None:
        await self._event("session.created", session=self._session)
        if await self._misbehave():
            return
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._record.end(message.get("code"), message.get("reason") or "")
                return
            text = message.get("text")
            received: str | bytes = text if text is not None else message["bytes"]
            self._record.add(received)
            if self._fault.slow_read_bytes_per_second:
                await asyncio.sleep(len(received) / self._fault.slow_read_bytes_per_second)
            await self._answer(received)
            limit = self._fault.socket_messages
            if limit is not None and len(self._record.sizes) >= limit and await self._end():
                return

    async def _misbehave(self) -> bool:
        """Carry out what a fault wants before the first message; whether that ends the session."""
        if self._fault.flood_messages is not None:
            for number in range(self._fault.flood_messages):
                text = orjson.dumps({"type": "flood", "number": number, "padding": "x" * self._fault.flood_bytes})
                await self._send({"type": "websocket.send", "text": text.decode()})
                self._record.sent = number + 1
        if self._fault.cut_after_bytes is not None:
            raise ConnectionCut("cut by a fault")
        if self._fault.deaf_socket:
            await asyncio.sleep(DEAF_SECONDS)
        return self._fault.socket_messages == 0 and await self._end()

    async def _end(self) -> bool:
        if self._fault.close_code is None:
            return False
        code, reason = self._fault.close_code, self._fault.close_reason
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
        return True

    async def _answer(self, received: str | bytes) -> None:
        try:
            event = orjson.loads(received) if isinstance(received, str) else None
        except orjson.JSONDecodeError:
            event = None
        match event:
            case {"type": "session.update", "session": dict() as changes}:
                self._session |= changes
                await self._event("session.updated", session=self._session)
            case {"type": "response.create"}:
                async for name, fields in _response():
                    await self._event(name, **fields)
            case {"type": "input_audio_buffer.append"}:
                pass
            case {"type": "simulated.echo_credentials"}:
                await self._event("error", error={"message": f"Incorrect API key: {self._record.authorization}"})
            case _:
                kind = "text" if isinstance(received, str) else "bytes"
                await self._send({"type": "websocket.send", kind: received})

    async def _event(self, name: str, **fields: Any) -> None:
        event = {"type": name, "event_id": f"event_{secrets.token_hex(8)}", **fields}
        await self._send({"type": "websocket.send", "text": orjson.dumps(event).decode()})


async def _response() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    response = {"object": "realtime.response", "id": f"resp_{secrets.token_hex(8)}", "status": "in_progress"}
    place = {"response_id": response["id"], "item_id": "item_1", "output_index": 0, "content_index": 0}
    yield "response.created", {"response": {**response, "output": []}}
    for text in _TEXT:
        yield "response.output_audio_transcript.delta", {**place, "delta": text}
    for number in range(AUDIO_DELTAS):
        audio = base64.b64encode(bytes([number]) * AUDIO_DELTA_BYTES).decode()
        yield "response.output_audio.delta", {**place, "delta": audio}
    yield "response.output_audio.done", place
    yield "response.done", {"response": {**response, "status": "completed", "output": []}}


def _refusal(fault: Fault, authorization: str | None) -> tuple[int, Any] | None:
    if fault.echo_credentials:
        return fault.status or 401, {"error": {"message": f"Incorrect API key provided: {authorization}."}}
    if fault.status is not None:
        error = {"message": "A fault was asked for.", "type": "server_error", "param": None, "code": None}
        return fault.status, fault.body if fault.body is not None else {"error": error}
    if not (authorization or "").startswith("Bearer "):
        return 401, {"error": {"message": "You didn't provide an API key.", "code": "invalid_api_key"}}
    return None


async def _refuse(send: Send, status: int, value: Any, fault: Fault) -> None:
    headers = {"content-type": "application/json", "x-request-id": f"req_{secrets.token_hex(16)}", **fault.headers}
    pairs = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
    await send({"type": "websocket.http.response.start", "status": status, "headers": pairs})
    await send({"type": "websocket.http.response.body", "body": orjson.dumps(value)})


def _acceptance(scope: Scope, fault: Fault) -> dict[str, Any]:
    headers = {
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "openai-organization": "org-example",
        "set-cookie": "__cf_bm=simulated; path=/; HttpOnly; Secure; SameSite=None",
        **fault.headers,
    }
    chosen = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
    pairs = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
    return {"type": "websocket.accept", "subprotocol": chosen, "headers": pairs}


def _model(query: str) -> str:
    return dict(pair.partition("=")[::2] for pair in query.split("&")).get("model", "gpt-realtime")


async def _until_gone(receive: Receive, record: RecordedSocket) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            record.end(message.get("code"), message.get("reason") or "")
            return
