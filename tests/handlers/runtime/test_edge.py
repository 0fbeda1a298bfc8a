import asyncio
from typing import Any

import pytest
from connexion import AsyncApp
from structlog.testing import capture_logs

from handlers.runtime.connection import Message
from handlers.runtime.edge import Edge
from handlers.runtime.exceptions import InvalidBody
from handlers.runtime.messages import Reply
from handlers.runtime.pipeline import CONNECTION
from tests.handlers.runtime.asgi import PATIENCE_SECONDS, UpstreamDouble, ask
from tests.handlers.runtime.conftest import RELAY_KEY

CANARY = "canary-4f1d"
JSON_TYPE = {"content-type": "application/json"}


class Inner:
    """An app that does what a test wants with the connection."""

    def __init__(self, *, reply: Reply | None = None, error: Exception | None = None, wait: bool = False) -> None:
        self.reply, self.error, self.wait = reply, error, wait

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Watch the client, send a reply, fail, or wait."""
        connection = scope[CONNECTION]
        connection.watch()
        if self.reply is not None:
            await connection.send(self.reply)
        if self.error is not None:
            raise self.error
        if self.wait:
            await asyncio.Event().wait()


async def run(inner: Inner, *, leaves: bool = False) -> tuple[list[Message], list[Any]]:
    """Send one request through the edge: what went out and what was logged."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    if leaves:
        incoming.put_nowait({"type": "http.disconnect"})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with capture_logs() as lines:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await Edge(inner)({"type": "http", "method": "POST"}, incoming.get, send)
    return sent, lines


async def test_an_answered_request_writes_one_line() -> None:
    """The line says how the request ended and how much went out."""
    _, (line,) = await run(Inner(reply=Reply(200, [], b"12345")))
    assert (line["event"], line["method"], line["status"], line["outcome"]) == ("request", "POST", 200, "answered")
    assert line["bytes_out"] == 5
    assert line["ms"] >= 0
    assert line["request_id"].startswith("rly_")


@pytest.mark.parametrize("inner", [Inner(reply=Reply(200, [])), Inner(error=InvalidBody("no"))])
async def test_a_request_leaves_no_circle_behind(inner: Inner) -> None:
    """What a server keeps of a request does not lead back to it, so it is freed without the garbage collector."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "http", "method": "POST"}

    async def send(_message: Message) -> None:
        """Take it."""

    await Edge(inner)(scope, incoming.get, send)
    assert scope == {"type": "http", "method": "POST"}


async def test_a_refusal_writes_its_code() -> None:
    """A refused request is logged under the code that the client got."""
    sent, (line,) = await run(Inner(error=InvalidBody("no")))
    assert sent[0]["status"] == 400
    assert (line["status"], line["outcome"], line["log_level"]) == (400, "invalid_body", "info")


async def test_a_defect_writes_its_traceback_and_one_line() -> None:
    """What nobody expected is logged as an error under the id that the client got."""
    sent, (defect, line) = await run(Inner(error=ZeroDivisionError(CANARY)))
    assert sent[0]["status"] == 500
    assert (defect["event"], defect["log_level"]) == ("defect", "error")
    assert defect["request_id"] == line["request_id"] == dict(sent[0]["headers"])[b"x-request-id"].decode()
    assert (line["status"], line["outcome"]) == (500, "internal_error")
    assert all(CANARY.encode() not in message.get("body", b"") for message in sent)


async def test_a_failure_after_the_headers_breaks_the_reply_off() -> None:
    """Once the status is out nothing can be taken back: no second status, and no end that looks like one."""

    async def broken() -> Any:
        yield b"half"
        raise InvalidBody("too late")

    sent, (line,) = await run(Inner(reply=Reply(200, [], broken())))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"] is True
    assert (line["status"], line["outcome"]) == (200, "invalid_body")


async def test_a_client_that_left_is_no_error() -> None:
    """The work is cancelled, nothing is sent, the line says why, and the server's own task goes on."""
    task = asyncio.current_task()
    assert task is not None
    sent, (line,) = await run(Inner(wait=True), leaves=True)
    assert sent == []
    assert (line["status"], line["outcome"], line["log_level"]) == (0, "client_gone", "info")
    assert task.cancelling() == 0


async def test_a_cancellation_by_the_server_goes_through() -> None:
    """When the server itself ends the task, for example at shutdown, the edge does not swallow that."""
    task = asyncio.create_task(run(Inner(wait=True)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_not_http_is_passed_on() -> None:
    """The lifespan and sockets are none of the edge's business."""
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        await Edge(inner)({"type": kind}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]


@pytest.mark.parametrize(
    "path, query, headers, body",
    [
        (f"/v1/models/{CANARY}", b"", {}, b""),
        (f"/v1/{CANARY}", b"", {}, b""),
        ("/v1/models", f"limit={CANARY}".encode(), {}, b""),
        ("/v1/models", b"", {"x-relay-key": CANARY, "user-agent": CANARY, "authorization": f"Bearer {CANARY}"}, b""),
        ("/v1/responses", b"", JSON_TYPE, f'{{"model": {{"{CANARY}": 1}}}}'.encode()),
        ("/v1/responses", b"", {"content-type": CANARY}, b"{}"),
        ("/v1/responses", b"", JSON_TYPE, CANARY.encode()),
    ],
)
async def test_nothing_that_a_client_sent_is_logged_or_echoed(
    app: AsyncApp, fresh_upstream: UpstreamDouble, path: str, query: bytes, headers: dict[str, str], body: bytes
) -> None:
    """Neither path, query, headers, body nor any key stands in a log line or in a refusal, with a key and without."""
    for key in ({}, {"authorization": f"Bearer {RELAY_KEY}"}):
        with capture_logs() as lines:
            answer = await ask(app, "POST" if body else "GET", path, query=query, headers={**key, **headers}, body=body)
        assert lines
        for told in (str(lines), answer.body.decode(), str(answer.headers)):
            assert CANARY not in told
            assert RELAY_KEY not in told


async def test_the_line_names_operation_and_key(app: AsyncApp, fresh_upstream: UpstreamDouble) -> None:
    """Operators see which operation was asked for by which key, by the key's id."""
    with capture_logs() as lines:
        await ask(app, "GET", "/v1/models", headers={"authorization": f"Bearer {RELAY_KEY}"})
    (line,) = lines
    assert (line["operation"], line["key"]) == ("listModels", "bootstrap")
