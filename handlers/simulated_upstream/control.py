"""
Control of the simulated upstream over HTTP, for tests in other processes; loopback only, no key.

`GET` and `DELETE /_simulated/requests`, `GET /_simulated/count`, `POST` and `DELETE /_simulated/faults`.
"""

from typing import Any

import orjson

from handlers.simulated_upstream.connection import Receive, Scope, Send
from handlers.simulated_upstream.faults import FaultPlan, fault_from_json
from handlers.simulated_upstream.recorder import Recorder

CONTROL_PREFIX = "/_simulated/"


async def answer_control(scope: Scope, receive: Receive, send: Send, recorder: Recorder, faults: FaultPlan) -> None:
    """Answer one control request with JSON; 404 for anything unknown, 400 for a malformed fault."""
    status, value = _control(scope["method"], scope["path"], await _body(receive), recorder, faults)
    data = orjson.dumps(value)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": False})


def _control(method: str, path: str, body: bytes, recorder: Recorder, faults: FaultPlan) -> tuple[int, Any]:
    match method, path.removeprefix(CONTROL_PREFIX):
        case "GET", "requests":
            return 200, [record.as_json() for record in recorder.requests]
        case "DELETE", "requests":
            recorder.clear()
        case "GET", "count":
            return 200, {"count": recorder.count}
        case "POST", "faults":
            try:
                faults.add(fault_from_json(orjson.loads(body)))
            except ValueError as error:  # orjson's errors are among them
                return 400, {"error": str(error)}
        case "DELETE", "faults":
            faults.clear()
        case _:
            return 404, {"error": "no such control path"}
    return 200, {}


async def _body(receive: Receive) -> bytes:
    data = bytearray()
    more = True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(data)
