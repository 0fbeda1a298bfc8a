import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.runtime import tool_server
from handlers.runtime.access import Caller
from handlers.runtime.exceptions import InvalidBody, NotAcceptable
from handlers.runtime.local_calls import LocalCalls
from handlers.runtime.matching import OperationIndex
from handlers.runtime.messages import Reply, Request
from handlers.runtime.tool_server import MAX_SESSION_ID_CHARACTERS, REQUEST, SESSION_HEADER, ToolOffer, ToolServer
from tests.handlers.conftest import MakeRequest
from tests.handlers.runtime.asgi import PATIENCE_SECONDS

OFFER = ToolOffer((), OperationIndex([]), LocalCalls(), version="1.2.3", max_body_bytes=100)
SESSION = (SESSION_HEADER, b"session-1")
HeaderLines = list[tuple[bytes, bytes]]
EVENTS: HeaderLines = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
JSON_TYPE: HeaderLines = [(b"content-type", b"application/json")]
Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


class Protocol:
    """Stands for the SDK: answers as a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = _answer_json
        self.failures: list[Exception] = []
        self.started = 0
        self.ended = 0
        self.scopes: list[Scope] = []
        self.starting = asyncio.Event()
        self.may_start = asyncio.Event()
        self.may_start.set()

    def __call__(self, *_: Any, **__: Any) -> "Protocol":
        """Stand for the class as well."""
        return self

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ASGIApp]:
        """Run while the block does."""
        self.started += 1
        self.starting.set()
        await self.may_start.wait()
        if self.failures:
            raise self.failures.pop(0)
        try:
            yield self._app
        finally:
            self.ended += 1

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await self.answer(scope, receive, send)


class Waiting:
    """
    An answer that begins and then waits; who cancels it is told after a moment.

    Args:
        begins: The headers that go out before.
    """

    def __init__(self, begins: HeaderLines | None = EVENTS) -> None:
        self.waits = asyncio.Event()
        self.cancelled = 0
        self._begins = begins

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Wait."""
        try:
            if self._begins is not None:
                await send(_start(200, self._begins))
            self.waits.set()
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            self.cancelled += 1


