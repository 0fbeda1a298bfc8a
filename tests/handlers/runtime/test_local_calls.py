import asyncio
import contextlib
import gzip
from typing import Any

import anyio
import pytest
from connexion import AsyncApp
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.testing import capture_logs

from codegen.contract import Scope as KeyScope
from handlers.runtime.access import Caller
from handlers.runtime.budget import MAX_READ_BYTES
from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.local_calls import INSIDE, LocalCall, LocalCalls
from handlers.runtime.messages import Progress, Reply
from tests.handlers.conftest import MakeRequest
from tests.handlers.runtime.asgi import PATIENCE_SECONDS, UpstreamDouble

CALL = LocalCall("GET", "/v1/models")
TEAM = Caller("team", frozenset({KeyScope.CANONICAL}))
PIECE = bytes(2**20)


class Operation:
    """An application that is called: keeps what it was told, and answers what a test wants."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.scope: dict[str, Any] = {}
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request and answer it."""
        self.scope = dict(scope)
        message = await receive()
        self.body = message["body"]
        assert not message["more_body"]
        for answer in self.messages:
            await send(answer)


def start(status: int = 200, **headers: str) -> Message:
    """The head of a reply."""
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": lines}


def piece(body: bytes, *, more: bool = False) -> Message:
    """A piece of a reply's body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def calls_of(app: ASGIApp) -> LocalCalls:
    """Calls of this application."""
    calls = LocalCalls()
    calls.serve(app)
    return calls


async def asked(
    request_of: MakeRequest, app: ASGIApp, call: LocalCall = CALL, progress: Progress | None = None, **fields: Any
) -> Reply:
    """The reply to a call that a message asks for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await calls_of(app).call(request_of("sendMcpMessage", **fields), call, progress or Progress())


async def test_a_call_is_a_request_like_one_from_outside(request_of: MakeRequest) -> None:
    """Method, path, query and body arrive as they were given, with the headers that go with a body."""
    app = Operation(start(201, x_a="b"), piece(b'{"a"', more=True), piece(b":1}"))
    reply = await asked(request_of, app, LocalCall("POST", "/v1/a%2Fb", b"c=d", b'{"e":1}'))
    assert (app.scope["method"], app.scope["raw_path"], app.scope["query_string"]) == ("POST", b"/v1/a%2Fb", b"c=d")
    assert app.body == b'{"e":1}'
    assert app.scope["headers"] == [(b"content-type", b"application/json"), (b"content-length", b"7")]
    assert (reply.status, reply.headers, reply.body) == (201, [(b"x-a", b"b")], b'{"a":1}')


async def test_a_call_without_a_body_says_nothing_of_one(request_of: MakeRequest) -> None:
    """Neither type nor length stands in its headers."""
    app = Operation(start(), piece(b""))
    await asked(request_of, app)
    assert app.scope["headers"] == []


async def test_only_where_the_caller_came_from_is_passed_on(request_of: MakeRequest) -> None:
    """Credentials, cookies and the protocol's own headers stay behind."""
    passed_on = [
        (b"host", b"relay.example"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"relay.example"),
        (b"forwarded", b"proto=https"),
        (b"user-agent", b"client/1"),
    ]
    kept_back = [
        (b"authorization", b"Bearer rk_made-up"),
        (b"x-relay-key", b"rk_made-up"),
        (b"cookie", b"a=b"),
        (b"mcp-session-id", b"abc"),
        (b"content-type", b"application/json"),
        (b"content-length", b"9999"),
        (b"accept", b"text/event-stream"),
        (b"origin", b"https://app.example"),
    ]
    app = Operation(start(), piece(b"{}"))
    await asked(request_of, app, headers=[*kept_back, *passed_on])
    assert app.scope["headers"] == passed_on


async def test_the_caller_is_taken_over_and_nothing_else(request_of: MakeRequest) -> None:
    """The operation is told who asks, in which request, and where to tell how far it has come."""
    app = Operation(start(), piece(b"{}"))
    progress = Progress()
    await asked(request_of, app, progress=progress, headers=[])
    inside = app.scope[INSIDE]
    assert inside.caller.key_id == "somebody"
    assert inside.request_id == "rly_0123456789"
    assert inside.progress is progress


async def test_the_operation_decides_anew_whether_the_caller_may(
    request_of: MakeRequest, app: AsyncApp, fresh_upstream: UpstreamDouble
) -> None:
    """A caller from inside opens what the scopes open, no more; what is refused reaches no upstream."""
    request = request_of("sendMcpMessage")
    request.caller = Caller("team", frozenset({KeyScope.PROXY}))
    refused = await calls_of(app).call(request, CALL, Progress())
    assert refused.status == 403
    assert not fresh_upstream.requests
    request.caller = TEAM
    answered = await calls_of(app).call(request, CALL, Progress())
    assert (answered.status, answered.body) == (200, b'{"from": "upstream"}')


async def test_nobody_gets_in_without_a_caller(request_of: MakeRequest, app: AsyncApp) -> None:
    """A call from inside that brings no caller and no key is refused as one from outside is."""
    request = request_of("sendMcpMessage")
    request.caller = None
    assert (await calls_of(app).call(request, CALL, Progress())).status == 401


async def test_the_log_line_of_a_call_names_the_request_that_brought_it(
    request_of: MakeRequest, app: AsyncApp, fresh_upstream: UpstreamDouble
) -> None:
    """So that both lines are found together."""
    del fresh_upstream
    request = request_of("sendMcpMessage")
    request.caller = TEAM
    with capture_logs() as lines:
        await calls_of(app).call(request, CALL, Progress())
    (line,) = lines
    assert (line["operation"], line["within"], line["key"]) == ("listModels", request.id, "team")


async def test_a_coded_reply_is_read(request_of: MakeRequest) -> None:
    """The upstream may compress; who asked from inside gets the text."""
    app = Operation(start(content_encoding="gzip"), piece(gzip.compress(b'{"a":1}')))
    assert (await asked(request_of, app)).body == b'{"a":1}'


@pytest.mark.parametrize("messages", [(), (start(),), (start(), piece(b"{", more=True))])
async def test_half_a_reply_is_none(request_of: MakeRequest, messages: tuple[Message, ...]) -> None:
    """A reply that broke off never passes for a whole one."""
    with pytest.raises(UpstreamProtocolError, match="broke off"):
        await asked(request_of, Operation(*messages))


async def test_a_reply_without_end_is_given_up(request_of: MakeRequest) -> None:
    """What is longer than anybody reads at once is not kept, and the operation is told so."""
    count = MAX_READ_BYTES // len(PIECE)
    app = Operation(start(), *[piece(PIECE, more=True)] * count, piece(b"x"))
    with pytest.raises(UpstreamProtocolError):
        await asked(request_of, app)
    app = Operation(start(), *[piece(PIECE, more=True)] * (count - 1), piece(PIECE))
    assert len((await asked(request_of, app)).body) == MAX_READ_BYTES  # type: ignore[arg-type]  # a whole body


async def test_calls_need_an_application(request_of: MakeRequest) -> None:
    """A relay that was not put together says so."""
    with pytest.raises(RuntimeError, match="serve"):
        await LocalCalls().call(request_of("sendMcpMessage"), CALL, Progress())


class Waiting:
    """
    An application that waits until its client leaves, then tidies up, which takes a moment.

    Args:
        tidying: Steps of the tidying up, each of which lets others run.
    """

    def __init__(self, tidying: int = 3) -> None:
        self.waits = asyncio.Event()
        self.told: list[str] = []
        self.tidy = False
        self._tidying = tidying

    async def __call__(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        """Wait."""
        await receive()
        self.waits.set()
        self.told.append((await receive())["type"])
        for _ in range(self._tidying):
            await asyncio.sleep(0)
        self.tidy = True


async def test_who_is_cancelled_has_left(request_of: MakeRequest) -> None:
    """The operation hears what it hears when a client leaves, and is waited for while it tidies up."""
    app = Waiting()
    task = asyncio.create_task(asked(request_of, app))
    await app.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert app.told == ["http.disconnect"]
    assert app.tidy


async def test_tidying_up_is_not_cancelled_again(request_of: MakeRequest) -> None:
    """A scope of anyio cancels whatever waits in it, over and over; what the operation still does is spared."""
    app = Waiting(tidying=20)
    async with asyncio.timeout(PATIENCE_SECONDS), anyio.create_task_group() as tasks:
        tasks.start_soon(asked, request_of, app)
        await app.waits.wait()
        tasks.cancel_scope.cancel()
    assert app.tidy


async def test_a_cancelled_call_is_logged_like_one_whose_client_left(request_of: MakeRequest, app: AsyncApp) -> None:
    """Every request writes one line, also from inside."""
    request = request_of("sendMcpMessage")
    request.caller = TEAM
    asleep = asyncio.Event()

    async def never(_request: object) -> Reply:
        asleep.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    with capture_logs() as lines, pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpstreamDouble, "handle_async_request", lambda _self, asked: never(asked))
        task = asyncio.create_task(calls_of(app).call(request, CALL, Progress()))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asleep.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    (line,) = lines
    assert (line["operation"], line["outcome"], line["within"]) == ("listModels", "client_gone", request.id)