def _start(status: int, headers: HeaderLines) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _answer_json(_scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send(_start(200, JSON_TYPE))
    await send(_piece(message["body"], more=False))


def answering(status: int, headers: HeaderLines, *pieces: bytes, error: Exception | None = None) -> Answer:
    """An answer in pieces, broken off by an error where one is given."""

    async def answer(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(_start(status, headers))
        for body in pieces:
            await send(_piece(body))
        if error is not None:
            raise error
        await send(_piece(b"", more=False))

    return answer


@pytest.fixture
def protocol(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """What the tool servers of a test take for the SDK."""
    made = Protocol()
    module = ModuleType("protocol")
    module.ToolProtocol = made  # type: ignore[attr-defined]  # a module is what is imported
    monkeypatch.setattr(tool_server, "import_module", lambda _name: module)
    return made


@pytest.fixture
async def server(protocol: Protocol) -> AsyncIterator[ToolServer]:
    """A server of no tools before that SDK; nothing may stay behind in it."""
    del protocol
    before = asyncio.all_tasks()
    server = ToolServer(OFFER)
    yield server
    async with asyncio.timeout(PATIENCE_SECONDS):
        await server.close()
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0)
    assert not server._running


@pytest.fixture
def message_of(request_of: MakeRequest) -> Callable[..., Request]:
    """Makes a request that holds a message."""

    def make(method: str, *, session: bool = True, key: str = "team", headers: Any = (), **fields: Any) -> Request:
        body = {"jsonrpc": "2.0", "method": method, **fields}
        lines = [*headers, *([SESSION] if session else [])]
        request = request_of("sendMcpMessage", body=body, raw_body=json.dumps(body).encode(), headers=lines)
        assert request.caller is not None
        request.caller = Caller(key, request.caller.scopes)
        return request

    return make


async def in_time(work: Awaitable[Any]) -> Any:
    """What the work results in; a hang is a failure."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await work


async def body_of(reply: Reply) -> bytes:
    """The whole body, as it comes."""
    if isinstance(reply.body, bytes):
        return reply.body
    return b"".join([piece async for piece in reply.body])


async def test_the_first_message_loads_the_sdk_and_the_others_share_it(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """A relay that nobody asks for tools never pays for them; many who ask at once start it once."""
    assert protocol.started == 0
    replies = await in_time(asyncio.gather(*(server.exchange(message_of("ping", id=n)) for n in range(20))))
    assert [json.loads(reply.body)["id"] for reply in replies] == list(range(20))
    assert protocol.started == 1


async def test_a_start_that_fails_is_tried_again(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """One bad moment costs the messages of that moment alone."""
    protocol.failures.append(OSError("too many open files"))
    with pytest.raises(OSError, match="too many open files"):
        await in_time(server.exchange(message_of("ping", id=1)))
    assert (await in_time(server.exchange(message_of("ping", id=2)))).status == 200
    assert protocol.started == 2


async def test_who_leaves_during_the_start_does_not_spoil_it(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """The SDK is started once, also for those who come after the first has left."""
    protocol.may_start.clear()
    first = asyncio.create_task(server.exchange(message_of("ping", id=1)))
    await in_time(protocol.starting.wait())
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    protocol.may_start.set()
    assert (await in_time(server.exchange(message_of("ping", id=2)))).status == 200
    assert protocol.started == 1


async def test_closing_ends_the_sdk(protocol: Protocol, message_of: Callable[..., Request]) -> None:
    """And closing a server that was never asked does nothing."""
    server = ToolServer(OFFER)
    await server.close()
    await in_time(server.exchange(message_of("ping", id=1)))
    await in_time(server.close())
    assert (protocol.started, protocol.ended) == (1, 1)


async def test_the_sdk_is_given_the_request_and_no_credential(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """It gets the message and the headers of the protocol; keys and cookies stay with the relay."""
    secrets = [(name, b"rk_made-up") for name in (b"authorization", b"x-relay-key", b"cookie")]
    kept = [(b"mcp-protocol-version", b"2025-11-25"), (b"accept", b"*/*"), SESSION]
    request = message_of("ping", id=1, session=False, headers=[*secrets, *kept])
    await in_time(server.exchange(request))
    (scope,) = protocol.scopes
    assert scope["headers"] == kept
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/mcp", b"")
    assert scope[REQUEST] is request


async def test_the_media_type_is_written_as_the_sdk_reads_it(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """The relay has read it already, in whatever case it was written."""
    request = message_of("ping", id=1, headers=[(b"content-type", b"Application/JSON; charset=UTF-8")])
    await in_time(server.exchange(request))
    (scope,) = protocol.scopes
    assert [value for name, value in scope["headers"] if name == b"content-type"] == [b"application/json"]


@pytest.mark.parametrize("message_id", [1.0, -0.0, 1e300])
async def test_an_id_with_a_point_is_refused(
    message_id: float, server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """JSON Schema calls 1.0 an integer, the SDK takes the message for a notification: nobody would ever answer."""
    with pytest.raises(InvalidBody) as raised:
        await in_time(server.exchange(message_of("tools/call", id=message_id)))
    assert raised.value.param == "id"
    assert not protocol.scopes


async def test_a_json_reply_keeps_its_status_and_type(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """Headers that are not about the body stay behind."""
    headers = [*JSON_TYPE, (b"cache-control", b"no-store"), (b"connection", b"keep-alive"), (b"set-cookie", b"a=b")]
    protocol.answer = answering(404, headers, b'{"jsonrpc":', b'"2.0"}')
    reply = await in_time(server.exchange(message_of("nothing", id=1)))
    assert (reply.status, reply.body) == (404, b'{"jsonrpc":"2.0"}')
    assert reply.headers == [*JSON_TYPE, (b"cache-control", b"no-store")]


async def test_events_go_out_as_they_come(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """The SDK writes on only when what it has written is taken, and nothing between may hold events back."""
    protocol.answer = answering(200, EVENTS, b"data: 1\n\n", b"data: 2\n\n")
    reply = await in_time(server.exchange(message_of("tools/call", id=1)))
    assert reply.headers == [*EVENTS, (b"x-accel-buffering", b"no")]
    assert not isinstance(reply.body, bytes)
    assert await in_time(anext(aiter(reply.body))) == b"data: 1\n\n"
    assert reply.close is not None
    await in_time(reply.close())


async def test_a_slow_reader_holds_the_sdk_up(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """No more than one piece waits for a client that does not read."""
    sent: list[int] = []

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(_start(200, EVENTS))
        while True:
            await send(_piece(b"data: x\n\n"))
            sent.append(1)

    protocol.answer = endless
    reply = await in_time(server.exchange(message_of("tools/call", id=1)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(sent) <= 1
    assert reply.close is not None
    await in_time(reply.close())


async def test_a_notification_is_taken_without_a_word(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """202 has neither body nor type."""
    protocol.answer = answering(202, JSON_TYPE, b"null")
    reply = await in_time(server.exchange(message_of("notifications/initialized")))
    assert (reply.status, reply.headers, reply.body) == (202, [], b"")


async def test_what_the_sdk_does_not_want_to_answer_in_is_the_relays_error(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """406 has the relay's own body, like every refusal of a header."""
    protocol.answer = answering(406, JSON_TYPE, b"{}")
    with pytest.raises(NotAcceptable):
        await in_time(server.exchange(message_of("ping", id=1)))


async def test_a_defect_of_the_sdk_is_a_defect_of_the_request(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """What went wrong reaches the one place that logs it."""
    protocol.answer = answering(200, JSON_TYPE)

    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ZeroDivisionError

    protocol.answer = broken
    with pytest.raises(ZeroDivisionError):
        await in_time(server.exchange(message_of("ping", id=1)))


@pytest.mark.parametrize("headers", [JSON_TYPE, EVENTS], ids=["json", "events"])
async def test_a_defect_in_mid_reply_breaks_it_off(
    headers: HeaderLines, server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """Half a reply never passes for a whole one."""
    protocol.answer = answering(200, headers, b"half", error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await in_time(_whole(server, message_of("tools/call", id=1)))


async def test_a_client_is_told_apart_once_it_says_hello(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """Each `initialize` is given another id, nothing else is given one, and neither is a failed one."""
    replies = [await in_time(server.exchange(message_of("initialize", id=n, session=False))) for n in range(2)]
    ids = [dict(reply.headers)[SESSION_HEADER] for reply in replies]
    assert len(set(ids)) == 2
    assert all(len(one) == 32 for one in ids)
    other = await in_time(server.exchange(message_of("tools/list", id=3)))
    assert SESSION_HEADER not in dict(other.headers)
    protocol.answer = answering(400, JSON_TYPE, b"{}")
    failed = await in_time(server.exchange(message_of("initialize", id=4)))
    assert SESSION_HEADER not in dict(failed.headers)


async def test_closing_a_stream_cancels_its_call(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """Who closes waits until everything has been given back."""
    protocol.answer = waiting = Waiting()
    reply = await in_time(server.exchange(message_of("tools/call", id=1)))
    assert reply.close is not None
    await in_time(reply.close())
    assert waiting.cancelled == 1


async def test_who_leaves_before_the_reply_begins_cancels_the_call(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """The request's task is cancelled, and the call with it."""
    protocol.answer = waiting = Waiting(None)
    task = asyncio.create_task(server.exchange(message_of("tools/call", id=1)))
    await in_time(waiting.waits.wait())
    task.cancel()
    await in_time(asyncio.gather(task, return_exceptions=True))
    assert task.cancelled()
    assert waiting.cancelled == 1


@pytest.mark.parametrize("call_id", [1, 0, "1", "a b"])
async def test_a_notice_cancels_the_call_that_it_names(
    call_id: int | str, server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """The call's own reply ends without an answer, as the protocol asks for."""
    protocol.answer = waiting = Waiting()
    reply = await in_time(server.exchange(message_of("tools/call", id=call_id)))
    protocol.answer = answering(202, [])
    notice = message_of("notifications/cancelled", params={"requestId": call_id})
    assert (await in_time(server.exchange(notice))).status == 202
    assert await in_time(body_of(reply)) == b""
    assert waiting.cancelled == 1


@pytest.mark.parametrize("begins", [None, JSON_TYPE], ids=["before the headers", "before the body"])
async def test_a_call_that_is_cancelled_before_it_answers_says_so(
    begins: HeaderLines | None, server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """There is a request to answer, and this is the answer."""
    protocol.answer = waiting = Waiting(begins)
    task = asyncio.create_task(server.exchange(message_of("tools/call", id=7)))
    await in_time(waiting.waits.wait())
    protocol.answer = answering(202, [])
    await in_time(server.exchange(message_of("notifications/cancelled", params={"requestId": 7})))
    reply = await in_time(task)
    assert reply.status == 200
    answer = json.loads(reply.body)
    assert (answer["id"], answer["error"]["code"]) == (7, -32800)


@pytest.mark.parametrize(
    "notice",
    [
        {"key": "another"},
        {"session": False},
        {"session": False, "headers": [(SESSION_HEADER, b"session-2")]},
        {"params": {"requestId": 2}},
        {"params": {"requestId": "1"}},
        {"params": {"requestId": True}},
        {"params": {"requestId": 1.0}},
        {"params": {"requestId": None}},
        {"params": {"requestId": [1]}},
        {"params": {}},
        {"params": None},
    ],
    ids=str,
)
async def test_a_notice_cancels_nothing_else(
    notice: dict[str, Any], server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """Not another key's call, nor another client's, nor one of another id."""
    protocol.answer = waiting = Waiting()
    reply = await in_time(server.exchange(message_of("tools/call", id=1)))
    protocol.answer = answering(202, [])
    await in_time(server.exchange(message_of("notifications/cancelled", **{"params": {"requestId": 1}, **notice})))
    await asyncio.sleep(0)
    assert waiting.cancelled == 0
    assert reply.close is not None
    await in_time(reply.close())


@pytest.mark.parametrize(
    "call",
    [{"session": False}, {"session": False, "headers": [(SESSION_HEADER, b"x" * (MAX_SESSION_ID_CHARACTERS + 1))]}],
    ids=["none", "too long"],
)
async def test_a_call_of_no_session_is_kept_nowhere(
    call: dict[str, Any], server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """Nothing can cancel it but its own client, and nothing is remembered of it."""
    protocol.answer = Waiting()
    reply = await in_time(server.exchange(message_of("tools/call", id=1, **call)))
    assert not server._running
    assert reply.close is not None
    await in_time(reply.close())


async def test_the_later_of_two_calls_with_one_id_is_the_one_that_counts(
    server: ToolServer, protocol: Protocol, message_of: Callable[..., Request]
) -> None:
    """Ids are the client's business; the end of the earlier call does not hide the later one."""
    protocol.answer = first = Waiting()
    replies = [await in_time(server.exchange(message_of("tools/call", id=1)))]
    protocol.answer = second = Waiting()
    replies.append(await in_time(server.exchange(message_of("tools/call", id=1))))
    assert replies[0].close is not None
    await in_time(replies[0].close())
    assert (first.cancelled, second.cancelled) == (1, 0)
    protocol.answer = answering(202, [])
    await in_time(server.exchange(message_of("notifications/cancelled", params={"requestId": 1})))
    assert await in_time(body_of(replies[1])) == b""
    assert second.cancelled == 1


async def _whole(server: ToolServer, request: Request) -> bytes:
    reply: Reply = await server.exchange(request)
    return await body_of(reply)
